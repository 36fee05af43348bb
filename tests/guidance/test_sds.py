import torch

from zero123s.guidance.sds import sample_timesteps, sds_loss, weighted_gradient


def test_loss_gradient_is_the_mean_sds_gradient():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    noise, noise_pred = torch.randn(2, 3, 4, 5, 5, generator=generator, dtype=torch.float64)
    alphas = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    grad = weighted_gradient(noise_pred - noise, alphas)
    torch.testing.assert_close(grad[2], 0.9 * (noise_pred[2] - noise[2]))
    loss = sds_loss(latents, grad)
    torch.testing.assert_close(loss, 0.5 * grad.square().sum() / 3)
    loss.backward()
    torch.testing.assert_close(latents.grad, grad / 3)


def test_non_finite_entries_vanish_and_clipping_holds():
    noise_pred = torch.tensor([float("nan"), 10.0, -10.0, 0.1]).reshape(1, 4, 1, 1)
    grad = weighted_gradient(noise_pred, torch.tensor([0.0]), clip=1.0)
    torch.testing.assert_close(grad.flatten(), torch.tensor([0.0, 1.0, -1.0, 0.1]))


def test_timesteps_reach_both_ends_and_no_further():
    t = sample_timesteps(20000, 0.02, 0.98, 1000, torch.Generator().manual_seed(0))
    assert (int(t.min()), int(t.max())) == (20, 980)
