"""Random overrides of every key: a dry run ends with 0 or 2, with one sentence, in seconds and within a gigabyte."""

import copy
import functools
import random
import resource
import time
from pathlib import Path

import pytest

from zero123s.commands.launch import main
from zero123s.config import load
from zero123s.config.options import walk
from zero123s.run.plan import plan_run

REPOSITORY = Path(__file__).parents[2]
SMALL = "system.geometry.pos_encoding_config.log2_hashmap_size=12"
SAMPLE = REPOSITORY / "load" / "images" / "multi_view_sample" / "transforms.json"
BASES = (
    ("stable-zero123", SMALL),
    ("stable-zero123", SMALL, "system.geometry_type=implicit-sdf", "system.renderer_type=neus-volume-renderer"),
    ("stable-zero123", SMALL, "system.background_type=neural-environment-map-background", "system.loss.lambda_sds=0"),
    ("stable-zero123", "system.geometry_type=volume-grid", "system.material_type=neural-radiance-material"),
    ("multi-view", SMALL, f"data.transforms_path={SAMPLE}"),
    ("text-to-3d", SMALL),
    ("dreamfusion", SMALL, "system.guidance.prompt=a cup"),
    ("magic123", SMALL, "system.guidance.guidances.1.settings.prompt=a cup"),
)
SECONDS, GIGABYTES = 10, 1.0
NUMBERS = ("0", "1", "2", "-1", "3.7", "-0.5", "1e-3", "007", "0x10", "1_000", "12,5")
HUGE = (
    "1e20",
    "99999999999999999999",
    "-1e300",
    "1e400",
    ".inf",
    "-.inf",
    ".nan",
    "2147483648",
    "4294967296",
    "1e9",
    "100000",
)
TEXTS = (
    "abc",
    "auto",
    "none",
    "true",
    "no",
    "glb",
    "a b",
    "a: b",
    "#x",
    "a #1",
    "*x*",
    "!x",
    "@x",
    "%x",
    "'",
    '"',
    "[",
    "{a",
    "a]",
    "???",
)
LISTS = (
    "[]",
    "[1,2]",
    "[1.0, 2.0, 3.0]",
    "[a]",
    "[[1],[2]]",
    "[1,null]",
    "[5, 1, 2, 3]",
    "[1e20, 1]",
    "[-1,-2,-3]",
    "[1,1,1,1,1,1]",
)
MAPPINGS = (
    "{}",
    "{a: 1}",
    "{0: 1, 100: 2}",
    "{0: abc}",
    "{name: Adam}",
    "{a: {b: {c: 1}}}",
    "{null: 1}",
    "{1.5: 2}",
    "{lr: 1}",
)
OTHERS = (
    "",
    " ",
    "null",
    "~",
    "!!null",
    "é",
    "日本語",
    "\u202e",
    "🙂",
    "a\nb",
    "\t",
    "${name}",
    "${missing}",
    "${",
    "${add:1,2}",
    "${oc.env:HOME}",
    "x" * 3000,
)
VALUES = (NUMBERS, HUGE, TEXTS, LISTS, MAPPINGS, OTHERS)


@functools.cache
def keys_of(config, *arguments):
    """Every leaf key of a configuration, its sections, entries of its lists, and some keys that are none."""
    _, plan = plan_run(REPOSITORY / "configs" / f"{config}.yaml", arguments)
    leaves = list(walk(plan.experiment))
    keys = {key for key, _, _ in leaves}
    entries = {f"{key}.{i}" for key, _, value in leaves if isinstance(value, list) for i in (0, 99)}
    sections = {key.rpartition(".")[0] for key in keys} - {""}
    args = {"system.optimizer.args.lr", "system.optimizer.args.betas.0", "system.optimizer.params.geometry.lr"}
    return sorted(keys | entries | sections | args | {"nothing", "data.nothing", "system.geometry.radius.x", "data.0"})


def random_override(random):
    base = random.choice(BASES)
    return base, f"{random.choice(keys_of(*base))}={random.choice(random.choice(VALUES))}"


@pytest.fixture
def try_override(capsys, monkeypatch):
    """Dry-run one override; return what is wrong with the answer, None where nothing is."""
    monkeypatch.chdir(REPOSITORY)
    cached = functools.cache(load.read_yaml)
    monkeypatch.setattr(load, "read_yaml", lambda path: copy.deepcopy(cached(path)))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (_status("VmSize") + 4 * 2**30, before[1])
    )  # a fault must not take the machine

    def try_override(base, word):
        start, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        config, *arguments = base
        try:
            code = main(["--config", f"configs/{config}.yaml", "--train", "--dry-run", *arguments, word])
        except BaseException as error:
            capsys.readouterr()
            return f"{type(error).__name__}: {error}"
        seconds = time.process_time() - start
        gigabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 2**20
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        last = err.strip().splitlines()[-1:]
        if code not in (0, 2) or (code == 2) != (len(lines) == 1) or "Traceback" in err:
            return f"exit {code}: {err[-300:]}"
        if code == 2 and (lines != last or "memory ran out" in lines[0]):
            return f"not one sentence: {err[-300:]}"
        if seconds > SECONDS or gigabytes > GIGABYTES:
            return f"{seconds:.1f} s, {gigabytes:.2f} GB more"
        return None

    yield try_override
    resource.setrlimit(resource.RLIMIT_AS, before)


def _status(name):
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def findings(try_override, count, seed):
    generator = random.Random(seed)
    tried = [random_override(generator) for _ in range(count)]
    answers = [(base, word, try_override(base, word)) for base, word in tried]
    return [f"{base} {word[:200]!r}: {wrong}" for base, word, wrong in answers if wrong]


def test_random_overrides_end_in_one_sentence(try_override):
    assert findings(try_override, 100, seed=0) == []


@pytest.mark.slow
def test_five_thousand_random_overrides_end_in_one_sentence(try_override):
    assert findings(try_override, 5000, seed=1) == []
