"""Trilinear sampling: closed forms, and the kernel against grid_sample."""

import pytest
import torch

from zero123s.ops.volume_sampling import sample_volume

BACKENDS = ("reference", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_linear_function_is_reproduced_inside(backend):
    axis = (torch.arange(8) + 0.5) / 4 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.stack([x + 2 * y - z, 3 * z], dim=-1)[None]
    points = torch.rand(1, 200, 3) * 1.7 - 0.85
    px, py, pz = points.unbind(-1)
    expected = torch.stack([px + 2 * py - pz, 3 * pz], dim=-1)
    torch.testing.assert_close(sample_volume(volume, points, backend), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_outside(backend):
    volume, points = torch.ones(1, 4, 4, 4, 1), torch.tensor([[[1.5, 0, 0], [0, -1.3, 0], [9, 9, 9]]])
    assert (sample_volume(volume, points, backend) == 0).all()
    # half a cell beyond the last centre a quarter of a cell lies outside: three quarters remain
    edge = sample_volume(volume, torch.tensor([[[0.875, 0.0, 0.0]]]), backend)
    torch.testing.assert_close(edge, torch.tensor([[[0.75]]]))


def test_kernel_equals_reference_forward_and_backward():
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(3, 5, 6, 7, 4, generator=generator, requires_grad=True)
    points = torch.rand(3, 500, 3, generator=generator) * 2.6 - 1.3
    outputs = [sample_volume(volume, points, backend) for backend in BACKENDS]
    weight = torch.randn(outputs[0].shape, generator=generator)
    gradients = [torch.autograd.grad(out, volume, weight)[0] for out in outputs]
    torch.testing.assert_close(*outputs, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(*gradients, atol=5e-6, rtol=1e-5)


def test_gradcheck_in_double():
    volume = torch.randn(1, 3, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 20, 3, dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradcheck(lambda v: sample_volume(v, points, "reference"), (volume,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_points(backend):
    assert sample_volume(torch.ones(2, 3, 3, 3, 5), torch.zeros(2, 0, 3), backend).shape == (2, 0, 5)
