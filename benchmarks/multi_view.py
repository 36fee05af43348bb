"""configs/multi-view.yaml on the six sample scenes, scored against their true meshes and views it never saw.

    python benchmarks/multi_view.py OUT [OVERRIDES...] [--only burger car] [--configs multi-view.yaml multi-view-gaussians.yaml]

Per scene 40 posed images of 128 x 128 are made, a mesh is reconstructed from them and exported, and 17 other views
and the true mesh score the written glb; the same views score the trained field before the export
(field_psnr_db); cpu_s is the CPU time of the whole job. Several configs take turns at every scene. Prints a table and writes OUT/results.json.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch

from zero123s.commands.launch import main as launch
from zero123s.evaluate.evaluation import evaluate, posed_images
from zero123s.images.image_metrics import psnr
from zero123s.images.io import write_png_atomic
from zero123s.mesh.readers import read_mesh
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import on_white, render_mesh
from zero123s.run.folder import read_run_record
from zero123s.run.plan import plan_of_finished_run
from zero123s.run.resume import newest_checkpoint
from zero123s.run.runner import build_system, load_weights
from zero123s.scenes.nerf_synthetic import write_nerf_synthetic
from zero123s.scenes.procedural import named
from zero123s.scenes.samples import SAMPLES

CONFIGS = Path(__file__).parents[1] / "configs"
SHOWN = (
    "cpu_s",
    "train_s",
    "export_s",
    "field_psnr_db",
    "seen_volume_iou",
    "volume_iou",
    "chamfer_of_extent",
    "psnr_db",
    "worst_psnr_db",
    "ssim",
    "mask_iou",
    "faces",
)


def reconstruct(config: str, kind: str, seed: int, out_dir: Path, overrides: list[str]) -> Path:
    """Return the run folder of one scene."""
    scene = named(kind, seed)
    transforms = write_nerf_synthetic(scene, out_dir / "scenes" / kind / "train", n_views=40)
    write_nerf_synthetic(scene, out_dir / "scenes" / kind / "test", n_views=17, elevation_range=(-25.0, 75.0))
    place = [f"exp_root_dir={out_dir}", f"name={Path(config).stem}", f"tag={kind}", "use_timestamp=false"]
    quiet = ["trainer.enable_progress_bar=false", "trainer.val_check_interval=0"]
    code = launch(
        ["--config", str(CONFIGS / config), "--train", f"data.transforms_path={transforms}", *place, *quiet, *overrides]
    )
    if code:
        raise SystemExit(code)
    return out_dir / Path(config).stem / kind


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children, such as the unwrapping."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def field_psnr(run: Path, transforms: Path) -> float:
    """Return the mean PSNR, over white, of what was trained, rendered from posed images' cameras."""
    system = build_system(plan_of_finished_run(run / "config.yaml"), run)
    checkpoint = newest_checkpoint(run)
    assert checkpoint is not None
    load_weights(system, checkpoint)
    system.eval()
    truth, scores = posed_images(transforms), []
    for i in range(len(truth.cameras)):
        with torch.no_grad():
            out = system.render(truth.cameras.select(slice(i, i + 1)))
        assert out.background is not None
        shown = out.comp_rgb + (1 - out.opacity) * (1 - out.background)
        mask = truth.mask[i : i + 1]
        scores.append(psnr(shown.numpy(), (truth.rgb[i : i + 1] * mask + 1 - mask).numpy()))
    return float(np.mean(scores))


def scores_of(run: Path, scene_dir: Path, image_path: Path) -> dict[str, float]:
    """Return all scores of a run, and write a view of its mesh."""
    mesh = read_mesh(run / "export" / "model.glb")
    views = scene_dir / "test" / "transforms.json"
    sections = evaluate(mesh, None, [scene_dir / "train" / "truth.ply", views])
    shown = render_mesh(mesh, orbit_cameras(15.0, 30.0, height=256, width=256), lit=True)
    write_png_atomic(image_path, on_white(shown).astype("float32"))
    seconds = read_run_record(run)["stage_seconds"]
    times = {"train_s": seconds["train"], "export_s": seconds["export"]}
    return {k: v for scores in sections.values() for k, v in scores.items()} | {
        "field_psnr_db": field_psnr(run, views),
        **times,
    }


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=[kind for kind, _, _ in SAMPLES.values()])
    parser.add_argument("--configs", nargs="+", default=["multi-view.yaml"])
    args, overrides = parser.parse_known_args()
    table: dict[str, dict[str, dict[str, float]]] = {config: {} for config in args.configs}
    for kind, seed, _ in SAMPLES.values():
        if args.only and kind not in args.only:
            continue
        for config in args.configs:
            started = cpu_seconds()
            run = reconstruct(config, kind, seed, args.out, overrides)
            cpu = {"cpu_s": cpu_seconds() - started}
            image_path = args.out / f"{Path(config).stem}_{kind}.png"
            found = table[config][kind] = cpu | scores_of(run, args.out / "scenes" / kind, image_path)
            scores = "  ".join(f"{key} {found[key]:.4g}" for key in SHOWN)
            print(f"{config} {kind:<10} {scores}  watertight {found['watertight']}", flush=True)
            (args.out / "results.json").write_text(json.dumps(table, indent=1))
    for config, rows in table.items():
        means = "  ".join(f"{key} {np.mean([row[key] for row in rows.values()]):.4g}" for key in SHOWN)
        print(f"{config} mean       {means}")


if __name__ == "__main__":
    main()
