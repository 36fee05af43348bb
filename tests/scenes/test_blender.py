import builtins

import numpy as np
import pytest

from zero123s.errors import MissingDependencyError
from zero123s.mesh.scene_mesh import Paint, Texture
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.blender import bake_atlas, render_views_blender
from zero123s.scenes.primitives import Builder, box
from zero123s.scenes.procedural import named
from zero123s.scenes.render import bilinear, render_views, surface_colors


def test_the_atlas_shows_every_triangle_as_embree_would():
    builder = Builder()
    builder.add(box(1, 1, 1, 0.1), Paint((0, 0.5, 0), (1, 0, 1), "gradient", 0.8, (1, 1, 1)))
    scene = builder.build("box")
    rgb, uv = bake_atlas(scene, side=1024)
    rng = np.random.default_rng(0)
    face = rng.integers(0, len(scene.faces), 500).astype(np.int32)
    weights = rng.dirichlet([2, 2, 2], 500).astype(np.float32)
    expected = surface_colors(scene, face, weights[:, 1].copy(), weights[:, 2].copy())
    baked = bilinear(Texture(rgb).image, (uv[face] * weights[..., None]).sum(1))
    assert np.abs(baked - expected).max() < 0.02


def test_without_bpy_the_way_out_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "bpy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match="pip install bpy"):
        render_views_blender(named("burger"), orbit_cameras(0.0, 0.0))


def test_blender_sees_the_same_silhouette():
    pytest.importorskip("bpy", reason="Blender is not installed: pip install bpy")
    scene, cameras = named("robot", 7), orbit_cameras(15.0, 40.0)
    traced, cast = render_views_blender(scene, cameras, samples=4).rgba, render_views(scene, cameras).rgba
    overlap = np.minimum(traced[..., 3], cast[..., 3]).sum() / np.maximum(traced[..., 3], cast[..., 3]).sum()
    assert overlap > 0.95  # measured 0.985 at 128 pixels
    inside = cast[..., 3] == 1
    assert np.abs(traced - cast)[inside][:, :3].mean() < 0.12  # shadows and bounces differ; measured 0.05


def test_the_dataset_uses_blender_only_on_request(monkeypatch, tmp_path):
    from zero123s.scenes import blender
    from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset

    monkeypatch.setattr(blender, "import_bpy", lambda: (_ for _ in ()).throw(MissingDependencyError("no bpy")))
    small = {"views": 1, "size": 16, "shard_size": 1}
    assert render_dataset(procedural_objects(0, 1), tmp_path / "cast", RenderSettings(**small)).exists()
    with pytest.raises(MissingDependencyError, match="no bpy"):
        render_dataset(procedural_objects(0, 1), tmp_path / "traced", RenderSettings(**small, renderer="blender"))
