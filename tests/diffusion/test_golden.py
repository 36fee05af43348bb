"""Parity with every tensor recorded from the original; test_traps.py shows that these tests see each known mistake."""

import torch
from torch.nn import functional as F

from zero123s.diffusion import conditioning
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.sampling import ddim_timesteps, sample_latents
from zero123s.guidance.sds import sds_loss, weighted_gradient

TOLERANCE = 5e-6  # relative to the largest value; worst measured 4.8e-6 (encoder gradient), noise prediction 1.6e-6
POSES = {"getT_RT", "getT_T", "ddim4_timesteps"}


def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


class Recorder:
    """A denoiser that keeps the latents that it was shown."""

    def __init__(self, model: Zero123Model) -> None:
        self.model = model
        self.recorded_latents: list[torch.Tensor] = []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def guided_noise(self, latents, *rest):
        self.recorded_latents.append(latents)
        return self.model.guided_noise(latents, *rest)


@torch.no_grad()
def encoders(model, golden, image):
    """What does not depend on the denoiser: (ours, as recorded) by key."""
    embedding = model.embed_image(image)
    zero123_pose = golden["in/pose_stable"].clone()
    zero123_pose[:, 3] = torch.tensor([0, 0.25])
    dropped = model.project(torch.zeros_like(embedding), golden["in/pose_stable"])
    return {
        "clip_pixels_0": conditioning.clip_pixels(image[:1], 224),
        "clip_embed": embedding,
        "vae_moments": model.vae.encode(image * 2 - 1).latent_dist.parameters,
        "vae_mode": model.encode_image(image),
        "vae_decode_0": model.vae.decode(golden["in/z_dec"][:1]).sample,
        "cc_stable": model.project(embedding, golden["in/pose_stable"]),
        "cc_zero123": model.project(embedding, zero123_pose),
        "cc_null_train": dropped,
        "x_t": model.add_noise(golden["in/latents"], golden["in/noise"], golden["in/t"]),
    }


@torch.no_grad()
def denoising(model, golden, inputs):
    """Outputs of the denoiser and of the samplers."""
    noisy, t, context, concat = inputs
    noise, signal = golden["in/noise"], model.alphas_cumprod[t]
    found = {
        "eps_cond": model.predict_noise(*inputs),
        "eps_uncond": model.predict_noise(noisy, t, torch.zeros_like(context), torch.zeros_like(concat)),
        "eps_cfg3": model.guided_noise(*inputs, 3.0),
        "eps_ctx3": model.predict_noise(noisy, t, golden["in/ctx3"], concat),
    }
    for family in ("stable", "zero123"):
        noise_pred = model.guided_noise(noisy, t, golden[f"cc_{family}"], concat, 3.0)
        grad = weighted_gradient(noise_pred - noise, signal)
        found[f"sds_grad_{family}"] = grad
        found[f"sds_loss_{family}"] = sds_loss(torch.zeros_like(grad), grad)
    recorder = Recorder(model)
    found["ddim4"] = sample_latents(recorder, golden["in/x_T"], context, concat, 4)
    found["ddim4_traj_std"] = torch.stack([x.std() for x in (*recorder.recorded_latents, found["ddim4"])])
    verbatim = sample_latents(model, golden["in/x_T"], context, concat, 4, sampler="original")
    return found | {"ddim_S4_verbatim_3steps": verbatim}


def training(model, golden, inputs):
    """The training loss and two of its gradients."""
    noisy, t, _, concat = inputs
    weight, conv_in = model.cc_projection.weight, model.unet.conv_in.weight
    weight.requires_grad_()
    conv_in.requires_grad_()
    try:
        context = model.project(golden["clip_embed"], golden["in/pose_stable"])
        loss = F.mse_loss(model.denoise(noisy, t, context, concat), golden["in/noise"])
        grad_weight, grad_conv_in = torch.autograd.grad(loss, [weight, conv_in])
    finally:
        weight.requires_grad_(False)
        conv_in.requires_grad_(False)
    return {"p_loss_simple": loss.detach(), "grad_cc_weight": grad_weight, "grad_conv_in": grad_conv_in}


def encoder_gradient(model, golden, image):
    """The recorded gradient is to the image in [-1, 1]; ours is to [0, 1]."""
    pixels = image[:1].clone().requires_grad_()
    latents = model.encode_image(pixels) * model.scale_factor
    return torch.autograd.grad((latents * golden["in/vjp_dir"][:1]).sum(), pixels)[0] / 2


def assert_reproduced(found, golden):
    off = {key: deviation(value, golden[key]) for key, value in found.items()}
    assert all(value < TOLERANCE for value in off.values()), {k: v for k, v in off.items() if v >= TOLERANCE}


def recorded(golden, *prefixes):
    """The recorded outputs, those with the other denoiser's prefix left out."""
    return {k for k in golden if k not in POSES and k.startswith(prefixes)}


def test_everything_recorded_with_the_plain_weights_is_reproduced(models, golden, image, inputs):
    model, _ = models["raw"]
    found = encoders(model, golden, image) | {"vae_encode_vjp_0": encoder_gradient(model, golden, image)}
    denoised = denoising(model, golden, inputs) | training(model, golden, inputs)
    found |= {"raw/" + key: value for key, value in denoised.items()}
    assert set(found) == recorded(golden, "") - recorded(golden, "in/", "ema/")
    assert_reproduced(found, golden)


def test_everything_recorded_with_the_average_is_reproduced(models, golden, inputs):
    model, _ = models["ema"]
    found = {"ema/" + key: value for key, value in denoising(model, golden, inputs).items()}
    del found["ema/eps_ctx3"]  # recorded with the plain weights only
    assert set(found) == recorded(golden, "ema/")
    assert_reproduced(found, golden)
    for part in ("vae", "image_encoder", "cc_projection"):  # has no average: the recorded outputs are the same
        assert_same_weights(getattr(model, part), getattr(models["raw"][0], part))


def test_half_precision_file_holds_the_same_weights(models):
    # So that all its outputs are the ones above; the original's weights are exact in fp16.
    assert_same_weights(models["half"][0], models["raw"][0])


def assert_same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_pose_vectors_match_the_original_loader(golden):
    rt = golden["getT_RT"]
    centres = -torch.einsum("nij,ni->nj", rt[:, :, :3], rt[:, :, 3])
    distance = centres.norm(dim=1)
    elevation = torch.rad2deg(torch.asin(centres[:, 2] / distance))
    azimuth = torch.rad2deg(torch.atan2(centres[:, 1], centres[:, 0]))
    target = (torch.arange(8) + 1) % 8
    reference = (elevation[target], azimuth[target], distance[target])
    pose = conditioning.pose_vector("zero123", *reference, elevation, azimuth, distance)
    torch.testing.assert_close(pose.float(), golden["getT_T"], rtol=0, atol=1e-6)
    stable = conditioning.pose_vector("stable-zero123", *reference, elevation, azimuth, distance)
    torch.testing.assert_close(stable[:, 3], torch.deg2rad(90 - elevation))


def test_ddim_visits_the_recorded_timesteps(golden):
    assert sorted(ddim_timesteps(4)) == golden["ddim4_timesteps"].tolist()
