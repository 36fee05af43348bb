"""Closed forms of what Zero123's training draws, compares and averages."""

import copy

import pytest
import torch
from torch import nn

from zero123s.diffusion import training
from zero123s.diffusion.lora import add_lora, merge_lora
from zero123s.structures import PosedViews


def test_dropout_shares():
    embedding, latents = training.draw_dropout(100_000, 0.05, torch.Generator().manual_seed(0))
    assert float((embedding & ~latents).float().mean()) == pytest.approx(0.05, abs=0.004)
    assert float((embedding & latents).float().mean()) == pytest.approx(0.05, abs=0.004)
    assert float((~embedding & latents).float().mean()) == pytest.approx(0.05, abs=0.004)


def test_timesteps_prefer_noise_as_configured():
    t = training.draw_timesteps(50_000, 1000, 0.5, torch.Generator().manual_seed(0))
    assert t.min() == 0
    assert t.max() == 999
    assert float((t >= 500).float().mean()) == pytest.approx(0.75, abs=0.01)


def test_v_target_gives_back_the_noise(tiny_v_model):
    latents, noise = torch.randn(2, 3, 4, 8, 8)
    t = torch.tensor([10, 500, 980])
    v = training.denoising_target(tiny_v_model, latents, noise, t)
    noised = tiny_v_model.add_noise(latents, noise, t)
    signal = tiny_v_model.alphas_cumprod[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(signal.sqrt() * v + (1 - signal).sqrt() * noised, noise, atol=1e-5, rtol=0)
    torch.testing.assert_close(signal.sqrt() * noised - (1 - signal).sqrt() * v, latents, atol=1e-5, rtol=0)


def test_average_follows_with_warm_up():
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = training.WeightAverage(module, decay=0.5)
    nn.init.ones_(module.weight)
    expected = 0.0
    for n in range(12):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + 1 - decay
        average.update(module)
    assert float(average.averaged(module).weight) == pytest.approx(expected, abs=1e-6)
    assert float(module.weight) == 1.0
    other = training.WeightAverage(nn.Linear(1, 1, bias=False), decay=0.5)
    other.load_state_dict(average.state_dict())
    assert other.n_updates == 12
    torch.testing.assert_close(other.averages[0], average.averages[0])


def test_lift_loss_has_known_values():
    rgb, alpha = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    small = torch.nn.functional.avg_pool2d(rgb * 2 - 1, 4)
    cover = torch.nn.functional.avg_pool2d(alpha, 4)
    assert float(training.lift_loss(small, cover, rgb, alpha)) == pytest.approx(0, abs=1e-6)
    off = training.lift_loss(small + 0.5, cover - 0.25, rgb, alpha)
    assert float(off) == pytest.approx(0.5 * (0.5 + 0.25) + 0.25 + 0.0625, abs=1e-5)


def test_views_are_fitted_with_premultiplied_colours():
    rgba = torch.zeros(1, 2, 4, 4, 4)
    rgba[:, :, :, :2] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    rgba[:, :, :, 2:, :3] = torch.tensor([0.0, 0.0, 1.0])  # colour of nothing
    angles = torch.zeros(1, 2)
    fitted = training.fit_views(PosedViews(rgba, angles, angles, angles), 1)
    torch.testing.assert_close(fitted.rgba[0, 0, 0, 0], torch.tensor([1.0, 0.0, 0.0, 0.5]))


def test_two_processes_draw_what_one_draws(tiny_v_model):
    latents = torch.zeros(6, 4, 8, 8)
    whole = training.draw_noising(tiny_v_model, latents, 0.3, 0.5, torch.Generator().manual_seed(1))
    for rank in range(2):
        half = training.draw_noising(tiny_v_model, latents[:3], 0.3, 0.5, torch.Generator().manual_seed(1), (rank, 2))
        for mine, all_of_them in zip(half, whole, strict=True):
            assert torch.equal(mine, all_of_them[3 * rank : 3 * rank + 3])


def test_adapters_start_as_identity_and_merge(tiny_v_model):
    unet = copy.deepcopy(tiny_v_model.unet)
    names = set(unet.state_dict())
    x, t, context = torch.randn(2, 16, 8, 8), torch.tensor([5, 900]), torch.randn(2, 1, 32)
    before = unet(x, t, context).sample
    add_lora(unet, rank=2, alpha=4)
    torch.testing.assert_close(unet(x, t, context).sample, before)
    learning = [p for p in unet.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in learning) < 0.1 * sum(p.numel() for p in unet.parameters())
    for parameter in learning:
        nn.init.normal_(parameter, std=0.1)
    adapted = unet(x, t, context).sample
    assert not torch.allclose(adapted, before, atol=1e-3)
    merge_lora(unet)
    assert set(unet.state_dict()) == names
    torch.testing.assert_close(unet(x, t, context).sample, adapted, atol=1e-4, rtol=1e-4)
