"""The chunked MLP: first and second derivatives, and its bf16 products."""

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.ops.mlp import mlp_forward, plain_mlp


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
