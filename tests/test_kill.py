"""kill -9 at any moment of a job: what stands is whole, and going on ends with the very mesh of the job that ran through.

pytest tests/test_kill.py -m slow     # twice 50 kills; the default suite takes 2 and 6
"""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from zero123s.callbacks.checkpoints import AtomicCheckpointIO, read_head
from zero123s.commands.launch import main
from zero123s.errors import CheckpointError
from zero123s.run.resume import newest_checkpoint
from zero123s.scenes.nerf_synthetic import write_nerf_synthetic
from zero123s.scenes.procedural import named

REPOSITORY = Path(__file__).parents[1]
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


@pytest.fixture(scope="module")
def begin():
    """Start the command in a process of its own that has imported everything, so that a kill costs no start-up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zero123s.commands.launch", "zero123s.run.runner", "zero123s.exporter"])

    def begin(argv):
        process = context.Process(target=main, args=(argv,))
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


def kill_again_and_again(how, n_kills, scene, whole, tmp_path, begin, moments):
    """Kill one job up to `n_kills` times and let it end; return how many kills there were and what they hit."""
    files, seconds = whole
    run = tmp_path / "multi-view" / "job"
    first = words(scene, tmp_path)
    if how == "reused":
        another = begin([*first, "seed=7", f"trainer.max_steps={N_STEPS + 9}", "export_after_train=false"])
        another.join()
        assert step_of(run) == N_STEPS + 9
        first.append("overwrite=true")
    hit, argv = Counter(), first
    for n in range(n_kills):
        known = step_of(run) if argv is not first else 0
        process = begin(argv)
        if moments.random() < 0.8:  # else at any time, often before there is anything new
            while process.is_alive() and (argv is first or step_of(run) == known):
                if argv is first and run.exists() and 0 < step_of(run) <= N_STEPS:
                    break
                time.sleep(0.05)
        process.join(moments.random() * 0.4 * seconds)
        ended = not process.is_alive()
        process.kill()
        process.join()
        step = step_of(run)
        assert step >= known or argv is first, f"kill {n} ({how}): step {known} was reached before, now {step}"
        hit["had ended" if ended else "drawing or exporting" if step == N_STEPS else "training"] += 1
        begun = step and (how != "reused" or step <= N_STEPS)
        if begun:
            run = put_elsewhere(run, how, tmp_path / f"place{n}" / "job")
            argv = [*first[:3], f"resume={run}"]
        if ended and begun:
            break
    assert main(argv) == 0
    left = {path.name: path.read_bytes() for path in sorted((run / "export").iterdir())}
    assert left == files, f"{how}: the files differ from the undisturbed job's"
    assert not [p for p in run.rglob("*") if p.suffix in (".part", ".tmp")], "no half file is left lying about"
    assert not list(run.glob("ckpts/last-v*"))
    return hit


@pytest.mark.parametrize("how", ["moved", "reused", "link"])
def test_killed_twice_in_another_place_loses_nothing(how, scene, whole, tmp_path, begin):
    hit = kill_again_and_again(how, 2, scene, whole, tmp_path, begin, random.Random(1))
    assert hit.total() > 0


@pytest.mark.slow
def test_fifty_kills_in_other_places_lose_nothing(scene, whole, tmp_path, begin):
    moments = random.Random(int(os.environ.get("ZERO123S_SEED", "0")))
    hit, n = Counter(), 0
    while hit.total() - hit["had ended"] < 50:
        how = ("moved", "reused", "link")[n % 3]
        found = kill_again_and_again(how, 7, scene, whole, tmp_path / str(n), begin, moments)
        hit += found
        n += 1
        print(n, how, dict(found), flush=True)
    print(dict(hit))
