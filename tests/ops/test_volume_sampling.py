"""Feature volumes, sampled and composited: closed forms, and the kernels against plain torch."""

import pytest
import torch

from zero123s.ops.volume_sampling import Medium, composite_volume, sample_volume

BACKENDS = ("reference", "numba")
MEDIUM = Medium(gain=4.0, shift=6.0, scale=2.5)


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


@pytest.mark.parametrize("backend", BACKENDS)
def test_transmittance_follows_the_beer_lambert_law(backend):
    volume = torch.full((1, 4, 4, 4, 3), 1.2)
    volume[..., 1], volume[..., 2] = 0.25, -1.0
    points = torch.zeros(1, 1, 10, 3)
    points[..., 2] = torch.linspace(-0.7, 0.7, 10)
    clear = (1 - MEDIUM.opacity(torch.tensor(1.2))) ** 10
    expected = (1 - clear) * torch.tensor([1.0, 0.25, -1.0])
    torch.testing.assert_close(composite_volume(volume, points, MEDIUM, backend)[0, 0], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_in_front_hides_what_is_behind(backend):
    volume = torch.full((1, 16, 1, 1, 2), -9.0)
    volume[0, 4:7, ..., 0], volume[0, 4:7, ..., 1] = 9.0, 0.3
    volume[0, 10:13, ..., 0], volume[0, 10:13, ..., 1] = 9.0, 0.8
    along = (torch.arange(16) + 0.5) / 8 - 1
    points = torch.zeros(1, 2, 16, 3)
    points[0, 0, :, 2], points[0, 1, :, 2] = along, along.flip(0)
    composited = composite_volume(volume, points, MEDIUM, backend)[0]
    torch.testing.assert_close(composited, torch.tensor([[1.0, 0.3], [1.0, 0.8]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mean_density", [0.0, -3.0])  # the latter is clear but for a tenth, as trained volumes are
def test_compositing_kernel_equals_reference_forward_and_backward(mean_density):
    generator = torch.Generator().manual_seed(0)
    volume = 2 * torch.randn(3, 9, 8, 7, 5, generator=generator)
    volume[..., 0] += mean_density
    volume.requires_grad_()
    points = torch.rand(3, 200, 24, 3, generator=generator) * 2.4 - 1.2
    outputs = [composite_volume(volume, points, MEDIUM, backend) for backend in BACKENDS]
    weight = torch.randn(outputs[0].shape, generator=generator)
    gradients = [torch.autograd.grad(out, volume, weight)[0] for out in outputs]
    # Behind a transmittance of 1e-5 the kernel stops, samples of less than 1e-5 it skips; features are up to 8 here, gradients up to 6.5 (1.2e-5, 1e-4 off).
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)
    torch.testing.assert_close(*gradients, atol=5e-4, rtol=0)


def test_compositing_gradcheck_in_double():
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(1, 3, 3, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    points = torch.rand(1, 4, 5, 3, dtype=torch.float64, generator=generator) * 2 - 1
    assert torch.autograd.gradcheck(lambda v: composite_volume(v, points, MEDIUM, "reference"), (volume,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rays(backend):
    assert composite_volume(torch.ones(2, 3, 3, 3, 5), torch.zeros(2, 0, 4, 3), MEDIUM, backend).shape == (2, 0, 5)
