"""kill -9 at any moment of a job: what stands is whole, and going on ends with the very mesh of the job that ran through.

pytest tests/end_to_end/test_kill.py -m slow     # 50 moments, and 50 kills of moved and reused folders; by default 2 and 9
"""

import io
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
N_STEPS = 60
QUICK = [
    "use_timestamp=false",
    "tag=job",
    "data.height=24",
    "data.width=24",
    "data.batch_size=4",
    "data.resolution_milestones=[]",
    "data.random_camera.eval_height=24",
    "data.random_camera.eval_width=24",
    "data.random_camera.n_val_views=2",
    "data.random_camera.n_test_views=4",
    "system.renderer.num_samples_per_ray=64",
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.geometry.pos_encoding_config.log2_hashmap_size=12",
    "system.exporter.isosurface_resolution=48",
    "system.exporter.texture_size=128",
    "system.exporter.max_faces=2000",
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


def words(scene, out):
    return ["--config", str(REPOSITORY / "configs/multi-view.yaml"), "--train", f"data.transforms_path={scene}",
            f"exp_root_dir={out}", *QUICK]  # fmt: skip


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory):
    """The files of a job that nobody disturbed, and how long it took as a process of its own."""
    out = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    command = [sys.executable, str(REPOSITORY / "launch.py"), *words(scene, out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    return exported(out), time.monotonic() - started


def exported(out):
    folder = out / "multi-view" / "job" / "export"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def kill_after(seconds, scene, out):
    """Start the job, kill it, and return how far it had come."""
    command = [sys.executable, str(REPOSITORY / "launch.py"), *words(scene, out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
        return "had ended"
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    run = out / "multi-view" / "job"
    if not (run / "ckpts" / "last.ckpt").exists():
        return "before a checkpoint" if run.exists() else "before the run folder"
    step = AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")["global_step"]
    return "training" if step < N_STEPS else "drawing or exporting"


def go_on(scene, out):
    """Do what a person would: resume if there is a checkpoint, else start again."""
    begun = (out / "multi-view" / "job" / "ckpts" / "last.ckpt").exists()
    assert main([*words(scene, out), *(["resume=last"] if begun else [])]) == 0


def check(moments, scene, whole, tmp_path):
    """Kill at shares of the job's time, go on, compare; return how often which stage was hit."""
    files, seconds = whole
    hit = Counter()
    for i, share in enumerate(moments):
        out = tmp_path / str(i)
        started = time.monotonic()
        while (stage := kill_after(share * seconds, scene, out)) == "had ended":
            # Quicker than the job that the time was taken of, which may have compiled the kernels first.
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
    hit = check([0.6, 0.8], scene, whole, tmp_path)
    assert hit.total() == 2


@pytest.mark.slow
def test_killed_at_fifty_random_moments(scene, whole, tmp_path):
    moments = random.Random(int(os.environ.get("ZERO123S_SEED", "0")))
    # From a quarter on: until then Python imports, and there is nothing to lose.
    hit = check([moments.uniform(0.25, 1.0) for _ in range(50)], scene, whole, tmp_path)
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
    return Job(words(scene, out), out / "multi-view" / "job", N_STEPS, 7, exported_from)


def exported_from(run):
    return {path.name: path.read_bytes() for path in sorted((run / "export").iterdir())}


def tiny_job(out):
    (out / "tiny.yaml").parent.mkdir(parents=True, exist_ok=True)
    (out / "tiny.yaml").write_text(tiny_system.CONFIG)
    command = ["--config", str(out / "tiny.yaml"), "--train", f"exp_root_dir={out}", f"trainer.max_steps={N_STEPS}",
               "system.seconds_per_step=0.02", "checkpoint.every_n_train_steps=3"]  # fmt: skip
    return Job(command, out / "tiny" / "run", N_STEPS, 3, trained_state)


def trained_state(run):
    """Weights, moments and random numbers at the end, as bytes."""
    state = AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")
    content = io.BytesIO()
    torch.save({key: state[key] for key in ("state_dict", "optimizer_states", "random_states", "global_step")}, content)
    return content.getvalue()


def run_command(argv):
    """What a child does; that it lies here makes the child import this module, and with it the tiny system."""
    main(argv)


@pytest.fixture(scope="module")
def begin():
    """Start the command in a process of its own that has imported everything, so that a kill costs no start-up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zero123s.commands.launch", "zero123s.run.runner"])

    def begin(argv):
        process = context.Process(target=run_command, args=(argv,))
        process.start()
        return process

    return begin


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


def kill_again_and_again(how, n_kills, job, expected, begin, moments):
    """Kill a job up to `n_kills` times, let it end, compare; return how often it was killed at what."""
    run, argv, known, hit = job.run, list(job.command), 0, Counter()
    if how == "reused":
        another = begin([*argv, "seed=7", f"trainer.max_steps={job.n_steps + job.every}", "export_after_train=false"])
        another.join()
        assert step_of(run) == job.n_steps + job.every
        argv.append("overwrite=true")
    for n in range(n_kills):
        process = begin(argv)
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


PLACES = ("moved", "reused", "link")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    job = tiny_job(tmp_path_factory.mktemp("undisturbed"))
    assert main(job.command) == 0
    return job.result(job.run)


@pytest.mark.parametrize("how", PLACES)
def test_killed_elsewhere_ends_with_the_same_weights(how, trained, tmp_path, begin):
    hit = kill_again_and_again(how, 3, tiny_job(tmp_path), trained, begin, random.Random(1))
    assert hit["training"] > 0


@pytest.mark.slow
def test_fifty_kills_in_other_places_lose_nothing(trained, tmp_path, begin):
    moments = random.Random(int(os.environ.get("ZERO123S_SEED", "0")))
    hit, n = Counter(), 0
    while hit.total() < 50:
        job = tiny_job(tmp_path / str(n))
        hit += kill_again_and_again(PLACES[n % 3], 8, job, trained, begin, moments)
        n += 1
        print(n, dict(hit), flush=True)
    assert hit["training"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("how", PLACES)
def test_killed_elsewhere_ends_with_the_same_mesh(how, scene, whole, tmp_path, begin):
    kill_again_and_again(how, 2, mesh_job(scene, tmp_path), whole[0], begin, random.Random(1))
