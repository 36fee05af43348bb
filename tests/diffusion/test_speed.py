"""Faster ways to the same result."""

import copy
import shutil

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D

from zero123s.diffusion import speed
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123, save_zero123
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import parse_model_config
from zero123s.diffusion.speed import (
    Float32Conv2d,
    FusedResnetBlock,
    SingleTokenAttention,
    compute_in_float32,
    speed_up,
)
from zero123s.ops import convolution

SIZES = {
    "unet_config": {"params": {"image_size": 8, "model_channels": 32, "channel_mult": [1, 1], "context_dim": 32}},
    "first_stage_config": {"params": {"ddconfig": {"ch": 32, "ch_mult": [1, 1, 1], "resolution": 32}}},
    "cond_stage_config": {
        "params": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "output_dim": 32}
    },
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(parse_model_config(SIZES)).eval().requires_grad_(False)


def noise_of(model, n_tokens=1):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return model.guided_noise(draw(2, 4, 8, 8), torch.tensor([30, 700]), draw(2, n_tokens, 32), draw(2, 4, 8, 8), 3.0)


def encoder_gradient(model):
    rgb = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
    return torch.autograd.grad(model.encode_image(rgb).sum(), rgb)[0]


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_single_token_attention_changes_nothing(model, n_tokens):
    plain = copy.deepcopy(model)
    for attention in speed._cross_attentions(model.unet):
        attention.set_processor(SingleTokenAttention())
    assert relative(noise_of(model, n_tokens), noise_of(plain, n_tokens)) < 2e-6
    if n_tokens == 1:  # it ignores the queries, which have no influence
        for attention in speed._cross_attentions(model.unet):
            attention.to_q.weight.fill_(float("nan"))
        assert bool(noise_of(model).isfinite().all())


@pytest.mark.parametrize("channels_last", [False, True])
def test_fast_model_answers_as_the_plain_one(model, channels_last, monkeypatch):
    for name in ("MIN_CHANNELS", "MIN_PIXELS"):
        monkeypatch.setattr(convolution, name, 1)  # the small model has no large convolutions
    plain = copy.deepcopy(model)
    fast = speed_up(model, channels_last=channels_last)
    assert any(isinstance(m, Float32Conv2d) and m.winograd for m in fast.vae.encoder.modules())
    assert relative(noise_of(fast), noise_of(plain)) < 5e-5
    assert relative(encoder_gradient(fast), encoder_gradient(plain)) < 2e-4


def test_fused_residual_blocks_change_nothing(model):
    plain, expected = copy.deepcopy(model), (noise_of(model), encoder_gradient(model))
    for component in (model.unet, model.vae):
        speed._fuse_norms(component)
        assert not any(type(m) is ResnetBlock2D for m in component.modules())
        assert any(type(m) is FusedResnetBlock for m in component.modules())
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert relative(noise_of(model), expected[0]) < 1e-5
    assert relative(encoder_gradient(model), expected[1]) < 1e-5


def test_other_residual_blocks_stay_as_they_are():
    block = {"in_channels": 8, "temb_channels": 8, "groups": 4}
    assert speed._can_fuse(ResnetBlock2D(**block))
    for other in (
        {"time_embedding_norm": "scale_shift"},
        {"output_scale_factor": 2.0},
        {"down": True},
        {"non_linearity": "gelu"},
        {"dropout": 0.1},
        {"skip_time_act": True},
    ):
        assert not speed._can_fuse(ResnetBlock2D(**block, **other))


def test_non_native_half_precision_computes_in_float32(model, monkeypatch, tmp_path):
    save_zero123(model, tmp_path / "stable_zero123.safetensors")
    monkeypatch.setattr(
        "zero123s.diffusion.checkpoint.load_zero123.computes_natively", lambda dtype, device: dtype == torch.float32
    )
    stored = load_zero123(tmp_path / "stable_zero123.safetensors", dtype="bf16")
    assert {p.dtype for p in stored.parameters()} == {torch.bfloat16}
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.copy_(parameter.bfloat16())
    # Nothing but the weights is rounded.
    assert relative(noise_of(stored), noise_of(rounded)) < 1e-5
    assert relative(encoder_gradient(stored), encoder_gradient(rounded)) < 1e-5
    rgb = torch.rand(1, 3, 32, 32)
    assert relative(stored.embed_image(rgb), rounded.embed_image(rgb)) < 0.02  # transformers rounds its pixels
    assert relative(stored.sample(rgb, 0, 30, steps=1), rounded.sample(rgb, 0, 30, steps=1)) < 0.05


def test_computing_in_float32_keeps_names_and_bits(model):
    names = model.unet.state_dict()
    compute_in_float32(model.unet)
    after = model.unet.state_dict()
    assert names.keys() == after.keys()
    assert all(torch.equal(names[key], after[key]) for key in names)


def test_only_denoiser_and_encoder_are_compiled(model, monkeypatch):
    requested = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: requested.append(self))  # noqa: PLW0108
    speed_up(model)
    assert not requested
    speed_up(model, compiled=True)
    assert requested == [model.unet, model.vae.encoder]


def test_gradient_free_weights_share_a_buffer(model):
    rounded = copy.deepcopy(model)
    for component in (rounded.unet, rounded.vae):
        component.to(torch.bfloat16).float()
    stored = copy.deepcopy(rounded)
    for component in (stored.unet, stored.vae):
        component.to(torch.bfloat16)
        compute_in_float32(component)
    with torch.inference_mode():  # the buffer may be made here and must serve outside
        assert torch.equal(noise_of(stored), noise_of(rounded))
    with torch.no_grad():
        assert torch.equal(noise_of(stored), noise_of(rounded))
    assert torch.equal(encoder_gradient(stored), encoder_gradient(rounded))
    weight, x = torch.randn(4, 3).bfloat16(), torch.randn(2, 3)
    with torch.no_grad():
        assert speed.float32_weight(weight, x).data_ptr() == speed.float32_weight(weight, x).data_ptr()
    x.requires_grad_()
    first, second = speed.float32_weight(weight, x), speed.float32_weight(weight, x)
    assert first.data_ptr() != second.data_ptr()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_answers_as_the_plain_one(model):
    plain = copy.deepcopy(model)
    speed_up(model, compiled=True)
    with torch.no_grad():
        assert relative(noise_of(model), noise_of(plain)) < 1e-5
    assert relative(encoder_gradient(model), encoder_gradient(plain)) < 1e-4
