import json

import numpy as np
import pytest
import torch
from PIL import Image

from zero123s.mesh.scene_mesh import normalize
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes import procedural_creatures, procedural_furniture, procedural_vehicles
from zero123s.scenes.nerf_synthetic import write_nerf_synthetic
from zero123s.scenes.primitives import Builder
from zero123s.scenes.render import random_light, render_views

MAKERS = {
    f"{module.__name__.rsplit('_', 1)[-1]}-{name}": getattr(module, name)
    for module, names in (
        (procedural_furniture, ("table", "chair", "sofa", "shelf", "lamp", "bed", "stool")),
        (procedural_vehicles, ("car", "truck", "plane", "boat", "rocket", "locomotive")),
        (procedural_creatures, ("quadruped", "bird", "fish", "person", "robot")),
    )
    for name in names
}


def make(maker, seed=0):
    rng = np.random.default_rng(seed)
    builder = Builder()
    maker(builder, rng)
    return normalize(builder.build(maker.__name__)), random_light(rng)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_objects_fill_the_frame_and_stay_inside(maker):
    for seed in range(2):
        scene, light = make(maker, seed)
        cameras = orbit_cameras(
            torch.tensor([-10.0, 20.0, 70.0]), torch.tensor([0.0, 100.0, 220.0]), height=48, width=48
        )
        rgba = render_views(scene, cameras, light).rgba
        assert (rgba.shape, rgba.dtype) == ((3, 48, 48, 4), np.float32)
        alpha = rgba[..., 3]
        assert (alpha > 0.5).mean(axis=(1, 2)).min() > 0.01
        assert max(alpha[:, 0].max(), alpha[:, -1].max(), alpha[:, :, 0].max(), alpha[:, :, -1].max()) == 0
        assert rgba[alpha > 0.5][:, :3].std() > 0.01


def test_the_same_seed_makes_the_same_object():
    (a, _), (b, _), (c, _) = (make(procedural_vehicles.car, seed) for seed in (1, 1, 2))
    assert np.array_equal(a.vertices, b.vertices)
    assert a.vertices.shape != c.vertices.shape or not np.allclose(a.vertices, c.vertices)


def test_silhouettes_agree_with_the_projected_vertices():
    from zero123s.ops.cameras import project

    scene, _ = make(procedural_creatures.robot)
    cameras = orbit_cameras(15.0, 40.0, height=96, width=96)
    alpha = render_views(scene, cameras).rgba[0, ..., 3] > 0.5
    pixels = project(torch.from_numpy(scene.vertices), cameras)[0, :, :2].numpy()
    rows, columns = np.nonzero(alpha)
    bounds = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    true = np.array([*pixels.min(0), *pixels.max(0)])
    assert abs(bounds - true).max() < 1.0


def test_nerf_synthetic_folder(tmp_path):
    scene, _ = make(procedural_vehicles.truck)
    path = write_nerf_synthetic(scene, tmp_path, n_views=3, size=32)
    content = json.loads(path.read_text())
    assert len(content["frames"]) == 3
    assert Image.open(tmp_path / "002.png").mode == "RGBA"
    assert (tmp_path / "truth.ply").stat().st_size > 1000
