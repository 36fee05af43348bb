"""kill -9 at any moment of a job: what stands is whole, and going on ends with the very mesh of the job that ran through.

pytest tests/end_to_end/test_kill.py -m slow     # 50 moments, and 50 kills of moved and reused folders; by default 2 and 9
"""

import io
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pytest
import tiny_system
import torch

from zero123s.callbacks.checkpoints import AtomicCheckpointIO, read_head
from zero123s.commands.launch import main
from zero123s.errors import CheckpointError
from zero123s.run.resume import newest_checkpoint
from zero123s.scenes.nerf_synthetic import write_nerf_synthetic
from zero123s.scenes.procedural import named

REPOSITORY = Path(__file__).parents[2]
N_STEPS = 20
N_TINY_STEPS = 60
QUICK = [
    "use_timestamp=false",
    "tag=job",
    "data.height=16",
    "data.width=16",
    "data.batch_size=4",
    "data.resolution_milestones=[]",
    "data.random_camera.eval_height=16",
    "data.random_camera.eval_width=16",
    "data.random_camera.n_val_views=1",
    "data.random_camera.n_test_views=2",
    "system.renderer.num_samples_per_ray=48",
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.geometry.pos_encoding_config.log2_hashmap_size=12",
    "system.exporter.isosurface_resolution=32",
    "system.exporter.texture_size=64",
    "system.exporter.max_faces=1000",
    "system.exporter.poster=false",
    f"trainer.max_steps={N_STEPS}",
    "trainer.val_check_interval=20",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_n_train_steps=7",
    "threads=1",
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    write_nerf_synthetic(named("teapot", 1), folder, n_views=12, size=48)
    return folder / "transforms.json"


def overrides(scene, out):
    return ["--config", str(REPOSITORY / "configs/multi-view.yaml"), "--train", f"data.transforms_path={scene}",
            f"exp_root_dir={out}", *QUICK]  # fmt: skip


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory):
    """The files of an undisturbed job, and how long it took as a process of its own."""
    out = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    process = forked.start(overrides(scene, out))
    process.join()
    assert process.exitcode == 0
    return exported(out), time.monotonic() - started


def exported(out):
    folder = out / "multi-view" / "job" / "export"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def kill_after(seconds, scene, out):
    """Start the job, kill it, and return how far it had come."""
    process = forked.start(overrides(scene, out))
    process.join(seconds)
    if process.exitcode is not None:
        return "had ended"
    process.kill()
    process.join()
    run = out / "multi-view" / "job"
    if not (run / "ckpts" / "last.ckpt").exists():
        return "before a checkpoint" if run.exists() else "before the run folder"
    step = AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")["global_step"]
    return "training" if step < N_STEPS else "drawing or exporting"


def go_on(scene, out):
    """Do what a person would: resume if there is a checkpoint, else start again."""
    begun = (out / "multi-view" / "job" / "ckpts" / "last.ckpt").exists()
    assert main([*overrides(scene, out), *(["resume=last"] if begun else [])]) == 0


def check(moments, scene, whole, tmp_path):
    """Kill at shares of the job's time, go on, compare; return how often which stage was hit."""
    files, seconds = whole
    hit = Counter()
    for i, share in enumerate(moments):
        out = tmp_path / str(i)
        started = time.monotonic()
        while (stage := kill_after(share * seconds, scene, out)) == "had ended":
            # Quicker than the job whose time was taken, which may have compiled the kernels first.
            seconds = min(0.9 * seconds, time.monotonic() - started)
            shutil.rmtree(out)
            started = time.monotonic()
        hit[stage] += 1
        go_on(scene, out)
        left = exported(out)
        assert left.keys() == files.keys(), f"killed at {share:.0%}"
        different = [name for name in files if left[name] != files[name]]
        assert not different, f"killed at {share:.0%}: {different} differ from the undisturbed job's"
        assert not [p for p in out.rglob("*") if p.suffix in (".part", ".tmp")], "no half file is left lying about"
    return hit


def test_killed_and_resumed_ends_with_the_same_mesh(scene, whole, tmp_path):
    # While drawing or exporting; kills in training are below, and fifty of all kinds are slow.
    hit = check([0.8], scene, whole, tmp_path)
    assert hit.total() == 1


@pytest.mark.slow
def test_killed_at_fifty_random_moments(scene, whole, tmp_path):
    moments = random.Random(int(os.environ.get("ZERO123S_SEED", "0")))
    hit = check([moments.uniform(0.05, 1.0) for _ in range(50)], scene, whole, tmp_path)
    print(dict(hit))
    assert hit["training"] >= 5
    assert hit["drawing or exporting"] >= 5


# ------------------------------------------------------------ killed again and again, in other places


@dataclass
class Job:
    """A command, and what must come out of it however often it was killed."""

    command: list[str]
    run: Path
    n_steps: int
    every: int
    result: Callable[[Path], Any]


def mesh_job(scene, out):
    return Job(overrides(scene, out), out / "multi-view" / "job", N_STEPS, 7, exported_from)


def exported_from(run):
    return {path.name: path.read_bytes() for path in sorted((run / "export").iterdir())}


