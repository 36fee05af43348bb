"""The objects that benchmarks are held to: generated, sample or real ones, as they are or in white, grey and black."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zero123s.errors import MeshError
from zero123s.evaluate.scores import surrounding_cameras, visible_from_outside
from zero123s.images.image_metrics import mask_iou
from zero123s.mesh.metrics import common_cube, voxelize
from zero123s.mesh.scene_mesh import SceneMesh
from zero123s.scenes.augment import TONES, toned
from zero123s.scenes.dataset import SceneObject, load_object, object_generator, procedural_objects, with_tone
from zero123s.scenes.object_manifest import manifest_objects
from zero123s.scenes.procedural import named
from zero123s.scenes.samples import SAMPLES, fit_to_view
from zero123s.structures import Mesh

COLOURED = "coloured"


class HeldOut(NamedTuple):
    """An object, and the azimuth that it is shown from."""

    name: str
    tone: str
    scene: SceneMesh
    azimuth_deg: float


def add_arguments(parser: argparse.ArgumentParser, first: int, count: int) -> None:
    """Add the choice of objects to a command line."""
    parser.add_argument("--count", type=int, default=count, help="objects (%(default)s)")
    parser.add_argument("--first", type=int, default=first, help="seed of the first generated one (%(default)s)")
    parser.add_argument("--samples", action="store_true", help="the six sample objects")
    parser.add_argument("--manifest", type=Path, help="CSV of mesh files: COUNT of them, evenly chosen")
    parser.add_argument("--root", type=Path, help="folder of the manifest's paths")
    parser.add_argument("--split", default="val", help="rows of the manifest (%(default)s)")
    parser.add_argument("--closed", action="store_true", help="only those of the manifest that enclose a volume")
    known = (COLOURED, *TONES)
    parser.add_argument("--tones", type=lambda text: _tones(text, known), default=[COLOURED], metavar="A,B",
                        help=f"also, or only, recoloured ones: any of {','.join(known)} (coloured)")  # fmt: skip


def _tones(text: str, known: tuple[str, ...]) -> list[str]:
    tones = text.split(",")
    if unknown := [tone for tone in tones if tone not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
    return tones


def held_out_objects(args: argparse.Namespace, elevation_deg: float) -> Iterator[HeldOut]:
    """Yield the chosen objects, each in all tones; the samples fill the frame seen from `elevation_deg`."""
    if args.samples:
        for stem, (kind, seed, azimuth) in SAMPLES.items():
            scene = fit_to_view(named(kind, seed), elevation_deg, azimuth)
            for tone in args.tones:
                recoloured = scene if tone == COLOURED else toned(scene, TONES[tone])
                yield HeldOut(f"{stem.removesuffix('_rgba')}{_suffix(tone)}", tone, recoloured, azimuth)
        return
    if args.manifest:
        every = manifest_objects(args.manifest, args.root, args.split)
        if args.closed:
            every = [item for item in every if _is_closed(item)]
        chosen = [every[i] for i in np.linspace(0, len(every) - 1, min(args.count, len(every))).astype(int)]
        items = [(item.object_id, item, object_generator(0, item.object_id)) for item in chosen]
    else:
        seeds = range(args.first, args.first + args.count)
        generated = procedural_objects(args.first, args.count)
        items = [
            (f"object{seed}", item, np.random.default_rng(seed)) for seed, item in zip(seeds, generated, strict=True)
        ]
    for name, item, rng in items:
        azimuth = float(rng.uniform(0, 360))
        for tone in args.tones:
            recoloured = item if tone == COLOURED else with_tone(item, tone)
            yield HeldOut(f"{name}{_suffix(tone)}", tone, load_object(recoloured), azimuth)


def _is_closed(item: SceneObject) -> bool:
    """Return whether a mesh file encloses a volume, which volume IoU needs; nets, sheets and open shells do not."""
    try:
        return encloses_volume(load_object(item))
    except MeshError as error:
        print(f"left out: {error}")
        return False


def encloses_volume(scene: SceneMesh, resolution: int = 48, least: float = 0.02) -> bool:
    """Return whether winding number and visibility agree on the inside (IoU >= 0.8), and it fills enough of the cube.

    Args:
        scene: the object.
        resolution: voxels per edge of its cube.
        least: smallest fraction of the cube.
    """
    mesh = Mesh(scene.vertices, scene.faces)
    lower, size = common_cube((mesh.vertices, mesh.faces), (mesh.vertices, mesh.faces))
    inside = voxelize(mesh.vertices, mesh.faces, lower, size, resolution)
    centres = lower + (np.argwhere(np.ones_like(inside)) + 0.5) * (size / resolution)
    cameras = surrounding_cameras(mesh, 8, 128, (-60.0, -20.0, 20.0, 60.0))
    hidden = ~visible_from_outside(centres, mesh, cameras, 0.0)
    return bool(inside.mean() >= least) and mask_iou(inside.ravel(), hidden) >= 0.8


def _suffix(tone: str) -> str:
    return "" if tone == COLOURED else f"-{tone}"
