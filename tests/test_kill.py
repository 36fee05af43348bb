"""kill -9 at any moment of a job: what stands is whole, and going on ends with the very mesh of the job that ran through.

pytest tests/test_kill.py -m slow     # 50 moments; the default suite takes 2
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.commands.launch import main
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
