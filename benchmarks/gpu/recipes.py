"""The other recipes and options on the GPU for a few steps each, several processes at a time: which of them fail."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SCENE = "data.transforms_path=load/images/multi_view_sample/transforms.json"
MAIN = "stable-zero123"
AFTER_TRAINING = ("validate", "test", "export")
RECIPES: dict[str, list[str]] = {
    "csd": ["stable-zero123-csd"],
    "nfsd": ["stable-zero123-nfsd"],
    "ism": ["stable-zero123-ism"],
    "sdi": ["stable-zero123-sdi"],
    "vsd": [MAIN, "system.guidance.variant=vsd"],
    "cpu-profile": [MAIN, "profile=cpu"],
    "warm-views": [MAIN, "system.warm_start.type=views"],
    "deterministic": [MAIN, "trainer.deterministic=true"],
    "bf16-mixed": [MAIN, "trainer.precision=bf16-mixed"],
    "plain-torch": [
        MAIN,
        "system.renderer.backend=reference",
        "system.geometry.pos_encoding_config.backend=reference",
        "system.geometry.mlp_network_config.backend=reference",
    ],
    "few-views": ["few-views"],
    "multi-view": ["multi-view", SCENE],
    "multi-view-gaussians": ["multi-view-gaussians", SCENE],
    "dreamgaussian": ["dreamgaussian"],
}
"""Words by name: the configuration, `profile=NAME` for an overlay other than none, and overrides."""
SECOND_STAGES = ("stable-zero123-refine", "stable-zero123-refine-mesh")
AT_A_TIME = 5
SHORT = [
    "use_timestamp=false", "trainer.enable_progress_bar=false", "trainer.max_steps=6", "trainer.val_check_interval=3",
    "checkpoint.every_n_train_steps=3", "data.random_camera.n_test_views=4", "data.random_camera.n_val_views=2",
    "system.exporter.isosurface_resolution=96", "system.exporter.texture_size=512",
]  # fmt: skip


def run_recipe(name: str, words: list[str], runs: Path, accelerator: list[str], limit: float) -> dict[str, str | float]:
    """Run one recipe in a process of its own; return its exit code, and its last lines when it failed."""
    config, *overrides = words
    profile = next((word.partition("=")[2] for word in overrides if word.startswith("profile=")), "none")
    overrides = [word for word in overrides if not word.startswith("profile=")]
    mode = f"--{name}" if name in AFTER_TRAINING else "--train"
    command = [sys.executable, "launch.py", "--config", f"configs/{config}.yaml", mode, "--profile", profile]
    command += [*accelerator, f"exp_root_dir={runs}", f"tag={name}", *SHORT, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        return {"failed": f"not done after {limit:.0f} s", "log": str(error.stderr or b"")[-600:]}
    print(f"{name}: exit {done.returncode}", flush=True)
    return {} if done.returncode == 0 else {"failed": f"exit {done.returncode}", "log": done.stderr[-1200:]}


def run_all(runs: Path, accelerator: list[str], limit: float) -> dict[str, dict[str, str | float]]:
    """Run every recipe; second stages and the modes without training go on from the run that `recipe` left, if any."""
    jobs = dict(RECIPES)
    first = runs / MAIN / "recipe"
    if first.is_dir():
        jobs |= {name: [name, f"system.geometry_convert_from={first}"] for name in SECOND_STAGES}
        for mode in AFTER_TRAINING:  # each in a copy: a run folder is locked while something is written to it
            copy = shutil.copytree(first, runs / "copies" / mode)
            jobs[mode] = [MAIN, f"resume={copy}"]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        started = {name: pool.submit(run_recipe, name, words, runs, accelerator, limit) for name, words in jobs.items()}
    return {name: future.result() for name, future in started.items()}
