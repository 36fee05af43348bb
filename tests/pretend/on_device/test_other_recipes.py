"""The recipes besides the main one: with several images, with a prompt, with two guidances."""

import pytest
import yaml

from pretend.on_device.commands import FIELD, REPOSITORY, launch, launch_plain

pytestmark = pytest.mark.slow
IMAGES = REPOSITORY / "load" / "images" / "multi_view_sample" / "transforms.json"
PROMPT = [
    *FIELD, "data.height=16", "data.width=16", "data.eval_height=16", "data.eval_width=16", "data.n_val_views=1",
    "data.n_test_views=2", "system.guidance.prompt=a ball", "system.geometry.pos_encoding_config.log2_hashmap_size=12",
    "system.renderer.num_samples_per_ray=32", "system.exporter.isosurface_resolution=24", "trainer.max_steps=2",
    "export_after_train=false",
]  # fmt: skip


def test_few_views(tmp_path, tiny_zero123):
    launch("few-views", tmp_path, *tiny_zero123)


def test_multi_view(tmp_path):
    launch("multi-view", tmp_path, f"data.transforms_path={IMAGES}", "data.batch_size=2", "data.holdout_every=8")


def test_multi_view_gaussians(tmp_path):
    launch_plain(
        "multi-view-gaussians", tmp_path, f"data.transforms_path={IMAGES}", "data.height=16", "data.width=16",
        "data.resolution_milestones=[]", "data.batch_size=2", "data.random_camera.eval_height=16",
        "data.random_camera.eval_width=16", "data.random_camera.n_val_views=1", "data.random_camera.n_test_views=2",
        "system.geometry.n_points=50", "system.exporter.isosurface_resolution=24", "system.exporter.texture_size=64",
        "trainer.max_steps=2",
    )  # fmt: skip


def test_dreamgaussian(tmp_path, tiny_zero123):
    launch_plain(
        "dreamgaussian", tmp_path, *tiny_zero123, "data.height=16", "data.width=16", "data.resolution_milestones=[]",
        *[f"data.random_camera.{name}=16" for name in ("height", "width", "eval_height", "eval_width")],
        "data.random_camera.resolution_milestones=[]", "data.random_camera.n_val_views=1", "data.random_camera.n_test_views=2",
        "system.geometry.n_points=50", "system.geometry.densification.start_step=1", "system.geometry.densification.interval=1",
        "system.exporter.isosurface_resolution=24", "system.exporter.texture_size=64", "trainer.max_steps=3",
    )  # fmt: skip


@pytest.mark.parametrize("variant", ["sds", "vsd"])
def test_dreamfusion(variant, tmp_path, tiny_text_model, counts):
    guidance = [f"system.guidance.checkpoint={tiny_text_model}", f"system.guidance.variant={variant}"]
    launch_plain("dreamfusion", tmp_path, *PROMPT, *guidance)
    assert counts.n_launches > 0


def test_magic123(tmp_path, tiny_zero123, tiny_text_model, counts):
    image = dict(word.removeprefix("system.guidance.").split("=", 1) for word in tiny_zero123)
    config = yaml.safe_load((REPOSITORY / "configs" / "magic123.yaml").read_text())
    config["system"]["guidance"]["guidances"] = [
        {"type": "stable-zero123-guidance", "weight": 1.0, "settings": image},
        {"type": "stable-diffusion-guidance", "weight": 0.1,
         "settings": {"prompt": "a ball", "checkpoint": str(tiny_text_model)}},
    ]  # fmt: skip
    (tmp_path / "magic.yaml").write_text(yaml.safe_dump(config))
    launch(tmp_path / "magic.yaml", tmp_path, "name=magic", "system.freq.guidance_eval=1", "export_after_train=false")
    assert counts.n_launches > 0
