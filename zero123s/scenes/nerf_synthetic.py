"""Writes a scene as posed images in the NeRF-synthetic form, with the ground-truth mesh."""

import json
import math
from pathlib import Path

import torch
import trimesh

from zero123s.images.io import write_png_atomic
from zero123s.mesh.scene_mesh import SceneMesh
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.render import render_views

GOLDEN_ANGLE_DEG = 180.0 * (3.0 - math.sqrt(5.0))


def write_nerf_synthetic(
    scene: SceneMesh,
    out_dir: Path,
    n_views: int = 40,
    size: int = 128,
    distance: float = 3.8,
    fovy_deg: float = 20.0,
    elevation_range: tuple[float, float] = (-30.0, 80.0),
) -> Path:
    """Render views spread evenly over a band of the sphere; return the path of transforms.json.

    Args:
        scene: what to show.
        out_dir: gets transforms.json, 000.png ... (RGBA, straight alpha) and truth.ply (z up).
        n_views: images, along a golden-angle spiral that is uniform on the sphere.
        size: pixels per edge.
        distance: of the cameras, world units.
        fovy_deg: field of view.
        elevation_range: band of elevations.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    low, high = (math.sin(math.radians(e)) for e in elevation_range)
    index = torch.arange(n_views)
    elevation = torch.rad2deg(torch.asin(low + (high - low) * (index + 0.5) / n_views))
    cameras = orbit_cameras(elevation, index * GOLDEN_ANGLE_DEG % 360, distance, fovy_deg, size, size)
    images = render_views(scene, cameras, supersample=3).rgba
    frames = []
    for i, image in enumerate(images):
        write_png_atomic(out_dir / f"{i:03d}.png", image)
        frames.append({"file_path": f"./{i:03d}", "transform_matrix": cameras.c2w[i].tolist()})
    trimesh.Trimesh(scene.vertices, scene.faces, process=False).export(out_dir / "truth.ply")
    path = out_dir / "transforms.json"
    path.write_text(json.dumps({"camera_angle_x": math.radians(fovy_deg), "frames": frames}), encoding="utf-8")
    return path
