"""Distillation from a prompt, on a Stable Diffusion of random weights, against the formulas written out."""

import pytest
import torch
from tiny_text_model import save_tiny_stable_diffusion

from zero123s.config.parse import parse
from zero123s.diffusion.text_model import load_text_model
from zero123s.errors import CheckpointError, ConfigError
from zero123s.guidance import GUIDANCES
from zero123s.guidance.combined import CombinedGuidance
from zero123s.guidance.sds import annealed_timesteps, step_weight, weighted_gradient
from zero123s.guidance.stable_diffusion import StableDiffusionGuidance
from zero123s.ops.cameras import orbit_cameras
from zero123s.structures import GuidanceOutput

CAMERAS = orbit_cameras(torch.tensor([0.0, 10.0, 20.0, 80.0]), torch.tensor([10.0, 100.0, -170.0, 0.0]), 3.8)


def guidance(folder, **settings):
    cfg = parse(StableDiffusionGuidance.Config, {"prompt": "a ball", "checkpoint": str(folder), **settings})
    return StableDiffusionGuidance(cfg, None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_gradient_is_the_formula(tiny_text_model):
    guide = guidance(tiny_text_model, guidance_scale=7.0)
    rgb = torch.rand(4, 16, 16, 3, generator=seeded(), requires_grad=True)
    out = guide(rgb, CAMERAS, 0, seeded(1))
    (grad,) = torch.autograd.grad(out.loss, rgb)

    model = guide.model
    posterior_noise, t, noise, _ = guide.draw(4, 0, seeded(1))
    dist = model.vae.encode(2 * rgb.permute(0, 3, 1, 2) - 1).latent_dist
    latents = model.vae.config.scaling_factor * (dist.mean + dist.std * posterior_noise)
    a = model.alphas_cumprod[t][:, None, None, None]
    noised = (a.sqrt() * latents + (1 - a).sqrt() * noise).detach()
    overrides = ("a ball, front view", "a ball, side view", "a ball, back view", "a ball, overhead view")
    with torch.no_grad():
        eps = [model.unet(noised, t, encoder_hidden_states=model.embed(w)).sample for w in (overrides, [""] * 4)]
    expected = (1 - a) * (eps[1] + 7.0 * (eps[0] - eps[1]) - noise)
    (through,) = torch.autograd.grad(latents, rgb, expected / 4)
    torch.testing.assert_close(grad, through, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(out.grad_norm, expected.norm(), rtol=1e-4, atol=0)


def test_v_prediction_becomes_noise(tmp_path):
    model = load_text_model(str(save_tiny_stable_diffusion(tmp_path, "v_prediction")))
    x, noise = torch.randn(2, 2, 4, 8, 8, generator=seeded())
    t = torch.tensor([10, 900])
    a = model.alphas_cumprod[t][:, None, None, None]
    velocity = a.sqrt() * noise - (1 - a).sqrt() * x
    model.unet.forward = lambda *_, **__: type("Out", (), {"sample": velocity})()
    torch.testing.assert_close(model.predict_noise(model.add_noise(x, noise, t), t, model.embed(["", ""])), noise)


def test_weights_and_normalisation():
    a = torch.tensor([0.25, 0.64])
    torch.testing.assert_close(step_weight(a, "sds"), torch.tensor([0.75, 0.36]))
    torch.testing.assert_close(step_weight(a, "uniform"), torch.ones(2))
    torch.testing.assert_close(step_weight(a, "fantasia3d"), torch.tensor([0.375, 0.288]))
    noise_pred = torch.randn(2, 4, 3, 3, generator=seeded())
    grad = weighted_gradient(noise_pred, a, normalize=True)
    torch.testing.assert_close(grad.flatten(1).norm(dim=1), torch.ones(2))
    torch.testing.assert_close(grad[0], noise_pred[0] / noise_pred[0].norm())


def test_timesteps_come_down_as_configured():
    at = lambda mode, progress: annealed_timesteps(2, 0.1, 0.9, 1000, progress, mode).tolist()  # noqa: E731
    assert [at("linear", p)[0] for p in (0, 0.5, 1)] == [900, 500, 100]
    assert [at("sqrt", p)[0] for p in (0, 0.25, 1)] == [900, 500, 100]
    assert at("linear", 0.5) == [500, 500], "all views alike"


def test_annealing_ends_at_anneal_steps(tiny_text_model):
    settings = {"timesteps": "linear", "anneal_steps": 100, "min_step_percent": 0.1, "max_step_percent": 0.9}
    guide = guidance(tiny_text_model, **settings)
    assert [int(guide.timesteps(1, step, seeded())) for step in (0, 50, 100, 500)] == [900, 500, 100, 100]


@pytest.mark.parametrize("variant", ["sds", "vsd"])
def test_micro_batches_equal_the_whole_batch(tiny_text_model, variant):
    found = []
    for size in (0, 1, 3):
        guide = guidance(tiny_text_model, micro_batch=size, variant=variant)
        rgb = torch.rand(4, 16, 16, 3, generator=seeded(), requires_grad=True)
        out = guide(rgb, CAMERAS, 0, seeded(1))
        found.append((*torch.autograd.grad(out.loss, rgb), out.loss.detach(), out.grad_norm))
    for part in found[1:]:
        for a, b in zip(part, found[0], strict=True):
            assert (a - b).norm() < 1e-4 * b.norm()


def test_vsd_starts_as_sds_and_learns_renderings(tiny_text_model):
    guide = guidance(tiny_text_model, variant="vsd", guidance_scale=1.0, lora_lr=1e-2)
    before = {k: v.clone() for k, v in guide.model.state_dict().items()}
    rgb = torch.rand(2, 16, 16, 3, generator=seeded())
    cameras = CAMERAS.select(slice(0, 2))
    out = guide(rgb, cameras, 0, seeded(1))
    assert float(out.grad_norm) < 1e-4, "adapters start at zero: both networks agree"
    assert float(guide(rgb, cameras, 1, seeded(1)).grad_norm) > 1e-3, "the copy has learned a step"
    context, losses = guide.positive[:2], []
    latents = guide.encode(rgb, torch.zeros(2, 4, 8, 8))
    for step in range(60):
        guide.variant.begin(step + 2, cameras)
        score = guide.variant.score
        losses.append(score.accumulate(latents, (context,), *score.draw(latents.shape, seeded(step % 3))))
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    assert all(torch.equal(v, before[k]) for k, v in guide.model.state_dict().items()), "the prior stays as it is"

    again = guidance(tiny_text_model, variant="vsd", guidance_scale=1.0, lora_lr=1e-2)
    again.load_state(guide.state())
    assert torch.equal(again(rgb, cameras, 2, seeded(2)).grad_norm, guide(rgb, cameras, 2, seeded(2)).grad_norm)
    assert torch.equal(again(rgb, cameras, 3, seeded(3)).grad_norm, guide(rgb, cameras, 3, seeded(3)).grad_norm)


class Constant(StableDiffusionGuidance):
    """Says one thing."""

    def __init__(self, cfg, reference, device="cpu"):
        self.n_calls = 0

    def __call__(self, comp_rgb, cameras, step, generator):
        self.n_calls += 1
        return GuidanceOutput(2.0 * comp_rgb.sum(), torch.tensor(3.0), torch.zeros(len(cameras), dtype=torch.long))


def test_combined_guidances_are_a_weighted_sum(tiny_text_model, monkeypatch):
    monkeypatch.setitem(GUIDANCES._classes, "constant", Constant)
    parts = [{"type": "constant"}, {"type": "constant", "weight": [0, 0.5, 0.0, 10]}]
    cfg = parse(CombinedGuidance.Config, {"guidances": parts})
    CombinedGuidance.check(cfg)
    both = CombinedGuidance(cfg, None)
    rgb = torch.ones(1, 2, 2, 3, requires_grad=True)
    out = both(rgb, CAMERAS.select(slice(0, 1)), 0, seeded())
    torch.testing.assert_close(torch.autograd.grad(out.loss, rgb)[0], torch.full_like(rgb, 3.0))
    assert float(out.grad_norm) == pytest.approx((9 + 2.25) ** 0.5)
    both(rgb, CAMERAS.select(slice(0, 1)), 10, seeded())
    assert [part.n_calls for part in both.parts] == [2, 1], "what has no weight is not evaluated"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prompt": " "}, ConfigError, "prompt of stable-diffusion-guidance is empty"),
        ({"prompt": "x", "checkpoint": "/nowhere"}, CheckpointError, "give a diffusers folder"),
    ],
)
def test_mistakes_are_reported_before_anything_is_loaded(settings, error, message):
    with pytest.raises(error, match=message):
        StableDiffusionGuidance.requirements(parse(StableDiffusionGuidance.Config, settings))


def test_mistakes_in_parts_name_their_place():
    for parts, message in (
        ([], "guidances is empty"),
        (
            [{"type": "stable-difusion-guidance"}],
            r"guidances\.0\.settings_type: .*Did you mean 'stable-diffusion-guidance'",
        ),
        (
            [{"type": "stable-diffusion-guidance", "settings": {"promt": "x"}}],
            r"Unknown key .*guidances\.0\.settings\.promt",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            CombinedGuidance.check(parse(CombinedGuidance.Config, {"guidances": parts}))
