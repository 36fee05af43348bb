"""Novel views of a Zero123 on generated objects that were never trained on, compared with trivial baselines.

    python benchmarks/novel_views.py [CHECKPOINT] [--count 200] [--steps 50] [--scale 3] [--sheet sheet.png]
    python benchmarks/novel_views.py --tone white    (the same objects in white, grey or black)
    python benchmarks/novel_views.py --meshes FOLDER    (mesh files, four pairs of views of each; see real_meshes.py)
    python benchmarks/novel_views.py --manifest CSV --root FOLDER --split val [--renders FOLDER]    (likewise, of the
        objects of a manifest; the renders are kept in --renders for the next time)

Each object is shown once (elevation -10 to 45 degrees), with one target view (-10 to 80, any azimuth). "copy" predicts
the input, "mean" with the mean of all target images. The gates are the x0 error at t = 900 with wrong poses over that
with the right one.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from zero123s.data.rendered_views import RenderedViews
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import locate_checkpoint
from zero123s.diffusion.validation import image_scores, lift_scores, pose_sensitivity, sample_views
from zero123s.evaluate.evaluation import choose_network
from zero123s.images.io import write_png_atomic
from zero123s.scenes.augment import TONES
from zero123s.scenes.dataset import RenderSettings, SceneObject, procedural_objects, render_dataset, with_tone
from zero123s.scenes.mesh_collections import mesh_objects
from zero123s.scenes.object_manifest import manifest_objects
from zero123s.scenes.shards import ShardFolder
from zero123s.structures import PosedViews

BATCH = 25


def pairs_of_views(objects: Sequence[SceneObject], size: int, seed: int = 1) -> PosedViews:
    """Render objects and return one pair of views of each but the first, which the data source keeps for training."""
    with tempfile.TemporaryDirectory() as folder:
        render_dataset(objects, folder, RenderSettings(views=2, size=size, supersample=3, seed=seed))
        data = RenderedViews(RenderedViews.Config(root=folder, held_out=len(objects) - 1))
        data.prepare()
        return data.validation_batch(0, len(objects))


def mesh_pairs(folder: Path, size: int) -> PosedViews:
    """Return four pairs of views of every mesh in a folder."""
    objects = [*procedural_objects(0, 1), *mesh_objects([folder])]
    parts = [pairs_of_views(objects, size, seed) for seed in (1, 2, 3, 4)]
    names = ("rgba", "elevation_deg", "azimuth_deg", "distance")
    return PosedViews(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def manifest_pairs(objects: Sequence[SceneObject], folder: Path, size: int) -> PosedViews:
    """Render eight views of every object into `folder`, where they are missing; each two of them are a pair."""
    render_dataset(objects, folder, RenderSettings(views=8, size=size, shard_size=100, seed=1))
    shards = ShardFolder(folder)
    rgba = torch.from_numpy(np.concatenate([shards.images(i) for i in range(len(shards))])).float() / 255
    angles = (shards.elevation_deg, shards.azimuth_deg, shards.distance)
    # Views alternate between the elevations of inputs and those of target views.
    return PosedViews(rgba.unflatten(0, (-1, 2)), *(torch.from_numpy(a).float().reshape(-1, 2) for a in angles))


def _views(args: argparse.Namespace, size: int) -> PosedViews:
    if args.meshes:
        return mesh_pairs(args.meshes, size)
    if args.manifest:
        objects = _toned(manifest_objects(args.manifest, args.root, args.split), args.tone)
        with tempfile.TemporaryDirectory() as folder:
            return manifest_pairs(objects, args.renders or Path(folder), size)
    return pairs_of_views(_toned(procedural_objects(args.first, args.count + 1), args.tone), size)


def _toned(objects: list[SceneObject], tone: str | None) -> list[SceneObject]:
    return [with_tone(item, tone) for item in objects] if tone else objects


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="auto")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=9_100_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scale", type=float, default=3.0)
    parser.add_argument("--meshes", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--renders", type=Path)
    parser.add_argument("--tone", choices=tuple(TONES), help="recolour the generated or listed objects")
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    model = load_zero123(locate_checkpoint(args.checkpoint).path, dtype="fp32")
    network = choose_network(None, None)
    views = _views(args, model.image_size)
    parts = [_part(views, slice(i, i + BATCH)) for i in range(0, len(views.rgba), BATCH)]
    drawn = torch.cat([sample_views(model, part, args.steps, args.scale) for part in parts])
    truth = views.on_white()
    answers = {"sampled": drawn, "copy": truth[:, 0], "mean": truth[:, 1].mean(0, keepdim=True).expand_as(drawn)}
    print("gates", {name: round(value, 3) for name, value in pose_sensitivity(model, views).items()})
    print("lift", {name: round(value, 3) for name, value in lift_scores(model, views).items()})
    for name, rgb in answers.items():
        print(f"{name:<8}", {key: round(value, 3) for key, value in image_scores(rgb, views, network).items()})
    if args.sheet:
        few = slice(0, 16)
        rows = torch.cat([truth[few, 0], drawn[few], truth[few, 1]], dim=2).permute(2, 0, 3, 1).flatten(1, 2)
        write_png_atomic(args.sheet, rows.numpy())


def _part(views: PosedViews, part: slice) -> PosedViews:
    return PosedViews(views.rgba[part], views.elevation_deg[part], views.azimuth_deg[part], views.distance[part])


if __name__ == "__main__":
    main()
