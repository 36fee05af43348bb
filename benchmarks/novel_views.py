"""Novel views of a Zero123 on generated objects that no training saw, beside the trivial answers.

    python benchmarks/novel_views.py [CHECKPOINT] [--count 200] [--steps 50] [--scale 3] [--sheet sheet.png]

Each object is shown once (elevation -10 to 45 degrees) and asked for once (-10 to 80, any azimuth). "copy" answers with
the input, "mean" with the mean of all wanted pictures. The gates are the x0 error at t = 900 with wrong poses over that
with the right one.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from zero123s.data.rendered_views import RenderedViews
from zero123s.diffusion.checkpoint import load_zero123
from zero123s.diffusion.locate import locate_checkpoint
from zero123s.diffusion.validation import image_scores, lift_scores, pose_gates, sample_views
from zero123s.preprocess.images import write_png_atomic
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset
from zero123s.structures import PosedViews

BATCH = 25


def held_out_views(first: int, count: int, size: int) -> PosedViews:
    """Render `count` objects from the seed `first` on and return one pair of views of each."""
    with tempfile.TemporaryDirectory() as folder:
        settings = RenderSettings(views=2, size=size, supersample=3, seed=1)
        render_dataset(procedural_objects(first, count), folder, settings)
        data = RenderedViews(RenderedViews.Config(root=folder, held_out=count - 1))
        data.prepare()
        return data.validation_batch(0, count)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="auto")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=9_100_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scale", type=float, default=3.0)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    model = load_zero123(locate_checkpoint(args.checkpoint).path, dtype="fp32")
    views = held_out_views(args.first, args.count + 1, model.image_size)
    parts = [_part(views, slice(i, i + BATCH)) for i in range(0, args.count, BATCH)]
    drawn = torch.cat([sample_views(model, part, args.steps, args.scale) for part in parts])
    truth = views.on_white()
    answers = {"sampled": drawn, "copy": truth[:, 0], "mean": truth[:, 1].mean(0, keepdim=True).expand_as(drawn)}
    print("gates", {name: round(value, 3) for name, value in pose_gates(model, views).items()})
    print("lift", {name: round(value, 3) for name, value in lift_scores(model, views).items()})
    for name, rgb in answers.items():
        print(f"{name:<8}", {key: round(value, 3) for key, value in image_scores(rgb, views).items()})
    if args.sheet:
        few = slice(0, 16)
        rows = torch.cat([truth[few, 0], drawn[few], truth[few, 1]], dim=2).permute(2, 0, 3, 1).flatten(1, 2)
        write_png_atomic(args.sheet, rows.numpy())


def _part(views: PosedViews, part: slice) -> PosedViews:
    return PosedViews(views.rgba[part], views.elevation_deg[part], views.azimuth_deg[part], views.distance[part])


if __name__ == "__main__":
    main()
