"""SJC, SDI, HiFA's image loss and Perp-Neg against their papers' formulas, on a Stable Diffusion of random weights."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from zero123s.config.parse import parse
from zero123s.errors import ConfigError
from zero123s.guidance.sdi import inversion_levels
from zero123s.guidance.stable_diffusion import StableDiffusionGuidance
from zero123s.guidance.view_prompts import PromptConfig, perp_neg_condition, perpendicular, prompts_of_views, views_of
from zero123s.ops.cameras import orbit_cameras

CAMERAS = orbit_cameras(torch.tensor([0.0, 10.0]), torch.tensor([30.0, 120.0]), 3.8)
EIGHT_VIEWS = orbit_cameras(torch.tensor([0.0] * 7 + [80.0]), torch.tensor([0.0, 45, 90, 135, 180, -45, -135, 0]), 3.8)


def guidance(folder, **settings):
    cfg = parse(StableDiffusionGuidance.Config, {"prompt": "a ball", "checkpoint": str(folder), **settings})
    return StableDiffusionGuidance(cfg, None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def render(n=2):
    return torch.rand(n, 16, 16, 3, generator=seeded(), requires_grad=True)


def step_parts(guide, rgb):
    """Latents, timesteps, noise and noised latents of the step with seed 1."""
    posterior_noise, t, noise, _ = guide.draw(len(rgb), 0, seeded(1))
    latents = guide.encode(rgb, posterior_noise)
    return latents, t, noise, guide.model.add_noise(latents.detach(), noise, t)


@pytest.mark.parametrize("reduced", [True, False])
def test_sjc_is_the_score_of_perturbed_latents(tiny_text_model, reduced):
    settings = {"variant": "sjc", "variance_reduction": reduced, "weighting": "uniform", "guidance_scale": 5.0}
    guide, rgb = guidance(tiny_text_model, **settings), render()
    out = guide(rgb, CAMERAS, 0, seeded(1))
    latents, t, noise, _ = step_parts(guide, rgb)
    a = guide.model.alphas_cumprod[t][:, None, None, None]
    sigma = ((1 - a) / a).sqrt()
    y = latents.detach() + sigma * noise
    eps = guide.guided_noise(y / (1 + sigma**2).sqrt(), t, guide.condition(CAMERAS))
    denoised = y - sigma * eps
    expected = -(denoised - (latents.detach() if reduced else y)) / sigma
    torch.testing.assert_close(out.grad_norm, expected.norm(), rtol=1e-3, atol=0)
    (through,) = torch.autograd.grad(latents, rgb, expected / 2, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(out.loss, rgb)[0], through, rtol=2e-2, atol=1e-5)


def test_inversion_goes_up_to_the_drawn_level():
    assert inversion_levels(350, 0.5, 10, 1000) == [-1, 1, 101, 201, 301, 400]
    assert inversion_levels(980, 0.9, 10, 1000)[-1] == 999
    assert inversion_levels(1, 0.0, 10, 1000) == [-1, 1]


def test_sdi_finds_the_noise_that_ddim_would_denoise(tiny_text_model):
    settings = {"variant": "sdi", "weighting": "uniform", "inversion_eta": 0.0, "guidance_scale": 3.0}
    guide, rgb = guidance(tiny_text_model, inversion_guidance_scale=2.0, **settings), render()
    out = guide(rgb, CAMERAS, 0, seeded(1))
    draws = guide.draw(2, 0, generator := seeded(1))
    share, _ = guide.variant.draw((2, 4, 8, 8), generator)
    latents = guide.encode(rgb, draws.posterior_noise).detach()
    alphas, condition, expected = guide.model.alphas_cumprod, guide.condition(CAMERAS), []
    for i in range(2):
        one, x, before = (condition[0][i : i + 1],), latents[i : i + 1], torch.tensor(1.0)
        levels = inversion_levels(int(draws.t[i]), float(share[i]), 10, 1000)
        for now, after in pairwise(levels):
            eps = guide.guided_noise(x, torch.tensor([max(now, 0)]), one, 2.0)
            x0 = (x - (1 - before).sqrt() * eps) / before.sqrt()
            before = alphas[after]
            x = before.sqrt() * x0 + (1 - before).sqrt() * eps
        found = (x - before.sqrt() * latents[i : i + 1]) / (1 - before).sqrt()
        a = alphas[draws.t[i]]
        noised = a.sqrt() * latents[i : i + 1] + (1 - a).sqrt() * found
        eps = guide.guided_noise(noised, draws.t[i : i + 1], one)
        expected.append(latents[i : i + 1] - (noised - (1 - a).sqrt() * eps) / a.sqrt())
    torch.testing.assert_close(out.grad_norm, torch.cat(expected).norm() / (4 * 8 * 8), rtol=1e-3, atol=0)


@pytest.mark.parametrize("micro_batch", [0, 1])
def test_image_loss_is_hifas(tiny_text_model, micro_batch):
    guide, rgb = guidance(tiny_text_model, image_loss=True, guidance_scale=3.0, micro_batch=micro_batch), render()
    out = guide(rgb, CAMERAS, 0, seeded(1))
    assert guidance(tiny_text_model)(rgb, CAMERAS, 0, seeded(1)).image_loss is None
    _, t, _, noised = step_parts(guide, rgb)
    a = guide.model.alphas_cumprod[t][:, None, None, None]
    eps = guide.guided_noise(noised, t, guide.condition(CAMERAS))
    denoised = guide.decode((noised - (1 - a).sqrt() * eps) / a.sqrt())
    expected = (1 - a) * (rgb.permute(0, 3, 1, 2) - denoised) * a.sqrt() / (1 - a).sqrt()
    torch.testing.assert_close(out.image_loss, 0.5 * expected.square().sum() / 2, rtol=1e-3, atol=1e-6)
    (grad,) = torch.autograd.grad(out.image_loss, rgb)
    torch.testing.assert_close(grad, expected.permute(0, 2, 3, 1) / 2, rtol=1e-3, atol=1e-5)


def test_image_loss_of_vsd_compares_two_denoisers(tiny_text_model):
    guide, rgb = guidance(tiny_text_model, variant="vsd", image_loss=True, guidance_scale=1.0), render()
    # Adapters start at zero: both denoisers agree on the same views.
    assert float(guide(rgb, CAMERAS, 0, seeded(1)).image_loss) < 1e-6


def test_image_loss_needs_a_defined_variant():
    with pytest.raises(ConfigError, match="not for variant sdi"):
        parse(StableDiffusionGuidance.Config, {"image_loss": True, "variant": "sdi"})


def test_latents_are_judged_without_the_encoder(tiny_text_model):
    guide = guidance(tiny_text_model, weighting="uniform")
    guide.encode = lambda *_: pytest.fail("a render of latents needs no encoder")
    rendered = torch.randn(2, 16, 16, 4, generator=seeded(), requires_grad=True)
    out = guide(rendered, CAMERAS, 0, seeded(1))
    latents = F.interpolate(rendered.permute(0, 3, 1, 2), (8, 8), mode="area")
    _, t, noise, _ = guide.draw(2, 0, seeded(1))
    noised = guide.model.add_noise(latents.detach(), noise, t)
    expected = guide.guided_noise(noised, t, guide.condition(CAMERAS)) - noise
    torch.testing.assert_close(out.grad_norm, expected.norm(), rtol=1e-4, atol=0)


def test_scale_may_start_at_the_conditional_prediction(tiny_text_model):
    x, t = torch.randn(2, 4, 8, 8, generator=seeded()), torch.tensor([100, 700])
    for scale_from, factor in (("unconditional", 7.0), ("conditional", 8.0)):
        guide = guidance(tiny_text_model, guidance_scale=7.0, scale_from=scale_from)
        condition = guide.condition(CAMERAS)
        uncond, cond = guide.predict(x, t, condition)
        expected = uncond + factor * (cond - uncond)
        torch.testing.assert_close(guide.guided_noise(x, t, condition), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------ prompts


def test_prompts_name_their_view_in_two_forms():
    cfg = PromptConfig(prompt="a cat", prompt_back="a tail")
    assert prompts_of_views(cfg) == ["a cat, front view", "a cat, side view", "a tail", "a cat, overhead view"]
    cfg = PromptConfig(prompt="a cat", view_words="prefix")
    assert prompts_of_views(cfg)[::2] == ["front view of a cat", "backside view of a cat"]


def test_thresholds_decide_the_prompt_of_a_view():
    cfg = PromptConfig(front_threshold=30.0, back_threshold=50.0)
    assert views_of(cfg, EIGHT_VIEWS).tolist() == [0, 1, 1, 2, 2, 1, 2, 3]
    assert views_of(PromptConfig(overhead_threshold=85.0), EIGHT_VIEWS)[-1] == 0


def test_perp_neg_interpolates_between_sides():
    contexts = torch.eye(4)[:, None]  # front, side, back, overhead
    found = perp_neg_condition(PromptConfig(), contexts, torch.zeros(1, 1, 4), EIGHT_VIEWS)
    expected = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0]]
    torch.testing.assert_close(found.positive[:6, 0], torch.tensor(expected))
    torch.testing.assert_close(found.positive[7, 0], contexts[3, 0])
    assert found.weights[7].tolist() == [0, 0], "a view from above has no negatives"
    decay = lambda a, b, c, r: a * torch.exp(torch.tensor(-b * r)) + c  # noqa: E731
    at_45 = torch.stack([-decay(4, 0.5, -2.426, 0.5), -decay(4, 0.5, -2.426, 0.5)])
    at_135 = torch.stack([-decay(1, 0.5, -0.606, 0.5), -decay(1, 0.5, 0.967, 0.5)])
    torch.testing.assert_close(found.weights[[1, 3]], torch.stack([at_45, at_135]))
    assert abs(float(found.weights[0, 0])) < 1e-3, "the front is not steered away from the front"


def test_perp_neg_adds_what_is_perpendicular(tiny_text_model):
    guide = guidance(tiny_text_model, perp_neg=True, guidance_scale=4.0)
    x, t = torch.randn(2, 4, 8, 8, generator=seeded()), torch.tensor([100, 700])
    condition = guide.condition(CAMERAS)
    predict = lambda context: guide.model.predict_noise(x, t, context)  # noqa: E731
    uncond = predict(guide.negative.expand_as(condition[0]))
    towards = predict(condition[0]) - uncond
    away = 0
    for i in range(2):
        e = predict(condition[1][:, i]) - uncond
        part = perpendicular(e, towards)
        assert (part * towards).flatten(1).sum(1).abs().max() < 1e-3
        away = away + condition[2][:, i, None, None, None] * part
    expected = uncond + 4.0 * (towards + away)
    torch.testing.assert_close(guide.guided_noise(x, t, condition), expected, rtol=1e-3, atol=1e-4)
    rgb = render()
    assert torch.isfinite(guide(rgb, CAMERAS, 0, seeded(1)).grad_norm)


def test_perp_neg_without_views_is_refused():
    with pytest.raises(ConfigError, match="needs view_dependent_prompting"):
        parse(StableDiffusionGuidance.Config, {"perp_neg": True, "view_dependent_prompting": False})
