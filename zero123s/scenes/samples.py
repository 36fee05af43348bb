"""Writes the sample images under load/images/; `python -m zero123s.scenes.samples load/images` makes them again."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from zero123s.images.io import write_png_atomic
from zero123s.mesh.scene_mesh import SceneMesh
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.nerf_synthetic import write_nerf_synthetic
from zero123s.scenes.procedural import named
from zero123s.scenes.render import render_views

SAMPLES = {
    "hamburger_rgba": ("burger", 7, 0.0),
    "teapot_rgba": ("teapot", 5, -40.0),
    "car_rgba": ("car", 5, 35.0),
    "chair_rgba": ("chair", 5, 35.0),
    "robot_rgba": ("robot", 7, 20.0),
    "dog_rgba": ("quadruped", 6, 50.0),
}
"""File stem: kind of object, seed, azimuth; all are seen from elevation 5 degrees."""


def fit_to_view(scene: SceneMesh, elevation_deg: float, azimuth_deg: float, share: float = 0.78) -> SceneMesh:
    """Return the scene scaled until its silhouette's longer side takes `share` of the frame in one default view."""
    for _ in range(3):  # perspective makes the size not quite proportional to the scale
        alpha = render_views(scene, orbit_cameras(elevation_deg, azimuth_deg, height=256, width=256)).rgba[0, ..., 3]
        rows, columns = np.nonzero(alpha > 0.5)
        side = max(np.ptp(rows), np.ptp(columns)) + 1
        scene = replace(scene, vertices=(scene.vertices * np.float32(share * 256 / side)))
    return scene


def write_samples(folder: Path, size: int = 512) -> list[Path]:
    """Write every sample as an RGBA image, few_views_sample/, and multi_view_sample/ as posed images of a small robot."""
    paths = []
    for stem, (kind, seed, azimuth) in SAMPLES.items():
        scene = fit_to_view(named(kind, seed), 5.0, azimuth)
        cameras = orbit_cameras(5.0, azimuth, height=size, width=size)
        paths.append(folder / f"{stem}.png")
        write_png_atomic(paths[-1], render_views(scene, cameras, supersample=4).rgba[0])
    # One chair from its front and its back, at the scale at which its corner view fills the frame.
    for name, azimuth in (("front", 0.0), ("back", 180.0)):
        cameras = orbit_cameras(5.0, azimuth, height=size // 2, width=size // 2)
        paths.append(folder / "few_views_sample" / f"{name}_rgba.png")
        write_png_atomic(
            paths[-1], render_views(fit_to_view(named("chair", 5), 5.0, 45.0), cameras, supersample=4).rgba[0]
        )
    paths.append(write_nerf_synthetic(named("robot", 4), folder / "multi_view_sample", n_views=40, size=128))
    return paths


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
