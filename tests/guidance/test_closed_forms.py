"""Variants of score distillation on a denoiser known in closed form: its data are a point mass, and every condition names the point.

A denoiser of the point mass at m predicts eps(x_t) = (x_t - sqrt(a_t) m) / sqrt(1 - a_t).
"""

from types import SimpleNamespace

import pytest
import torch

from zero123s.guidance.csd import CSD
from zero123s.guidance.ddim_inversion import invert
from zero123s.guidance.ism import ISM, interval_levels
from zero123s.guidance.nfsd import NFSD
from zero123s.guidance.sds import SDS, NoisedViews, prioritized_timesteps, rescale_guidance, threshold_noise

ALPHAS = torch.linspace(0.9995, 0.005, 1000, dtype=torch.float64)
T = torch.tensor([100, 700])
SHAPE = (2, 4, 3, 3)


def seeded(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LATENTS, NOISE, COND = (seeded(seed) for seed in range(3))
NEGATIVE, NULL = (seeded(seed, (1, *SHAPE[1:])).expand(SHAPE) for seed in (3, 4))


class PointMassGuidance:
    """A guidance whose denoiser predicts one image, its condition."""

    def __init__(self, scale=3.0, negative=NEGATIVE, null=NULL):
        self.cfg = SimpleNamespace(guidance_scale=scale, ism_delta_t=50, ism_delta_s=60)
        self.model = SimpleNamespace(alphas_cumprod=ALPHAS, n_timesteps=1000, predict_noise=self.predict_noise)
        self.images = negative, null

    @staticmethod
    def predict_noise(x, t, image):
        a = ALPHAS[t][:, None, None, None]
        return (x - a.sqrt() * image) / (1 - a).sqrt()

    def rows(self, image, condition):
        return (image[: len(condition[0])],)

    def unconditional(self, condition):
        return self.rows(self.images[0], condition)

    def null_condition(self, condition):
        return self.rows(self.images[1], condition)

    def denoiser_condition(self, condition):
        return condition

    def predict(self, noised, t, condition):
        return self.predict_noise(noised, t, *self.unconditional(condition)), self.predict_noise(noised, t, *condition)

    def guided_noise(self, noised, t, condition, scale=None):
        uncond, cond = self.predict(noised, t, condition)
        return uncond + (self.cfg.guidance_scale if scale is None else scale) * (cond - uncond)


def views(t=T, cond=COND):
    a = ALPHAS[t][:, None, None, None]
    return NoisedViews(LATENTS, NOISE, t, a.sqrt() * LATENTS + (1 - a).sqrt() * NOISE, (cond,), (), 1.0)


def ratio(t=T):
    """sqrt(a_t / (1 - a_t)): by how much of a difference of images two predictions differ."""
    a = ALPHAS[t][:, None, None, None]
    return (a / (1 - a)).sqrt()


def test_sds_points_from_the_image_to_the_render():
    guide = PointMassGuidance(scale=1.0)
    torch.testing.assert_close(SDS(guide, guide.cfg).residual(views()), ratio() * (LATENTS - COND))


def test_csd_is_blind_to_the_render():
    guide = PointMassGuidance()
    expected = 3.0 * ratio() * (NEGATIVE - COND)
    torch.testing.assert_close(CSD(guide, guide.cfg).residual(views()), expected)


def test_sds_is_csd_and_an_unconditional_part():
    guide = PointMassGuidance()
    unconditional = guide.predict_noise(views().noised, T, NEGATIVE) - NOISE
    rest = SDS(guide, guide.cfg).residual(views()) - CSD(guide, guide.cfg).residual(views())
    torch.testing.assert_close(rest, unconditional)


def test_nfsd_drops_the_noise_where_it_dominates():
    guide = PointMassGuidance()
    residual = NFSD(guide, guide.cfg).residual(views())
    towards = 3.0 * ratio() * (NULL - COND)
    low = guide.predict_noise(views().noised, T, NULL)[0] + towards[0]  # t = 100: the prediction itself
    high = (ratio() * (NEGATIVE - NULL) + towards)[1]  # t = 700: away from the negative prompt
    torch.testing.assert_close(residual, torch.stack([low, high]))


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_ism_compares_images_not_noise(scale):
    guide = PointMassGuidance(scale, negative=NULL)
    # DDIM is exact for a denoiser with one image: both points of the path have the same noise.
    torch.testing.assert_close(ISM(guide, guide.cfg).residual(views()), scale * ratio() * (NULL - COND))


def test_ism_of_one_image_is_nothing():
    guide = PointMassGuidance(5.0, negative=NULL)
    assert ISM(guide, guide.cfg).residual(views(cond=NULL)).abs().max() < 1e-10


def test_ism_reaches_the_lowest_level():
    guide = PointMassGuidance(1.0, negative=NULL)
    t = torch.tensor([1, 0])
    torch.testing.assert_close(ISM(guide, guide.cfg).residual(views(t)), ratio(t) * (NULL - COND), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("s", "levels"), [(0, [-1, 0]), (59, [-1, 59]), (60, [-1, 59, 60]), (150, [-1, 59, 119, 150])])
def test_intervals_end_at_their_level(s, levels):
    assert interval_levels(s, 60) == levels


def test_inversion_keeps_a_known_image():
    image = LATENTS[:1]
    x = invert(image, [-1, 99, 499, 999], ALPHAS, lambda x, t: PointMassGuidance.predict_noise(x, t, image))
    start = (1 - ALPHAS[0].sqrt()) / (1 - ALPHAS[0]).sqrt() * image  # eps of the image without noise, at t = 0
    a = ALPHAS[999]
    torch.testing.assert_close(x, a.sqrt() * image + (1 - a).sqrt() * start)


# ------------------------------------------------------------ what bounds a prediction


def test_rescaled_guidance_has_the_conditional_deviation():
    guided, cond = 4 * seeded(5), seeded(6)
    rescaled = rescale_guidance(guided, cond, 1.0)
    torch.testing.assert_close(rescaled.flatten(1).std(1), cond.flatten(1).std(1))
    torch.testing.assert_close(rescale_guidance(guided, cond, 0.0), guided)
    torch.testing.assert_close(rescale_guidance(guided, cond, 0.25), 0.25 * rescaled + 0.75 * guided)


def test_threshold_clamps_the_denoised_latents():
    a = ALPHAS[T][:, None, None, None]
    bounded = threshold_noise(NOISE, LATENTS, ALPHAS[T], 0.5)
    clean, before = ((LATENTS - (1 - a).sqrt() * eps) / a.sqrt() for eps in (bounded, NOISE))
    limit = before.flatten(1).abs().median(dim=1).values  # of 36 numbers: at most the quantile, which lies between two
    assert (clean.flatten(1).abs().amax(1) >= limit).all()
    is_small = before.abs() <= limit[:, None, None, None]
    torch.testing.assert_close(clean[is_small], before[is_small])
    torch.testing.assert_close(threshold_noise(NOISE, LATENTS, ALPHAS[T], 1.0), NOISE)


def test_dreamtime_falls_and_lingers_in_the_middle():
    t = torch.stack([prioritized_timesteps(1, 0.02, 0.98, ALPHAS, i / 400)[0] for i in range(401)])
    assert (int(t[0]), int(t[-1])) == (980, 20)
    assert (t.diff() <= 0).all()
    middle = ((t >= 500) & (t <= 800)).sum() / len(t)
    weight = ((1 - ALPHAS) / ALPHAS).sqrt()
    levels = torch.arange(1000)
    away = torch.where(levels > 800, (levels - 800) / 300, torch.where(levels < 500, (levels - 500) / 100, 0.0))
    weight = (weight * torch.exp(-0.5 * away.square()))[20:981]
    assert float(middle) == pytest.approx(float(weight[480:781].sum() / weight.sum()), abs=0.01)
