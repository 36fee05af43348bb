"""Volume IoU of what the bundled model's pose lift predicts from one view, before any training: what a run starts from.

    python benchmarks/lift_volume.py [--weights A.safetensors B.safetensors] [--count 20]
    python benchmarks/lift_volume.py --manifest CSV --root MODELS --closed --count 37

A second per object and file of weights, so that weights can be compared before the whole job is run (image_to_mesh.py). Cells
count as solid above each of a few opacities per 0.02 world units; outside the input's silhouette nothing does. Bright objects
are darkened as in the cpu profile (`system.guidance_exposure: auto`).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from held_out import add_arguments, held_out_objects

from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.mesh.metrics import voxelize
from zero123s.mesh.silhouette import outside_visual_hull
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.render import render_views
from zero123s.structures import ReferenceView
from zero123s.system.exposure import expose_views, guidance_exposure

ELEVATION = 10.0
BOUND, CELLS, STEP = 0.7, 64, 0.02
OPACITIES = (0.08, 0.15, 0.25, 0.4)


def cell_centres() -> torch.Tensor:
    """Return the centres of the cells, N 3."""
    axis = (torch.arange(CELLS) + 0.5) * (2 * BOUND / CELLS) - BOUND
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def opacity(weights: Path | None, view: ReferenceView, points: torch.Tensor) -> np.ndarray:
    """Return the opacity of STEP world units of the lifted volume at the points."""
    config = StableZero123Guidance.Config(checkpoint="auto" if weights is None else str(weights), guidance_scale=1.0)
    scene = StableZero123Guidance(config, view).scene(BOUND)
    assert scene is not None  # the model has a pose lift
    with torch.no_grad():
        return (1 - torch.exp(-STEP * scene.density(points))).numpy()


def main() -> None:
    """Print the mean IoU of each file of weights at each opacity."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, first=9_000_000, count=20)
    parser.add_argument("--weights", type=Path, nargs="*", default=[None], help="of small models (the bundled one)")
    args = parser.parse_args()
    points, scores = cell_centres(), {weights: [] for weights in args.weights}
    for held_out in held_out_objects(args, ELEVATION):
        camera = orbit_cameras(ELEVATION, held_out.azimuth_deg, height=256, width=256)
        rgba = torch.from_numpy(render_views(held_out.scene, camera, supersample=2).rgba).float()
        view = ReferenceView(camera, rgba[..., :3], rgba[..., 3:])
        view = expose_views(view, guidance_exposure("auto", view, "rgb"))
        vertices, faces = held_out.scene.vertices, held_out.scene.faces
        truth = voxelize(vertices, faces, np.full(3, -BOUND), 2 * BOUND, CELLS).reshape(-1)
        inside = ~outside_visual_hull(view)(points).numpy()
        for weights in args.weights:
            values = opacity(weights, view, points)
            solids = [(values > level) & inside for level in OPACITIES]
            scores[weights].append([float((solid & truth).sum() / (solid | truth).sum()) for solid in solids])
    for weights, rows in scores.items():
        means = "  ".join(f"{iou:.3f} at {level}" for iou, level in zip(np.mean(rows, 0), OPACITIES, strict=True))
        print(f"{weights or 'bundled'}, {len(rows)} objects: volume IoU {means}")


if __name__ == "__main__":
    main()
