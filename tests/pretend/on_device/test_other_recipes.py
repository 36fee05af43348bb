"""The recipes with several images."""

import pytest

from pretend.on_device.commands import REPOSITORY, launch, launch_plain

pytestmark = pytest.mark.slow


def test_few_views(tmp_path, tiny_zero123):
    launch("few-views", tmp_path, *tiny_zero123)


def test_multi_view(tmp_path):
    pictures = REPOSITORY / "load" / "images" / "multi_view_sample" / "transforms.json"
    launch("multi-view", tmp_path, f"data.transforms_path={pictures}", "data.batch_size=2", "data.holdout_every=8")


def test_multi_view_gaussians(tmp_path):
    pictures = REPOSITORY / "load" / "images" / "multi_view_sample" / "transforms.json"
    launch_plain(
        "multi-view-gaussians", tmp_path, f"data.transforms_path={pictures}", "data.height=16", "data.width=16",
        "data.resolution_milestones=[]", "data.batch_size=2", "data.random_camera.eval_height=16",
        "data.random_camera.eval_width=16", "data.random_camera.n_val_views=1", "data.random_camera.n_test_views=2",
        "system.geometry.n_points=50", "system.exporter.isosurface_resolution=24", "system.exporter.texture_size=64",
        "trainer.max_steps=2",
    )  # fmt: skip
