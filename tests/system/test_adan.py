"""Adan against its algorithm written out."""

import torch

from zero123s.system.adan import Adan


def test_adan_follows_its_algorithm():
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Adan([p], lr=0.1, betas=(0.9, 0.8, 0.7), weight_decay=0.5, eps=1e-8)
    x, m, v, n, last = p.detach().clone(), 0, 0, 0, None
    for k in range(1, 5):
        g = torch.tensor([0.3 * k, -1.0 / k])
        difference = torch.zeros(2) if last is None else g - last
        m, v = 0.9 * m + 0.1 * g, 0.8 * v + 0.2 * difference
        n = 0.7 * n + 0.3 * (g + 0.8 * difference) ** 2
        step = (m / (1 - 0.9**k) + 0.8 * v / (1 - 0.8**k)) / ((n / (1 - 0.7**k)).sqrt() + 1e-8)
        x, last = (x - 0.1 * step) / (1 + 0.1 * 0.5), g
        p.grad = g.clone()
        optimizer.step()
    torch.testing.assert_close(p.detach(), x)


def test_adan_limits_the_norm_of_all_gradients():
    moved = []
    for gradient in (1000.0, 2000.0):
        p = torch.nn.Parameter(torch.zeros(1))
        optimizer = Adan([p], lr=0.1, max_grad_norm=1.0, eps=1.0)
        p.grad = torch.tensor([gradient])
        optimizer.step()
        moved.append(float(p))
    assert abs(moved[0] - moved[1]) < 1e-3
