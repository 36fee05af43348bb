"""`zero123s batch` against one `launch.py` per image: seconds for the same images at the same settings.

python benchmarks/batch.py OUT                     # 24 images of 6 small steps, two kills on the way
python benchmarks/batch.py OUT --nodes 2           # the same on a Ray cluster of two nodes, started here

Processes have one thread. The single launches run one after another; the batch has one worker unless --workers or --nodes
say otherwise, so that the gain is what is loaded once.
Half of the single launches run before the batch and half after it, because a shared machine is never the same twice.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLES = ("hamburger", "car", "chair", "dog", "robot", "teapot")
SETTINGS = [
    "threads=1",
    "trainer.val_check_interval=0",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_n_train_steps=2",
    "data.height=32",
    "data.width=32",
    "data.resolution_milestones=[]",
    "data.random_camera.height=32",
    "data.random_camera.width=32",
    "data.random_camera.batch_size=1",
    "data.random_camera.n_val_views=1",
    "data.random_camera.n_test_views=2",
    "data.random_camera.eval_height=32",
    "data.random_camera.eval_width=32",
    "system.exporter.isosurface_resolution=32",
    "system.exporter.texture_size=64",
    "system.exporter.max_faces=1000",
    "system.exporter.poster=false",
]


def write_images(folder: Path, n: int) -> list[Path]:
    """Write the sample images, mirrored and tinted so that no two are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(n):
        rgba = np.asarray(Image.open(REPOSITORY / "load" / "images" / f"{SAMPLES[i % len(SAMPLES)]}_rgba.png")).copy()
        rgba = rgba[:, ::-1] if i // len(SAMPLES) % 2 else rgba
        rgba[..., i % 3] = (rgba[..., i % 3] * (1 - 0.1 * (i // len(SAMPLES)))).astype(np.uint8)
        paths.append(folder / f"picture{i:02}.png")
        Image.fromarray(rgba).save(paths[-1])
    return paths


def launch(image_path: Path, out: Path, overrides: list[str]) -> float:
    """Run launch.py for one image; returns seconds."""
    started = time.perf_counter()
    command = [sys.executable, "launch.py", "--config", "configs/stable-zero123.yaml", "--train"]
    subprocess.run(
        [*command, f"data.image_path={image_path}", f"exp_root_dir={out}", *overrides],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def kill_workers(out: Path, times: int, killed: list[str]) -> None:
    """Kill the process of an item that has a checkpoint and is in training, `times` times."""
    while len(killed) < times:
        time.sleep(0.1)
        for path in sorted((out / "items").glob("*/item.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            run = path.with_name("run.json")
            trains = run.is_file() and json.loads(run.read_text(encoding="utf-8"))["state"] == "training"
            fresh = record["name"] not in killed and record["state"] == "running"
            if fresh and trains and path.with_name("ckpts").joinpath("last.ckpt").is_file() and len(killed) < times:
                os.kill(record["process"], signal.SIGKILL)
                killed.append(record["name"])


def batch(image_paths: Path, out: Path, overrides: list[str], workers: int, kills: int) -> tuple[float, list[str]]:
    """Run the batch; returns seconds and the items whose workers were killed."""
    killed: list[str] = []
    threading.Thread(target=kill_workers, args=(out, kills, killed), daemon=True).start()
    started = time.perf_counter()
    start = "import sys; from zero123s.commands.main import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "batch", str(image_paths), "--out", str(out)]
    subprocess.run([*command, "--workers", str(workers), *overrides], cwd=REPOSITORY, check=True)
    return time.perf_counter() - started, killed


@contextmanager
def cluster(nodes: int) -> Iterator[list[str]]:
    """Start a Ray cluster of so many nodes of one core each; yields the arguments with which a batch joins it."""
    if nodes < 2:
        yield []
        return
    from ray.cluster_utils import Cluster

    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            running.add_node(num_cpus=1)
        running.wait_for_nodes()
        yield ["--address", running.address]
    finally:
        running.shutdown()


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("-n", type=int, default=24)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--launches", type=int, help="time only so many single launches and scale up (default: all)")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1, help="of a Ray cluster started for this; one worker each")
    args = parser.parse_args()
    out = args.out.resolve()
    image_paths = write_images(out / "pictures", args.n)
    overrides = [*SETTINGS, f"trainer.max_steps={args.steps}"]
    some = image_paths[: args.launches or args.n]
    half = len(some) // 2
    single = [launch(p, out / "single", overrides) for p in some[:half]]
    with cluster(args.nodes) as address:
        workers = max(args.workers, args.nodes)
        seconds, killed = batch(out / "pictures", out / "batch", [*address, *overrides], workers, args.kills)
    single += [launch(p, out / "single", overrides) for p in some[half:]]
    items = json.loads((out / "batch" / "manifest.json").read_text(encoding="utf-8"))["items"]
    whole = sum(i["state"] == "finished" for i in items)
    total = sum(single) / len(single) * args.n
    each = ", ".join(f"{s:.0f}" for s in single)
    print(
        f"launch.py {args.n} times: {total:.0f} s (measured: {each}); batch: {seconds:.0f} s; ratio {total / seconds:.2f}"
    )
    print(f"items by node: {sorted(Counter(i['node'] for i in items).values())}")
    print(f"killed: {killed}; whole: {whole} of {args.n}; attempts: {[i['attempts'] for i in items]}")


if __name__ == "__main__":
    main()
