"""Sizes that do not go together: one sentence before anything is written, or a note where they only waste."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_run import SMALL

from zero123s.commands.launch import main
from zero123s.commands.main import main as command
from zero123s.config.load import load_config
from zero123s.data.single_image import SingleImageData
from zero123s.diffusion.checkpoint.load_zero123 import save_zero123
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import read_model_config
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.run.plan import check_experiment
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset
from zero123s.system.slots import novel_size_notes
from zero123s.system.visualize import save_video

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
IMAGE = REPOSITORY / "load" / "images" / "hamburger_rgba.png"
SCENE = REPOSITORY / "load" / "images" / "multi_view_sample"
TINY = REPOSITORY / "tests" / "helpers" / "tiny_lifted.yaml"
TINY_ZERO123 = REPOSITORY / "tests" / "helpers" / "tiny_zero123.yaml"
LIFT = "    pose_lift: {latent_size: 8, widths: [32, 32], volume_channels: 4, features: 4, n_samples: 12, out_channels: 8}\n"


@pytest.fixture
def refused(tmp_path, capsys):
    """Return a function that starts a run and returns the sentence with which it is refused."""

    def refused(config, *overrides):
        out = tmp_path / "outputs"
        code = main(["--config", str(CONFIGS / config), "--train", f"exp_root_dir={out}", *overrides])
        said = capsys.readouterr().err.strip().splitlines()
        assert code == 2
        assert said[-1].startswith("error: ")
        assert not out.exists(), "nothing was written"
        return said[-1]

    return refused


@pytest.fixture
def views(tmp_path):
    """Return a function that renders a few objects at a size."""

    def views(size, n_views=3):
        folder = tmp_path / f"{size}x{n_views}"
        settings = RenderSettings(views=n_views, size=size, supersample=1, shard_size=4)
        render_dataset(procedural_objects(0, 8), folder, settings)
        return folder

    return views


def autoencoder(root, *overrides):
    return ("train-autoencoder.yaml", f"data.root={root}", "data.held_out=2", f"system.model={TINY}", *overrides)


def finetune(root, autoencoder_file, *overrides):
    return ("train-small-zero123.yaml", f"data.root={root}", "data.held_out=2", "data.batch_size=2", "data.n_targets=1",
            f"system.model={TINY}", f"system.autoencoder={autoencoder_file}", *overrides)  # fmt: skip


# ---------------------------------------------------------------- training of models


def test_images_that_the_autoencoder_cannot_halve(refused, views):
    error = refused(*autoencoder(views(30), "system.crop_size=16"))
    assert "30x30 pixels" in error
    assert "multiples of 4; render them anew, zero123s render --size 32" in error


@pytest.mark.parametrize(
    ("crop", "message"), [(18, "18 pixels; .*needs a multiple of 4"), (64, "64, but the images have 32x32 pixels")]
)
def test_crops_that_do_not_fit(refused, rendered_views, crop, message):
    assert re.search(f"system.crop_size: {message}", refused(*autoencoder(rendered_views, f"system.crop_size={crop}")))


@pytest.mark.parametrize(("size", "n_views", "message"), [(16, 4, "4 views of 16"), (32, 3, "3 views of 32")])
def test_shards_of_different_kinds_in_one_folder(refused, views, tmp_path, tiny_autoencoder, size, n_views, message):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i, one in enumerate((views(16), views(size, n_views))):
        shutil.copy(sorted(one.glob("shard_*"))[i], folder)
    error = refused(*finetune(folder, tiny_autoencoder))
    assert (
        f"shard_00001.safetensors: holds {message} pixels of each object, and shard_00000.safetensors 3 of 16" in error
    )


MODELS = {
    "maps of the lift": ([("in_channels: 16", "in_channels: 12")], "in_channels 12, .* need 16 and 4"),
    "output channels": ([("in_channels: 16", "in_channels: 16\n        out_channels: 3")], "out_channels 3; .* 16 and 4"),
    "latents of the lift": ([("latent_size: 8", "latent_size: 4")], "latent_size 4 .* must be those of the latents"),
    "halvings of the lift": ([("_size: 8", "_size: 7")], "latent_size that is a multiple of 2 and at least 4, not 7"),
    "a key of the lift": ([("latent_size", "latents")], "model.params.pose_lift.latents .*Did you mean 'latent_size'"),
    "a word for a number": ([("latent_size: 8", "latent_size: eight")], "latent_size must be whole numbers > 0"),
    "a number for yes or no": ([("latent_size: 8", "latent_size: 8, mirrored: 2")], "mirrored must be true or false, not 2"),
    "patches": ([("{image_size: 32, patch", "{image_size: 40, patch")], "image_size 40 must be a multiple of patch_size 16"),
    "heads": ([("heads: 2, output", "heads: 3, output")], "heads 3 must divide width 32"),
}  # fmt: skip


@pytest.mark.parametrize(("edits", "message"), MODELS.values(), ids=MODELS)
def test_a_model_whose_parts_do_not_fit(refused, rendered_views, tiny_autoencoder, tmp_path, edits, message):
    text = TINY.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "model.yaml").write_text(text)
    error = refused(*finetune(rendered_views, tiny_autoencoder, f"system.model={tmp_path / 'model.yaml'}"))
    assert re.search(message, error), error
    assert "model.yaml" in error


def test_a_model_too_small_to_be_scored(refused, rendered_views, tiny_autoencoder, tmp_path):
    text = TINY.read_text().replace(LIFT, "").replace("in_channels: 16", "in_channels: 8")
    (tmp_path / "model.yaml").write_text(text.replace("image_size: 8", "image_size: 2"))
    overrides = (f"system.model={tmp_path / 'model.yaml'}", "system.components=[unet]", "system.lambda_lift=0")
    assert "images have 8 pixels (unet_config's image_size 2 times 4)" in refused(
        *finetune(rendered_views, tiny_autoencoder, *overrides)
    )


def test_latents_that_another_model_cached(refused, views, tiny_autoencoder, tmp_path):
    (tmp_path / "larger.yaml").write_text(TINY_ZERO123.read_text().replace("image_size: 8", "image_size: 16"))
    save_zero123(build_model(read_model_config(tmp_path / "larger.yaml")), tmp_path / "larger.safetensors")
    root, folder = views(32, 2), tmp_path / "latents"
    assert command(["cache-latents", str(root), str(folder), "--checkpoint", str(tmp_path / "larger.safetensors")]) == 0
    error = refused(*finetune(root, tiny_autoencoder, f"data.latents={folder}"))
    assert "cached latents were not computed by this model (4 x 16 x 16 numbers instead of 4 x 8 x 8)" in error


def test_latents_of_another_model_of_equal_size(refused, rendered_views, tiny_autoencoder, tmp_path):
    """Nothing would break, and nothing right be learned."""
    state = load_file(tiny_autoencoder)
    key = next(name for name in state if name.endswith("quant_conv.weight") and "post" not in name)
    save_file({**state, key: state[key][::-1].copy()}, tmp_path / "other.safetensors")
    out = ["--train", f"exp_root_dir={tmp_path / 'begun'}", "use_timestamp=false"]
    begin, *overrides = finetune(rendered_views, tiny_autoencoder, "trainer.max_steps=1", "system.n_validation=2",
                             "system.n_samples=1", "system.sample_steps=1", "trainer.enable_progress_bar=false")  # fmt: skip
    assert main(["--config", str(CONFIGS / begin), *out, *overrides]) == 0
    trained = next((tmp_path / "begun").rglob("zero123.safetensors"))
    assert command(["cache-latents", str(rendered_views), str(tmp_path / "latents"), "--checkpoint", str(trained)]) == 0
    latents = f"data.latents={tmp_path / 'latents'}"
    error = refused(*finetune(rendered_views, tmp_path / "other.safetensors", latents))
    assert "cached latents were not computed by this model" in error
    assert "% off from its encoding of the same image" in error
    error = refused(*finetune(rendered_views, tiny_autoencoder, latents, "system.components=[unet]", "seed=5"))
    assert "cached embeddings were not computed by this model" in error


def test_images_smaller_than_the_models_input_are_reported(views, tiny_autoencoder, caplog):
    config, *overrides = finetune(views(16), tiny_autoencoder)
    check_experiment(load_config(str(CONFIGS / config), overrides)).build().load_networks(torch.device("cpu"))
    assert "note: the images have 16 pixels, and are enlarged to the 32 of the model." in caplog.text


# ---------------------------------------------------------------- images and views of a run


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.width=24"], "data.height=16, data.width=24: the image is put on a square"),
        (
            ["data.random_camera.height=8"],
            "views of 16x8 pixels would be squeezed to the square input of the guidance",
        ),
        (["data.text_to_image.height=68"], "text_to_image.height: 68 pixels; the pipeline needs a multiple of 8"),
    ],
)
def test_shapes_that_would_squeeze_or_break(refused, tiny_zero123, overrides, message):
    assert message in refused("stable-zero123.yaml", f"data.image_path={IMAGE}", *SMALL, *tiny_zero123, *overrides)


@pytest.fixture
def wide_scene(tmp_path):
    """A scene whose images have 80 x 60 pixels."""
    scene = json.loads((SCENE / "transforms.json").read_text())
    scene["frames"] = scene["frames"][:4]
    for frame in scene["frames"]:
        name = Path(frame["file_path"]).with_suffix(".png").name
        Image.open(SCENE / name).resize((80, 60)).save(tmp_path / name)
    (tmp_path / "transforms.json").write_text(json.dumps(scene))
    return tmp_path / "transforms.json"


def test_training_sizes_of_another_shape_than_the_images(refused, wide_scene, tmp_path):
    overrides = [f"data.transforms_path={wide_scene}", *SMALL, "data.batch_size=2"]
    error = refused("multi-view.yaml", *overrides)
    assert "16x16 pixels have another shape than" in error
    assert "000.png' with 80x60, which would be squeezed; with data.height=16 give data.width=21" in error
    out = [f"exp_root_dir={tmp_path / 'outputs'}", "trainer.max_steps=1", "export_after_train=false"]
    assert main(["--config", str(CONFIGS / "multi-view.yaml"), "--train", *overrides, *out, "data.width=21"]) == 0


def test_wide_images_do_not_condition_square_models(refused, wide_scene, tiny_zero123):
    overrides = [
        f"data.transforms_path={wide_scene}",
        *SMALL,
        "data.batch_size=2",
        "data.width=21",
        "data.novel_views=true",
    ]
    guided = ["system.guidance_type=stable-zero123-guidance", "system.loss.lambda_sds=0.1", *tiny_zero123]
    assert "images of 21x16 pixels would be squeezed to Zero123's square input" in refused(
        "multi-view.yaml", *overrides, *guided
    )


@pytest.mark.parametrize(
    ("size", "note"),
    [
        (8, "views of 8 pixels are enlarged to the guidance model's input of 64, which is then blurred"),
        (96, "views of 96 pixels are downsampled to the guidance model's input of 64: rendering them takes 2.25 times"),
        (16, ""),
        (64, ""),
    ],
)
def test_views_of_unfitting_size_are_reported(disc_data, size, note):
    camera = replace(disc_data.cfg.random_camera, height=size, width=size)
    notes = novel_size_notes(SingleImageData(replace(disc_data.cfg, random_camera=camera)), 64)
    assert len(notes) == bool(note)
    assert note in "".join(notes)


def test_an_image_smaller_than_the_model_is_reported(tiny_zero123, disc_data, caplog):
    checkpoint, config = (word.split("=", 1)[1] for word in tiny_zero123)
    StableZero123Guidance(StableZero123Guidance.Config(checkpoint=checkpoint, config=config), disc_data.reference())
    assert (
        "note: the input resolution of the model is 32 pixels, and its image has 16; a larger data.height may help."
        in caplog.text
    )


def test_every_pixel_of_a_large_view_is_judged(tiny_zero123, disc_data):
    """Reading few of the pixels would leave the others without a gradient."""
    checkpoint, config = (word.split("=", 1)[1] for word in tiny_zero123)
    guidance = StableZero123Guidance(
        StableZero123Guidance.Config(checkpoint=checkpoint, config=config), disc_data.reference()
    )
    size = 4 * guidance.model.image_size
    rgb = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    camera = disc_data.sampler.sample(0, torch.Generator().manual_seed(0)).select(slice(0, 1))
    guidance(rgb, camera, 0, torch.Generator().manual_seed(0)).loss.backward()
    assert rgb.grad is not None
    assert (rgb.grad.abs().sum(-1) > 0).float().mean() > 0.99


def test_training_size_does_not_blur_the_conditioning_image(disc_data):
    assert disc_data.reference().rgb.shape[1:3] == (16, 16)
    assert disc_data.conditioning_views().rgb.shape[1:3] == (33, 33)


@pytest.mark.parametrize(("height", "width"), [(17, 19), (1, 1), (16, 20)])
def test_videos_of_odd_sizes_keep_every_pixel(tmp_path, height, width, capfd):
    frames = [np.full((height, width, 3), 60 * i, np.uint8) for i in range(3)]
    assert imageio.imread(save_video(tmp_path / "a.mp4", frames)).shape == (
        3,
        height + height % 2,
        width + width % 2,
        3,
    )
    assert "WARNING" not in capfd.readouterr().err


def test_without_encoder_a_video_is_a_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    frames = [np.full((4, 6, 3), 60 * i, np.uint8) for i in range(3)]
    folder = save_video(tmp_path / "a.mp4", frames)
    assert [imageio.imread(folder / f"000{i}.png")[0, 0, 0] for i in range(3)] == [0, 60, 120]
    assert "pip install imageio[ffmpeg]" in caplog.text
