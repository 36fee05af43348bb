"""`zero123s evaluate`: a run or a mesh in; metrics.json, a table and report.html out."""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zero123s.errors import ConfigError, MeshError, UserError
from zero123s.evaluate.report import write_report
from zero123s.evaluate.scores import (
    Scores,
    embedding_similarity,
    health_scores,
    surface_scores,
    table,
    texture_scores,
    view_scores,
)
from zero123s.mesh.readers import read_mesh
from zero123s.ops.lpips import BACKBONES, Lpips
from zero123s.runtime.files import write_text
from zero123s.structures import Mesh, ReferenceView

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
    p.add_argument("target", type=Path, metavar="RUN_OR_MESH", help="a run folder, or a glb, gltf, obj, ply or stl")
    p.add_argument("--gt", type=Path, nargs="+", default=[], metavar="FILE", help="true mesh and/or transforms.json")
    p.add_argument("--align", action="store_true", help="fit position, turn and scale to the true mesh first")
    p.add_argument("--image", type=Path, help="RGBA picture to compare with, when the target is a mesh")
    p.add_argument("--elevation", type=float, default=5.0, help="degrees from which --image was taken (5)")
    p.add_argument("--embed", metavar="CHECKPOINT", help="also compare image embeddings of this Zero123 checkpoint")
    p.add_argument("--lpips", type=Path, metavar="FOLDER", help="also LPIPS, by weights from here (docs/meshes.md)")
    p.add_argument("--lpips-net", choices=tuple(BACKBONES), help="backbone of LPIPS: alex (default) or vgg, slower")
    p.add_argument("--out", type=Path, help="folder for metrics.json and report.html (the run, or beside the mesh)")
    return p


def find_mesh(target: Path) -> Path:
    """Return the mesh file that is meant: the target itself, or the first that a run exported; raises MeshError."""
    if target.is_file():
        return target
    found = [target / "export" / f"model.{kind}" for kind in ("glb", "gltf", "obj", "ply", "stl")]
    match = next((path for path in found if path.is_file()), None)
    if match is None:
        raise MeshError(f"{target}: neither a mesh file nor a run folder with export/model.glb; export it first.")
    return match


def run_reference(run: Path) -> ReferenceView | None:
    """Return the pictures that a run was made from, at their own size, as its config.yaml says; None if they are gone."""
    from zero123s.config.experiment import parse_experiment
    from zero123s.config.load import load_config
    from zero123s.system.base import plan_experiment

    if not (run / "config.yaml").is_file():
        return None
    experiment = parse_experiment(load_config(run / "config.yaml"))
    for package in experiment.imports:
        importlib.import_module(package)
    plan = plan_experiment(experiment)
    data = plan.data_class(experiment.data, experiment.seed)
    data.prepare()
    return data.photos()


def picture_reference(path: Path, elevation_deg: float) -> ReferenceView:
    """Return an RGBA picture as the view from azimuth 0; raises ImageError."""
    from zero123s.images.io import load_reference_rgba
    from zero123s.ops.cameras import orbit_cameras

    rgba = torch.from_numpy(load_reference_rgba(str(path)).rgba)[None]
    cameras = orbit_cameras(elevation_deg, 0.0, height=rgba.shape[1], width=rgba.shape[2])
    return ReferenceView(cameras, rgba[..., :3], rgba[..., 3:])


def posed_pictures(transforms: Path) -> ReferenceView:
    """Return all pictures of a NeRF-synthetic transforms.json at the first one's size."""
    from zero123s.data.multi_view import MultiViewData

    # The checker takes the decorated class for its base.
    data: Any = MultiViewData(MultiViewData.Config(transforms_path=str(transforms)))  # type: ignore[call-arg]
    data.prepare()
    height, width = data.pictures[0].shape[:2]
    return data.views(height, width)


def chosen_lpips(folder: Path | None, net: str | None) -> Lpips | None:
    """Return the LPIPS that the command line asks for, or the default one if its weights are found, else None.

    Raises CheckpointError where it was asked for and a file is missing or unusable.
    """
    from zero123s.diffusion.checkpoint.lpips_files import find_lpips_files, load_lpips

    if folder is not None or net is not None:
        return load_lpips(net or "alex", folder)
    if not find_lpips_files("alex").are_complete:
        return None
    try:
        return load_lpips()
    except UserError as error:  # a damaged file that nobody asked to use
        print(f"note: LPIPS is left out: {error}", file=sys.stderr)
        return None


def evaluate(
    mesh: Mesh,
    reference: ReferenceView | None = None,
    truths: Sequence[Path] = (),
    align: bool = False,
    lpips: Lpips | None = None,
) -> dict[str, Scores]:
    """Return all scores that the given truths allow, by section.

    Args:
        reference: the pictures the mesh was made from.
        truths: mesh files and transforms.json files.
        align: fit the mesh to a true mesh first; not for views, whose poses are given.
        lpips: adds the perceptual distance to the scores of views.
    """
    sections: dict[str, Scores] = {}
    if reference is not None:
        sections["input_view"] = view_scores(mesh, reference, lpips)
    for path in truths:
        if path.suffix == ".json":
            sections["novel_views"] = view_scores(mesh, posed_pictures(path), lpips)
        else:
            sections["surface"] = surface_scores(mesh, read_mesh(path), align)
    sections["health"] = health_scores(mesh)
    sections["texture"] = texture_scores(mesh)
    return sections


def main(argv: Sequence[str]) -> int:
    """Run `zero123s evaluate`."""
    args = _parser().parse_args(list(argv))
    path = find_mesh(args.target)
    missing = next((p for p in args.gt if not p.is_file()), None)
    if missing is not None:
        raise ConfigError(f"--gt {missing}: is no file; give a mesh or a transforms.json.")
    run = args.target if args.target.is_dir() else None
    lpips = chosen_lpips(args.lpips, args.lpips_net)
    mesh = read_mesh(path)
    reference: Any = None
    if args.image is not None:
        reference = picture_reference(args.image, args.elevation)
    elif run is not None:
        try:
            reference = run_reference(run)
        except UserError as error:  # pictures that have moved, or a config of another version: the mesh still counts
            print(f"note: the input view is left out: {error}", file=sys.stderr)
    sections = evaluate(mesh, reference, args.gt, args.align, lpips)
    if (args.lpips or args.lpips_net) and not {"input_view", "novel_views"} & set(sections):
        print("note: LPIPS compares pictures, and there are none: give --image or a transforms.json.", file=sys.stderr)
    if args.embed and reference is not None:
        sections["embedding"] = embedding_similarity(mesh, reference, args.embed)
    print(table(sections))
    out = args.out or run or path.parent
    write_text(out / "metrics.json", json.dumps({"mesh": path.name, **sections}, indent=2) + "\n")
    report = write_report(out / "report.html", path, mesh, sections, reference, run)
    print(f"{out / 'metrics.json'}\n{report}")
    return 0
