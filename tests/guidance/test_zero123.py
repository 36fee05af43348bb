"""The Zero123 guidance on a small model of random weights."""

from pathlib import Path

import pytest
import torch

from zero123s.diffusion.checkpoint.load_zero123 import save_zero123
from zero123s.diffusion.model import Zero123Model, build_model
from zero123s.diffusion.model_config import parse_model_config
from zero123s.diffusion.shared import shared, sharing_networks
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.ops.cameras import orbit_cameras
from zero123s.structures import ReferenceView

SIZES = {
    "unet_config": {"params": {"image_size": 8, "model_channels": 32, "channel_mult": [1, 1], "context_dim": 32}},
    "first_stage_config": {"params": {"ddconfig": {"ch": 32, "ch_mult": [1, 1, 1], "resolution": 32}}},
    "cond_stage_config": {
        "params": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "output_dim": 32}
    },
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "stable_zero123.safetensors"
    save_zero123(build_model(parse_model_config(SIZES)), path)
    return str(path)


def guidance(checkpoint, **settings):
    reference = ReferenceView(
        orbit_cameras(5.0, 0.0, height=32, width=32), torch.rand(1, 32, 32, 3), torch.ones(1, 32, 32, 1)
    )
    return StableZero123Guidance(StableZero123Guidance.Config(checkpoint=checkpoint, **settings), reference)


