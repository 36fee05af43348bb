"""Winograd's convolution against torch's in double precision."""

import pytest
import torch
from torch.nn import functional as F

from zero123s.ops.convolution import conv3x3, gains_from_winograd


def example(batch, c, k, height, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, c, height, width, generator=generator)
    return x, torch.randn(k, c, 3, 3, generator=generator) / (9 * c) ** 0.5, torch.randn(k, generator=generator)


@pytest.mark.parametrize("shape", [(1, 3, 5, 4, 4), (2, 8, 4, 12, 20), (1, 4, 6, 8, 1040)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_a_convolution(shape, with_bias):
    x, weight, bias = example(*shape)
    bias = bias if with_bias else None
    x.requires_grad_()
    out = conv3x3(x, weight, bias, backend="numba")
    exact = x.detach().double().requires_grad_()
    reference = F.conv2d(exact, weight.double(), None if bias is None else bias.double(), padding=1)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(out, x, direction)
    (expected_grad,) = torch.autograd.grad(reference, exact, direction.double())
    for found, expected in ((out, reference), (grad, expected_grad)):
        assert found.dtype == torch.float32
        assert float((found - expected).abs().max() / expected.abs().max()) < 2e-5  # measured 8e-6 and less


def test_inputs_need_not_be_contiguous():
    x, weight, _ = example(2, 4, 4, 8, 8)
    turned = x.transpose(2, 3)
    torch.testing.assert_close(
        conv3x3(turned, weight, backend="numba"), F.conv2d(turned, weight, padding=1), rtol=1e-4, atol=1e-4
    )


def test_auto_takes_it_only_where_faster_and_differentiable():
    x, weight, bias = example(1, 96, 96, 32, 32)
    assert gains_from_winograd(x, weight)
    assert not gains_from_winograd(x[:, :, :30], weight)
    assert not gains_from_winograd(x.half(), weight.half())
    assert not gains_from_winograd(x, weight[:8])
    weight.requires_grad_()
    (grad,) = torch.autograd.grad(conv3x3(x, weight, bias).sum(), weight)  # frozen weights only: else torch's own
    assert grad.shape == weight.shape
