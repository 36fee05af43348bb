"""configs/multi-view.yaml on the six sample scenes, scored against their true meshes and views it never saw.

    python benchmarks/multi_view.py OUT [OVERRIDES...] [--only burger car]

Per scene 40 posed images of 128 x 128 are made, a mesh is reconstructed from them and exported, and 17 other views
and the true mesh judge the written glb. Prints a table and writes OUT/results.json.
"""

import argparse
import json
from pathlib import Path

from zero123s.commands.launch import main as launch
from zero123s.evaluate.evaluation import evaluate
from zero123s.images.io import write_png_atomic
from zero123s.mesh.readers import read_mesh
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import on_white, render_mesh
from zero123s.scenes.nerf_synthetic import write_nerf_synthetic
from zero123s.scenes.procedural import named
from zero123s.scenes.samples import SAMPLES

CONFIG = str(Path(__file__).parents[1] / "configs" / "multi-view.yaml")
SHOWN = ("seen_volume_iou", "volume_iou", "chamfer_of_extent", "psnr_db", "worst_psnr_db", "ssim", "mask_iou", "faces")


def reconstruct(kind: str, seed: int, out_dir: Path, words: list[str]) -> Path:
    """Return the exported glb of one scene."""
    scene = named(kind, seed)
    transforms = write_nerf_synthetic(scene, out_dir / "scenes" / kind / "train", n_views=40)
    write_nerf_synthetic(scene, out_dir / "scenes" / kind / "test", n_views=17, elevation_range=(-25.0, 75.0))
    place = [f"exp_root_dir={out_dir}", "name=runs", f"tag={kind}", "use_timestamp=false"]
    quiet = ["trainer.enable_progress_bar=false", "trainer.val_check_interval=0"]
    code = launch(["--config", CONFIG, "--train", f"data.transforms_path={transforms}", *place, *quiet, *words])
    if code:
        raise SystemExit(code)
    return out_dir / "runs" / kind / "export" / "model.glb"


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=[kind for kind, _, _ in SAMPLES.values()])
    args, words = parser.parse_known_args()
    table = {}
    for kind, seed, _ in SAMPLES.values():
        if args.only and kind not in args.only:
            continue
        mesh = read_mesh(reconstruct(kind, seed, args.out, words))
        tests = args.out / "scenes" / kind
        truths = [tests / "train" / "truth.ply", tests / "test" / "transforms.json"]
        sections = evaluate(mesh, None, truths)
        table[kind] = {key: value for scores in sections.values() for key, value in scores.items()}
        views = [render_mesh(mesh, orbit_cameras(15.0, a, height=256, width=256), lit=True) for a in (30, 210)]
        write_png_atomic(args.out / f"{kind}.png", on_white(views[0]).astype("float32"))
        scores = "  ".join(f"{key} {table[kind][key]:.4g}" for key in SHOWN)
        print(f"{kind:<10} {scores}  watertight {table[kind]['watertight']}", flush=True)
        (args.out / "results.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
