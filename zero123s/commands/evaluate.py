"""`zero123s evaluate`: scores a run or a mesh into metrics.json, a table and report.html."""

import argparse
import sys
from collections.abc import Sequence

from zero123s.evaluate.evaluation import choose_network, evaluate_target
from zero123s.evaluate.scores import table
from zero123s.ops.lpips import BACKBONES
from zero123s.runtime.files import user_path

EPILOG = """examples:
  zero123s evaluate outputs/stable-zero123/hamburger@20260101-120000
  zero123s evaluate outputs/multi-view/robot --gt truth.ply test/transforms.json
  zero123s evaluate model.glb --image photo_rgba.png --elevation 5 --out scores/

A ground-truth mesh gives distances, volume and silhouettes; a transforms.json gives novel views. glb, gltf and foreign
obj files are read as y up with the front on +z, ply and stl as z up with the front on +x. Views are also scored by LPIPS
where its weights are found; docs/meshes.md says which files, where from and where to."""


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "zero123s evaluate",
        description="Score a mesh: input view, ground truth, health, texture layout.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "target", type=user_path, metavar="RUN_OR_MESH", help="a run folder, or a glb, gltf, obj, ply or stl"
    )
    p.add_argument(
        "--gt", type=user_path, nargs="+", default=[], metavar="FILE", help="true mesh and/or transforms.json"
    )
    p.add_argument("--align", action="store_true", help="fit position, turn and scale to the true mesh first")
    p.add_argument("--image", type=user_path, help="RGBA image to compare with, when the target is a mesh")
    p.add_argument("--elevation", type=float, default=5.0, help="degrees from which --image was taken (5)")
    p.add_argument("--embed", metavar="CHECKPOINT", help="also compare image embeddings of this Zero123 checkpoint")
    p.add_argument(
        "--lpips", type=user_path, metavar="FOLDER", help="also LPIPS, by weights from here (docs/meshes.md)"
    )
    p.add_argument("--lpips-net", choices=tuple(BACKBONES), help="backbone of LPIPS: alex (default) or vgg, slower")
    p.add_argument(
        "--out", type=user_path, help="folder for metrics.json and report.html (default: the run's, or the mesh's)"
    )
    return p


def main(argv: Sequence[str]) -> int:
    """Run `zero123s evaluate`."""
    args = _parser().parse_args(list(argv))
    network = choose_network(args.lpips, args.lpips_net)
    sections, folder = evaluate_target(
        args.target, args.image, args.elevation, args.gt, args.align, network, args.embed, args.out
    )
    if (args.lpips or args.lpips_net) and not {"input_view", "novel_views"} & set(sections):
        print("note: LPIPS compares images, and there are none: give --image or a transforms.json.", file=sys.stderr)
    print(f"{table(sections)}\n{folder / 'metrics.json'}\n{folder / 'report.html'}")
    return 0
