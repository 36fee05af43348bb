"""Every known way to get Zero123 nearly right, sprung on purpose: the recorded tensors must tell.

The costs that the mistakes have on the tiny model are in the comments, relative to the largest value; parity is 5e-6.
"""

import pytest
import torch
from diffusers import DDIMScheduler
from torch.nn import functional as F

from zero123s.diffusion import conditioning

SEEN = 5e-4  # a hundred times the tolerance of test_golden.py
TOLERANCE = 5e-6


def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.fixture
def ema(models):
    return models["ema"][0]


@pytest.fixture
def raw(models):
    return models["raw"][0]


def first(inputs):
    """Half of the batch: enough to see a mistake."""
    return tuple(x[:1] for x in inputs)


def eps(model, inputs):
    with torch.no_grad():
        return model.predict_noise(*inputs)


def with_pose(model, golden, pose):
    """The noise prediction when the context is made of another pose vector."""
    with torch.no_grad():
        return model.project(golden["clip_embed"][:1], pose)


POSES = {
    "in degrees": lambda pose: torch.cat([torch.rad2deg(pose[:, :1]), pose[:, 1:3], torch.rad2deg(pose[:, 3:])], 1),
    "the change of distance as fourth term": lambda pose: torch.cat([pose[:, :3], torch.zeros_like(pose[:, 3:])], 1),
    "sine and cosine exchanged": lambda pose: pose[:, [0, 2, 1, 3]],
}  # 1.4, .21, .10


@pytest.mark.parametrize("mistake", POSES)
def test_another_pose_vector_is_detected(mistake, ema, golden, inputs):
    noisy, t, context, concat = first(inputs)
    pose = golden["in/pose_stable"][:1]
    assert deviation(with_pose(ema, golden, pose), context) < TOLERANCE
    wrong = with_pose(ema, golden, POSES[mistake](pose))
    assert deviation(eps(ema, (noisy, t, wrong, concat)), golden["ema/eps_cond"][:1]) > SEEN


INPUTS = {
    "the image before the noisy latents": lambda x, t, c, i: (i, t, c, x),  # 1.1
    "scaled image latents": lambda x, t, c, i: (x, t, c, i * 0.18215),  # .35
    "the timestep off by one": lambda x, t, c, i: (x, t - 1, c, i),  # .0086
}


@pytest.mark.parametrize("mistake", INPUTS)
def test_other_inputs_of_the_denoiser_are_detected(mistake, ema, golden, inputs):
    assert deviation(eps(ema, INPUTS[mistake](*first(inputs))), golden["ema/eps_cond"][:1]) > SEEN


def test_plain_weights_instead_of_averages_are_noticed(raw, golden, inputs):
    assert deviation(eps(raw, first(inputs)), golden["ema/eps_cond"][:1]) > SEEN  # 1.2


def test_another_unconditional_branch_is_detected(ema, golden, inputs):
    noisy, t, context, concat = first(inputs)
    right = golden["ema/eps_uncond"][:1]
    assert deviation(eps(ema, (noisy, t, torch.zeros_like(context), torch.zeros_like(concat))), right) < TOLERANCE
    as_trained = golden["cc_null_train"][:1]  # training drops the embedding only: its pose and bias stay
    assert deviation(eps(ema, (noisy, t, as_trained, torch.zeros_like(concat))), right) > SEEN  # .34
    assert deviation(eps(ema, (noisy, t, torch.zeros_like(context), concat)), right) > SEEN  # .35