def tiny_job(out):
    (out / "tiny.yaml").parent.mkdir(parents=True, exist_ok=True)
    (out / "tiny.yaml").write_text(tiny_system.CONFIG)
    command = ["--config", str(out / "tiny.yaml"), "--train", f"exp_root_dir={out}", f"trainer.max_steps={N_TINY_STEPS}",
               "system.seconds_per_step=0.02", "checkpoint.every_n_train_steps=3"]  # fmt: skip
    return Job(command, out / "tiny" / "run", N_TINY_STEPS, 3, trained_state)


def trained_state(run):
    """Weights, moments and random numbers at the end, as bytes."""
    state = AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")
    content = io.BytesIO()
    torch.save({key: state[key] for key in ("state_dict", "optimizer_states", "random_states", "global_step")}, content)
    return content.getvalue()


def step_of(run):
    """Return the step of a run's newest checkpoint; 0 where there is none, or while it is being replaced."""
    checkpoint = newest_checkpoint(run)
    try:
        return 0 if checkpoint is None else read_head(checkpoint).step
    except CheckpointError:
        return 0


def put_elsewhere(run, how, place):
    """Return where the run folder is from now on."""
    if how == "reused":
        return run
    place.parent.mkdir(parents=True)
    if how == "moved":
        return Path(shutil.move(run, place))
    place.symlink_to(run.resolve())
    return place


def kill_again_and_again(how, n_kills, job, expected, moments):
    """Kill a job up to `n_kills` times, let it end, compare; return how often it was killed at what."""
    run, argv, known, hit = job.run, list(job.command), 0, Counter()
    if how == "reused":
        another = forked.start(
            [*argv, "seed=7", f"trainer.max_steps={job.n_steps + job.every}", "export_after_train=false"],
            imports=["tiny_system"],
        )
        another.join()
        assert step_of(run) == job.n_steps + job.every
        argv.append("overwrite=true")
    for n in range(n_kills):
        process = forked.start(argv, imports=["tiny_system"])
        if moments.random() < 0.8:  # else at any time, often before there is anything new
            while process.is_alive() and not known < step_of(run) <= job.n_steps:
                time.sleep(0.05)
        process.join(0.5 * moments.random())
        ended = not process.is_alive()
        process.kill()
        process.join()
        if ended:
            break
        if step_of(run) > job.n_steps:  # what the other run has left, not cleared yet
            hit["before it began"] += 1
            continue
        assert step_of(run) >= known, f"kill {n} ({how}): step {known} was reached, now {step_of(run)}"
        known = step_of(run)
        hit["before a checkpoint" if not known else "training" if known < job.n_steps else "at the end"] += 1
        if known:
            run = put_elsewhere(run, how, job.run.parents[1] / f"place{n}" / "job")
            argv = [*job.command[:3], f"resume={run}"]
    begun = 0 < step_of(run) <= job.n_steps
    assert main([*job.command[:3], f"resume={run}"] if begun else argv) == 0
    assert job.result(run) == expected, f"{how}: another result than the undisturbed job's"
    assert not [p for p in run.rglob("*") if p.suffix in (".part", ".tmp")], "no half file is left lying about"
    assert not list(run.glob("ckpts/last-v*"))
    return hit


def test_two_signals_quit_at_once(tmp_path):
    job = tiny_job(tmp_path)
    words = [*job.command, "trainer.max_steps=6", "checkpoint.every_n_train_steps=2", "system.seconds_per_step=0.2"]
    process = forked.start([*words, "system.signal_at=[3,3]"], tmp_path / "log.txt", imports=["tiny_system"])
    process.join(300)
    printed = (tmp_path / "log.txt").read_text()
    assert process.exitcode == 130, printed
    assert "Quitting at once." in printed
    assert "Traceback" not in printed
    assert json.loads((job.run / "run.json").read_text())["state"] == "training", "nothing was tidied up"
    assert step_of(job.run) == 2, "the last good checkpoint is whole"
    assert main([*words, "resume=last", "system.signal_at=[]"]) == 0, "and the lock went with its process"


PLACES = ("moved", "reused", "link")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    job = tiny_job(tmp_path_factory.mktemp("undisturbed"))
    assert main(job.command) == 0
    return job.result(job.run)


@pytest.mark.parametrize("how", PLACES)
def test_killed_elsewhere_ends_with_the_same_weights(how, trained, tmp_path):
    hit = kill_again_and_again(how, 3, tiny_job(tmp_path), trained, random.Random(1))
    assert hit["training"] > 0


@pytest.mark.slow
def test_fifty_kills_in_other_places_lose_nothing(trained, tmp_path):
    moments = random.Random(int(os.environ.get("ZERO123S_SEED", "0")))
    hit, n = Counter(), 0
    while hit.total() < 50:
        job = tiny_job(tmp_path / str(n))
        hit += kill_again_and_again(PLACES[n % 3], 8, job, trained, moments)
        n += 1
        print(n, dict(hit), flush=True)
    assert hit["training"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("how", PLACES)
def test_killed_elsewhere_ends_with_the_same_mesh(how, scene, whole, tmp_path):
    kill_again_and_again(how, 2, mesh_job(scene, tmp_path), whole[0], random.Random(1))
