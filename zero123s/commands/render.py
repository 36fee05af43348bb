"""`zero123s render`: renders objects into shards of training views."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from zero123s.errors import ConfigError
from zero123s.runtime.files import user_path
from zero123s.scenes.attribution import write_attribution
from zero123s.scenes.dataset import RenderSettings, SceneObject, procedural_objects, render_dataset
from zero123s.scenes.inspect_renders import check_folder, shard_files, write_contact_sheet
from zero123s.scenes.mesh_collections import mesh_objects
from zero123s.scenes.object_manifest import manifest_objects
from zero123s.scenes.original_layout import write_original
from zero123s.scenes.shards import read_shard

EPILOG = """examples:
  zero123s render data/toys --procedural 0:2000            2000 generated objects, 12 views each
  zero123s render data/things --procedural 0:2000 --kinds extended       of more kinds, with letters, faces and handles
  zero123s render data/mine --meshes models/ --views 24    every glb, gltf, obj, ply and stl below models/
  zero123s render data/objaverse --meshes ~/.objaverse/hf-objaverse-v1/glbs --uids uids.txt --annotations meta.json.gz
  zero123s render data/toys --check --sheet toys.png       preview the shards
  zero123s render data/mine --attribution ATTRIBUTION.md   credit the makers of what is there