def guide_views(guide, comp_rgb, seed=0):
    images = comp_rgb.clone().requires_grad_()
    cameras = orbit_cameras(10.0, torch.tensor([0.0, 40.0, 90.0, 200.0, 300.0])[: len(images)])
    out = guide(images, cameras, 0, torch.Generator().manual_seed(seed))
    return out, torch.autograd.grad(out.loss, images)[0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_equal_the_whole_batch(size, checkpoint):
    torch.manual_seed(1)
    comp_rgb = torch.rand(5, 24, 24, 3)
    torch.manual_seed(2)
    whole, grad = guide_views(guidance(checkpoint), comp_rgb)
    torch.manual_seed(2)
    parts, grad_of_parts = guide_views(guidance(checkpoint, micro_batch=size), comp_rgb)
    assert float((grad - grad_of_parts).abs().max() / grad.abs().max()) < 1e-5
    torch.testing.assert_close(parts.loss, whole.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(parts.grad_norm, whole.grad_norm, rtol=1e-5, atol=0)
    assert torch.equal(parts.timesteps, whole.timesteps)


def test_micro_batches_never_exceed_their_size(checkpoint, monkeypatch):
    guide = guidance(checkpoint, micro_batch=2)
    sizes = []
    for name, branches in (("encode_image", 1), ("predict_noise", 2)):
        method = getattr(Zero123Model, name)

        def record(self, x, *rest, method=method, branches=branches, **kwargs):
            sizes.append(len(x) // branches)
            return method(self, x, *rest, **kwargs)

        monkeypatch.setattr(Zero123Model, name, record)
    guide_views(guide, torch.rand(5, 16, 16, 3))
    assert sizes == [2, 2, 2, 2, 1, 1]


def test_a_step_encodes_and_denoises_once(checkpoint, monkeypatch):
    guide = guidance(checkpoint)
    calls = []
    for part in ("unet", "vae.encoder", "image_encoder"):
        guide.model.get_submodule(part).register_forward_hook(lambda *_, part=part: calls.append(part))
    guide_views(guide, torch.rand(2, 16, 16, 3))
    # The input view was encoded and embedded once, when the guidance was made; both CFG branches are one call.
    assert sorted(calls) == ["unet", "vae.encoder"]


def several(azimuths):
    cameras = orbit_cameras(5.0, torch.tensor(azimuths), height=32, width=32)
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(len(azimuths), 32, 32, 3, generator=generator)
    return ReferenceView(cameras, rgb, torch.ones(len(azimuths), 32, 32, 1))


def test_a_view_is_conditioned_on_the_nearest_image(checkpoint):
    views = several([0.0, 90.0, 180.0, -90.0])
    cameras = orbit_cameras(torch.tensor([0.0, 20.0, -10.0, 60.0]), torch.tensor([10.0, 130.0, 300.0, 181.0]))
    config = StableZero123Guidance.Config(checkpoint=checkpoint)
    guide = StableZero123Guidance(config, views)
    assert guide.nearest(cameras).tolist() == [0, 1, 3, 2]
    context, concat = guide.condition(cameras)
    for i, k in enumerate([0, 1, 3, 2]):
        one = slice(k, k + 1)
        alone = StableZero123Guidance(config, ReferenceView(views.cameras.select(one), views.rgb[one], views.mask[one]))
        expected = alone.condition(cameras.select(slice(i, i + 1)))
        torch.testing.assert_close(context[i : i + 1], expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(concat[i : i + 1], expected[1], rtol=1e-4, atol=1e-5)


def test_of_many_images_a_few_condition(checkpoint):
    views = several([float(a) for a in range(0, 360, 30)])
    guide = StableZero123Guidance(StableZero123Guidance.Config(checkpoint=checkpoint, max_conditions=3), views)
    assert len(guide.cond_cameras) == 3
    assert guide.cond_latents.shape[0] == 3


def test_decoder_is_loaded_when_images_are_requested(checkpoint):
    guide = guidance(checkpoint)
    assert guide.model.vae.decoder is None
    rendered = guide.evaluate(torch.rand(1, 16, 16, 3), orbit_cameras(10.0, 40.0), 0, torch.Generator().manual_seed(0))
    assert {name: tuple(p.shape) for name, p in rendered.items()} == dict.fromkeys(
        ("rendered", "noised", "denoised"), (1, 32, 32, 3)
    )


def test_record_names_file_hash_licence_and_precision(checkpoint):
    record = guidance(checkpoint, dtype="fp32").describe()
    assert record["path"] == Path(checkpoint).name, "and not where it lies: meshes and reports are passed on"
    assert len(record["sha256"]) == 64
    assert "Research" in record["license"]
    assert "unet float32" in record["dtype"]


def test_shared_networks_are_loaded_once(checkpoint):
    comp_rgb = torch.rand(2, 24, 24, 3)

    def seeded(dtype="auto"):
        torch.manual_seed(2)  # the input view is random
        return guidance(checkpoint, dtype=dtype)

    _, alone = guide_views(seeded(), comp_rgb)
    with sharing_networks():
        first, second, other = seeded(), seeded(), seeded("bf16")
        assert first.model is second.model
        assert other.model is not first.model
        cameras = orbit_cameras(10.0, 40.0)
        first.evaluate(torch.rand(1, 16, 16, 3), cameras, 0, torch.Generator().manual_seed(0))
        assert second.model.vae.decoder is not None
        assert torch.equal(guide_views(second, comp_rgb)[1], alone), "a decoder that one of them needed changes nothing"
    assert guidance(checkpoint).model is not first.model
    assert guidance(checkpoint).model is not guidance(checkpoint).model


def test_no_more_networks_are_kept_than_fit():
    made = []
    with sharing_networks():
        for key in "abcab":
            shared(key, lambda key=key: made.append(key))
    assert made == list("abcab"), "with room for two, the third drops the first"
    with sharing_networks():
        for key in "abab":
            shared(key, lambda key=key: made.append(key))
    assert made[5:] == ["a", "b"]


def test_views_near_the_input_can_weigh_less(checkpoint):
    guide = guidance(checkpoint, input_view_weight=0.2)
    cameras = orbit_cameras(5.0, torch.tensor([0.0, 30.0, 90.0, 180.0]))
    cosine = (cameras.positions / 3.8) @ (guide.cond_cameras.positions[0] / 3.8)
    expected = 0.2 + 0.8 * (1 - cosine.clamp(0, 1) ** 2)
    torch.testing.assert_close(guide.view_weights(cameras), expected)
    assert guidance(checkpoint).view_weights(cameras) is None

    def rows(**settings):
        torch.manual_seed(0)  # of the reference image
        rgb = torch.full((4, 24, 24, 3), 0.5, requires_grad=True)
        out = guidance(checkpoint, **settings)(rgb, cameras, 0, torch.Generator().manual_seed(0))
        return torch.autograd.grad(out.loss, rgb)[0]

    weighted = expected[:, None, None, None] * rows()
    torch.testing.assert_close(rows(input_view_weight=0.2), weighted, rtol=1e-2, atol=1e-6)


def test_samples_are_repeatable_images(checkpoint):
    guide = guidance(checkpoint)
    cameras = orbit_cameras(0.0, torch.tensor([90.0, 180.0]))
    first, again = (guide.sample(cameras, 2, torch.Generator().manual_seed(0)) for _ in range(2))
    assert first.shape == (2, 32, 32, 3)
    assert torch.equal(first, again)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_a_model_without_lift_has_no_scene(checkpoint):
    assert guidance(checkpoint).scene(1.0) is None
