"""Timesteps, samplers and the `views` command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zero123s.commands.views import main, read_settings
from zero123s.diffusion.checkpoint.load_zero123 import save_zero123
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import parse_model_config
from zero123s.diffusion.novel_views import ViewsConfig, parse_angles, read_on_white
from zero123s.diffusion.sampling import ddim_timesteps, original_timesteps, sample_latents
from zero123s.errors import ConfigError, ImageError

SMALL = {
    "unet_config": {"params": {"image_size": 8, "model_channels": 32, "channel_mult": [1, 1], "context_dim": 32}},
    "first_stage_config": {"params": {"ddconfig": {"ch": 32, "ch_mult": [1, 1, 1], "resolution": 32}}},
    "cond_stage_config": {
        "params": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "output_dim": 32}
    },
}


@pytest.fixture(scope="module")
def small_model():
    torch.manual_seed(0)
    return build_model(parse_model_config(SMALL)).eval().requires_grad_(False)


def test_original_timesteps_drop_the_noisiest():
    assert original_timesteps(4) == [501, 251, 1]
    assert (len(original_timesteps(50)), original_timesteps(50)[0]) == (49, 961)
    assert (len(original_timesteps(75)), original_timesteps(75)[0]) == (76, 976)
    with pytest.raises(ConfigError, match="cannot make 27 steps"):
        original_timesteps(27)


def test_ddim_timesteps_are_the_full_list():
    assert ddim_timesteps(4) == [751, 501, 251, 1]
    assert (len(ddim_timesteps(75)), ddim_timesteps(75)[0]) == (75, 963)


@pytest.mark.parametrize("sampler", ["ddim", "original", "euler", "dpm-solver"])
def test_every_sampler_reaches_a_known_clean_latent(sampler, small_model, monkeypatch):
    # With a denoiser that returns the exact noise, any consistent sampler reaches its image.
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def oracle(latents, t, context, concat, scale):
        a = small_model.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (latents - a.sqrt() * clean) / (1 - a).sqrt()

    monkeypatch.setattr(small_model, "guided_noise", oracle)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    zeros = torch.zeros(1, 1, 32), torch.zeros(1, 4, 8, 8)
    reached = sample_latents(small_model, noise, *zeros, steps=20, sampler=sampler)
    # What is left is the noise of the last timestep: sqrt(1 - alphas_cumprod[0]) = 0.03 times a normal number.
    torch.testing.assert_close(reached, clean, rtol=0, atol=0.15)


def test_views_do_not_depend_on_their_batch(small_model):
    rgb = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    context = small_model.project(small_model.embed_image(rgb), small_model.pose_vector([0.0, 5.0], 30, 3.8, 0, 0, 3.8))
    concat = small_model.encode_image(rgb).expand(2, -1, -1, -1)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    both = sample_latents(small_model, noise, context, concat, 3)
    alone = sample_latents(small_model, noise[1:], context[1:], concat[1:], 3)
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_eta_and_seed(small_model):
    rgb = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def view(seed, eta):
        return small_model.sample(rgb, 10, 40, steps=3, eta=eta, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(view(1, 1.0), view(1, 1.0))
    assert not torch.equal(view(1, 1.0), view(2, 1.0))
    assert not torch.equal(view(1, 1.0), view(1, 0.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"steps": 0}, "steps = 0"), ({"eta": 2}, "eta = 2"), ({"sampler": "dimm"}, "Did you mean 'ddim'")],
)
def test_wrong_sampling_is_a_sentence(change, said, small_model):
    noise = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ConfigError, match=said):
        sample_latents(small_model, noise, torch.zeros(1, 1, 32), noise, **change)


@pytest.fixture
def photo(small_model, tmp_path):
    """An image, and the checkpoint in the same folder."""
    save_zero123(small_model, tmp_path / "stable_zero123.safetensors")
    image = Image.new("RGBA", (40, 60))
    image.paste((200, 30, 30, 255), (10, 20, 30, 40))
    image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_views_command_writes_sheet_files_and_video(photo, capsys):
    out = photo.parent / "out" / "grid.png"
    known = ["--checkpoint", str(photo.parent / "stable_zero123.safetensors"), "--device", "cpu", "--steps", "2"]
    options = ["--azimuths", "0:360:120", "--elevations", "0,20", "--batch", "4", "--out", str(out)]
    assert main([str(photo), *known, *options]) == 0
    assert Image.open(out).size == (3 * 32, 2 * 32)
    assert len(list((photo.parent / "out" / "grid").glob("*.png"))) == 6
    assert out.with_suffix(".mp4").stat().st_size > 0
    assert "100 %" in capsys.readouterr().err  # the progress bar
    for overrides, said in (
        (["none.png", *known], "'none.png' does not exist"),
        ([str(photo), *known, "--sampler", "dimm"], "Did you mean 'ddim'"),
        ([str(photo), *known, "--out", "views.txt"], "must end in .png"),
    ):
        assert main(overrides) == 2
        assert said in capsys.readouterr().err


def test_views_from_python_are_those_of_the_command(photo):
    import zero123s

    checkpoint = str(photo.parent / "stable_zero123.safetensors")
    views = zero123s.novel_views(photo, 10, [0, 90], cond_elevation_deg=5, steps=2, checkpoint=checkpoint, device="cpu")
    assert views.shape == (2, 32, 32, 3)
    overrides = ["--elevation", "5", "--elevations", "10", "--azimuths", "0,90", "--steps", "2", "--device", "cpu"]
    assert main([str(photo), *overrides, "--checkpoint", checkpoint, "--out", str(photo.parent / "grid.png")]) == 0
    sheet = torch.from_numpy(np.array(Image.open(photo.parent / "grid.png"))).float() / 255
    assert float((torch.cat(list(views), dim=1) - sheet).abs().max()) < 0.5 / 255 + 1e-6


def test_the_yaml_lists_the_defaults_and_flags_win(tmp_path):
    path = Path(__file__).parents[2] / "configs" / "novel-views.yaml"
    assert read_settings(str(path), {}) == ViewsConfig()
    assert read_settings(str(path), {"steps": 7}) == ViewsConfig(steps=7)
    (tmp_path / "mine.yaml").write_text("step: 3\n")
    with pytest.raises(ConfigError, match="steps"):
        read_settings(str(tmp_path / "mine.yaml"), {})


def test_angles_and_images(tmp_path):
    assert parse_angles("0:360:45") == [0, 45, 90, 135, 180, 225, 270, 315]
    assert parse_angles("-10,20.5") == [-10, 20.5]
    for wrong in ("x", "0:10", "0:10:0", "10:0:5", "0:1:1e-9"):
        with pytest.raises(ConfigError, match=r"Angles"):
            parse_angles(wrong)
    half = Image.new("RGBA", (20, 10))
    half.paste((255, 0, 0, 255), (0, 0, 10, 10))
    half.save(tmp_path / "half.png")
    image = read_on_white(tmp_path / "half.png")
    assert image.shape == (1, 3, 20, 20)
    assert image[0, :, 7, 3].tolist() == [1, 0, 0]
    assert bool((image[..., 10:] == 1).all())
    assert bool((image[..., :5, :] == 1).all())
    for same in (half, np.asarray(half), (tmp_path / "half.png").read_bytes()):
        assert torch.equal(read_on_white(same), image)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match="not an image that can be read"):
        read_on_white(tmp_path / "text.png")