A killed run resumes when the same command is started again. Broken meshes are listed in manifest.jsonl with
the reason and left out; so is every second variant of an object of few colours. Object front is +x (azimuth 0), up is +z, elevation is positive above the horizon."""


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "zero123s render",
        description="Render objects from many sides into shards that Zero123 is trained on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = RenderSettings()
    p.add_argument("out", type=user_path, help="folder of shards; made if missing, continued if begun")
    p.add_argument("--procedural", metavar="A:B", help="generated objects of the seeds A to B - 1")
    p.add_argument("--kinds", choices=("basic", "extended"), default="basic",
                   help="of generated objects; basic: furniture, vehicles, simple figures and food (what held-out sets are "
                   "made of); extended: animals, food, buildings, plants, characters, hollow and thin things, letters and "
                   "labels, an eighth of basic ones; a fifth in white, grey and black (%(default)s)")  # fmt: skip
    p.add_argument(
        "--meshes", type=user_path, nargs="+", metavar="PATH", help="mesh files, or folders searched for them"
    )
    p.add_argument("--uids", type=user_path, help="text file: take only the meshes named <uid>.*, one uid a line")
    p.add_argument("--annotations", type=user_path, help="Objaverse annotations (json, json.gz) for the licences")
    p.add_argument("--manifest", type=user_path, metavar="CSV",
                   help="mesh files with licences: columns path, licence[, creator, name, library, split, model_rotation]")  # fmt: skip
    p.add_argument("--root", type=user_path, help="folder that the manifest's paths are relative to (that of the CSV)")
    p.add_argument("--split", default="", help="take only the manifest's rows of this split (all)")
    p.add_argument("--variants", type=int, default=0,
                   help="random variants of each object of the manifest: mirrored, turned, stretched, recoloured (0: as it is)")  # fmt: skip
    p.add_argument("--views", type=int, default=default.views, help="views per object (%(default)s)")
    p.add_argument("--size", type=int, default=default.size, help="pixels per edge (%(default)s)")
    p.add_argument("--supersample", type=int, default=default.supersample, help="rays per pixel edge (%(default)s)")
    p.add_argument("--elevation", type=float, nargs=2, default=default.elevation_range, metavar=("LOW", "HIGH"),
                   help="degrees of every second view (-10 80)")  # fmt: skip
    p.add_argument("--condition-elevation", type=float, nargs=2, default=default.condition_elevation_range,
                   metavar=("LOW", "HIGH"), help="degrees of the views that may be inputs (-10 45)")  # fmt: skip
    p.add_argument("--distance", type=float, default=default.distance, help="camera distance (%(default)s)")
    p.add_argument("--fovy", type=float, default=default.fovy_deg, help="vertical field of view, degrees (%(default)s)")
    p.add_argument("--shard-size", type=int, default=default.shard_size, help="objects per file (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of cameras and light (0)")
    p.add_argument("--renderer", choices=("embree", "blender"), default=default.renderer,
                   help="embree: fast ray casting; blender: path tracing, needs pip install bpy (%(default)s)")  # fmt: skip
    p.add_argument("--processes", type=int, default=1, help="worker processes (1)")
    p.add_argument("--original-layout", type=user_path, metavar="ROOT",
                   help="also write <uid>/000.png, 000.npy and valid_paths.json as the original Zero123 reads")  # fmt: skip
    p.add_argument("--check", action="store_true", help="report empty, cut, one-coloured images; exit 1 if any")
    p.add_argument("--attribution", type=user_path, metavar="FILE",
                   help="write title, creator, library and licence of everything in the folder, as Markdown")  # fmt: skip
    p.add_argument("--sheet", type=user_path, metavar="PNG", help="write a contact sheet of objects from all shards")
    return p


def _objects(args: argparse.Namespace) -> list[SceneObject]:
    objects: list[SceneObject] = []
    if args.procedural:
        try:
            first, last = (int(word) for word in args.procedural.split(":"))
        except ValueError as error:
            raise ConfigError(f"--procedural {args.procedural}: write two seeds, such as 0:2000.") from error
        if not 0 <= first < last:
            raise ConfigError(f"--procedural {args.procedural}: seeds should rise from 0, such as 0:2000.")
        generator = {"basic": "procedural", "extended": "extended"}[args.kinds]
        objects += procedural_objects(first, last - first, generator)
    if args.meshes:
        objects += mesh_objects(args.meshes, args.uids, args.annotations)
    if args.manifest:
        objects += manifest_objects(args.manifest, args.root, args.split, args.variants)
    return objects


def _settings(args: argparse.Namespace) -> RenderSettings:
    for name in ("views", "size", "supersample", "shard_size", "processes"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)}: should be at least 1.")
    for low, high in (args.elevation, args.condition_elevation):
        if not -90 <= low <= high <= 90:
            raise ConfigError(f"elevation {low} {high}: should rise, within -90 and 90 degrees.")
    if args.distance <= 1 or not 0 < args.fovy < 120:
        raise ConfigError(f"distance {args.distance}, fovy {args.fovy}: needs distance > 1 and 0 < fovy < 120.")
    return RenderSettings(
        views=args.views,
        size=args.size,
        supersample=args.supersample,
        elevation_range=tuple(args.elevation),
        condition_elevation_range=tuple(args.condition_elevation),
        distance=args.distance,
        fovy_deg=args.fovy,
        shard_size=args.shard_size,
        seed=args.seed,
        renderer=args.renderer,
    )


def main(argv: Sequence[str]) -> int:
    """Run `zero123s render`; 1 where --check finds broken images."""
    args = _parser().parse_args(list(argv))
    objects, settings = _objects(args), _settings(args)
    if not objects and not (args.check or args.sheet or args.original_layout or args.attribution):
        raise ConfigError("nothing to render: give --procedural A:B or --meshes PATH (see zero123s render --help).")
    if objects:
        with tqdm(total=len(objects), unit="object", desc="render") as bar:
            manifest = render_dataset(objects, args.out, settings, args.processes, bar.update)
        rendered = sum(len(read_shard(path).object_ids) for path in shard_files(args.out))
        print(f"{rendered} of {len(objects)} objects rendered: {manifest}")
        if not rendered:
            return 1
    if args.original_layout:
        shards = (read_shard(path) for path in shard_files(args.out))
        print(write_original(shards, args.original_layout))
    if args.attribution:
        print(write_attribution(args.out, args.attribution))
    if args.sheet:
        print(write_contact_sheet(args.out, args.sheet))
    return _report(args.out) if args.check else 0


def _report(folder: Path) -> int:
    broken = 0
    for path, views in check_folder(folder):
        for view in views:
            print(f"{path.name}: {view.object_id} view {view.view}: {view.reason}", file=sys.stderr)
        broken += len(views)
    print(f"{broken} broken images")
    return 1 if broken else 0