def test_another_number_of_heads_is_detected(ema, golden, inputs, monkeypatch):
    for module in ema.unet.modules():
        if hasattr(module, "heads"):
            monkeypatch.setattr(module, "heads", module.heads // 2)
    assert deviation(eps(ema, first(inputs)), golden["ema/eps_cond"][:1]) > SEEN  # .26


@pytest.mark.parametrize(("attribute", "value"), [("flip_sin_to_cos", False), ("downscale_freq_shift", 1)])
def test_another_time_embedding_is_detected(attribute, value, raw, golden, inputs, monkeypatch):
    monkeypatch.setattr(raw.unet.time_proj, attribute, value)
    assert deviation(eps(raw, first(inputs)), golden["raw/eps_cond"][:1]) > SEEN  # .040, .034


def test_another_epsilon_of_the_denoisers_norms_is_detected(raw, golden, inputs, monkeypatch):
    for module in raw.unet.modules():
        if isinstance(module, torch.nn.GroupNorm) and module.eps == 1e-5:
            monkeypatch.setattr(module, "eps", 1e-6)
    assert deviation(eps(raw, inputs), golden["raw/eps_cond"]) > TOLERANCE  # 9e-6: the faintest of all


def test_another_epsilon_of_the_autoencoders_norms_is_detected(raw, golden, image, monkeypatch):
    for module in raw.vae.encoder.modules():
        if isinstance(module, torch.nn.GroupNorm):
            monkeypatch.setattr(module, "eps", 1e-5)
    with torch.no_grad():
        assert deviation(raw.encode_image(image), golden["vae_mode"]) > TOLERANCE


def test_other_queries_of_the_cross_attention_are_detected(raw, golden, inputs):
    attention = raw.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    kept = attention.to_q.weight.clone()
    noisy, t, context, concat = inputs
    with torch.no_grad():
        attention.to_q.weight.copy_(-kept)
        one_token = raw.predict_noise(noisy, t, context, concat)
        three_tokens = raw.predict_noise(noisy, t, golden["in/ctx3"], concat)
        attention.to_q.weight.copy_(kept)
    # A softmax over a single token hides them altogether.
    assert deviation(one_token, golden["raw/eps_cond"]) < 2 * TOLERANCE
    assert deviation(three_tokens, golden["raw/eps_ctx3"]) > SEEN  # 2.1


def test_another_noise_schedule_is_detected(golden):
    betas = torch.linspace(0.00085, 0.0120, 1000, dtype=torch.float64)  # "linear" as diffusers understands it
    a = torch.cumprod(1 - betas, 0)[golden["in/t"]].float().view(-1, 1, 1, 1)
    wrong = a.sqrt() * golden["in/latents"] + (1 - a).sqrt() * golden["in/noise"]
    assert deviation(wrong, golden["x_t"]) > SEEN  # .067


@pytest.mark.parametrize(
    "resize", [{"mode": "bicubic"}, {"mode": "bicubic", "antialias": True}, {"mode": "bilinear", "align_corners": True}]
)
def test_another_resize_is_detected(resize, raw, golden, image):
    small = F.interpolate(image[:1], (224, 224), **resize)
    with torch.no_grad():
        embedding = raw.image_encoder(conditioning.clip_pixels(small, 224)).image_embeds[:, None]
    assert deviation(embedding, golden["clip_embed"][:1]) > SEEN  # .023, .035, .046


def test_another_image_encoder_activation_is_noticed(raw, golden, image, monkeypatch):
    with torch.no_grad():
        assert deviation(raw.embed_image(image[:1] * 2 - 1), golden["clip_embed"][:1]) > SEEN  # .96
        for layer in raw.image_encoder.vision_model.encoder.layers:
            monkeypatch.setitem(layer.mlp._modules, "activation_fn", torch.nn.GELU())
        assert deviation(raw.embed_image(image[:1]), golden["clip_embed"][:1]) > SEEN  # .0052


DDIM = {
    "clip_sample": True,  # 1.0
    "steps_offset": 0,  # .011
    "set_alpha_to_one": True,  # .0047
    "timestep_spacing": "trailing",  # 2.5
}


@pytest.mark.parametrize("mistake", [None, *DDIM])
def test_another_ddim_is_detected(mistake, ema, golden):
    right = {"clip_sample": False, "steps_offset": 1, "set_alpha_to_one": False, "timestep_spacing": "leading"}
    settings = right if mistake is None else right | {mistake: DDIM[mistake]}
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.0120, beta_schedule="scaled_linear", **settings)
    scheduler.set_timesteps(4)
    latents, context, concat = golden["in/x_T"][:1], golden["cc_stable"][:1], golden["vae_mode"][:1]
    with torch.no_grad():
        for t in scheduler.timesteps:
            noise = ema.guided_noise(latents, t.reshape(1), context, concat, 3.0)
            latents = scheduler.step(noise, t, latents).prev_sample
    off = deviation(latents, golden["ema/ddim4"][:1])
    assert off < TOLERANCE if mistake is None else off > SEEN
