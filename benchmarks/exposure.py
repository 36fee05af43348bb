"""The volume that the bundled model's pose lift predicts, against the true mesh, by the exposure of its input.

    python benchmarks/exposure.py --samples --tones coloured,white,grey,black
    python benchmarks/exposure.py --manifest CSV --root MODELS [--split val] [--count 10]    (real objects)

Prints the volume IoU of each object for each factor on the object's colours, and the means of each tone. The volume is
cut by the input's silhouette, at one level of opacity for all.
"""

import argparse

import numpy as np
import torch
from held_out import add_arguments, held_out_objects
from skimage.measure import marching_cubes

from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.mesh.metrics import volume_iou
from zero123s.mesh.silhouette import outside_visual_hull
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.render import render_views
from zero123s.structures import ReferenceView
from zero123s.system.exposure import expose_views

EXPOSURES = (1.0, 0.85, 0.7, 0.5)
ELEVATION = 10.0
BOUND, CELLS = 0.7, 64
STEP, LEVEL = 0.02, 0.15
"""World units over which a density is taken as an opacity, and the opacity at which the surface lies."""


def lifted_mesh(reference: ReferenceView) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces of the volume predicted from one input view."""
    field = StableZero123Guidance(StableZero123Guidance.Config(), reference).scene(BOUND)
    assert field is not None
    axis = (torch.arange(CELLS) + 0.5) / CELLS * 2 * BOUND - BOUND
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    opacity = 1 - torch.exp(-STEP * field.density(points))
    is_free = outside_visual_hull(reference)
    assert is_free is not None
    inside = (opacity * ~is_free(points)).reshape(CELLS, CELLS, CELLS).numpy()
    vertices, faces, _, _ = marching_cubes(np.pad(inside, 1), LEVEL)
    return (vertices - 0.5) / CELLS * 2 * BOUND - BOUND, faces[:, ::-1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, first=9_000_000, count=10)
    table: dict[str, list[list[float]]] = {}
    print("exposure".ljust(40), *(f"{e:6.2f}" for e in EXPOSURES))
    for held_out in held_out_objects(parser.parse_args(), ELEVATION):
        camera = orbit_cameras(ELEVATION, held_out.azimuth_deg, 3.8, 20.0, 256, 256)
        rgba = torch.from_numpy(render_views(held_out.scene, camera, supersample=2).rgba).float()
        view = ReferenceView(camera, rgba[..., :3], rgba[..., 3:])
        truth = (held_out.scene.vertices, held_out.scene.faces)
        row = [volume_iou(lifted_mesh(expose_views(view, e)), truth, CELLS) for e in EXPOSURES]
        table.setdefault(held_out.tone, []).append(row)
        print(held_out.name[-40:].ljust(40), *(f"{iou:6.3f}" for iou in row), flush=True)
    for tone, rows in table.items():
        print(f"mean, {tone}".ljust(40), *(f"{iou:6.3f}" for iou in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
