"""The chunked MLP: first and second derivatives, and its bf16 products."""

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.ops.mlp import mlp_forward, mlp_input_gradient, plain_mlp


def _layers(dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    sizes = [(5, 3), (4, 5), (2, 4)]
    weights = [torch.randn(s, generator=g, dtype=dtype).requires_grad_() for s in sizes]
    return torch.randn(7, 3, generator=g, dtype=dtype).requires_grad_(), weights


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_gradients(activation):
    x, weights = _layers(torch.float64)

    def function(x, *w):
        return mlp_forward(x, list(w), activation, chunk=3)

    assert torch.autograd.gradcheck(function, (x, *weights))
    assert torch.autograd.gradgradcheck(function, (x, *weights))


def test_the_chunked_gradients_equal_plain_torch():
    # gradcheck runs with create_graph off as well, but this compares every entry in float32
    x, weights = _layers(torch.float32)
    a = torch.autograd.grad(mlp_forward(x, weights, chunk=2).square().sum(), (x, *weights))
    b = torch.autograd.grad(plain_mlp(x, weights, "relu").square().sum(), (x, *weights))
    torch.testing.assert_close(a, b)


def test_bf16_is_close_and_bad_names_are_errors():
    x, weights = _layers(torch.float32)
    exact = mlp_forward(x, weights)
    assert (mlp_forward(x, weights, precision="bf16") - exact).abs().max() < 0.03 * exact.abs().max()
    with pytest.raises(ConfigError, match="no activation 'sin'"):
        mlp_forward(x, weights, "sin")
    with pytest.raises(ConfigError, match="Unknown MLP precision 'int8'"):
        mlp_forward(x, weights, precision="int8")


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_input_gradient_and_its_derivatives(activation):
    g = torch.Generator().manual_seed(0)
    sizes = [(5, 3), (4, 5), (1, 4)]
    weights = [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in sizes]
    x = torch.randn(7, 3, generator=g, dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(plain_mlp(x, weights, activation).sum(), x)
    torch.testing.assert_close(mlp_input_gradient(x, weights, activation, chunk=3), expected)
    # ReLU leaves nothing to differentiate by x
    inputs = weights if activation == "relu" else [x, *weights]

    def function(*tensors):
        points = x.detach() if activation == "relu" else tensors[0]
        return mlp_input_gradient(points, list(tensors[-3:]), activation, chunk=3)

    assert torch.autograd.gradcheck(function, inputs)


def test_a_single_layer_has_its_row_as_gradient():
    weight = torch.randn(1, 3, requires_grad=True)
    gradient = mlp_input_gradient(torch.randn(5, 3), [weight])
    assert torch.equal(gradient, weight.expand(5, 3))
    gradient.sum().backward()
    torch.testing.assert_close(weight.grad, torch.full((1, 3), 5.0))
