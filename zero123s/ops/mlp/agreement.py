"""Whether the fused kernels compute on this machine what plain torch computes, tried once per kind of network."""

import functools
from itertools import pairwise

import torch
from torch import Tensor

from zero123s.ops import agreement
from zero123s.ops.mlp import reference


@functools.cache
def kernels_agree(
    kernels: str,
    device: torch.device,
    widths: tuple[int, ...],
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype],
    by_feature: bool,
    tf32: bool,
) -> bool:
    """Compare the kernels with plain torch in float64 on random points, once per process and arguments.

    Numbers near the kink of a ReLU change sides when they are rounded, a share of about the rounding error, so norms
    differ by its square root; a wrong kernel differs by more.

    Args:
        kernels: "relu" or "softplus" for the network and its gradients, "input gradient" for that of a ReLU network.
        device: where the kernels run.
        widths: of the input and of each layer's output.
        dtypes: of the input, of the matrices and of the products.
        by_feature: the input is stored column by column.
        tf32: float32 products may be rounded to TF32.

    Returns:
        True where they agree; otherwise, or where they cannot be compiled, False after one warning.
    """
    g = torch.Generator().manual_seed(0)
    in_type, matrix_type, compute = dtypes
    x = torch.randn(agreement.POINTS, widths[0], generator=g).to(device, in_type)
    x = x.t().contiguous().t() if by_feature else x
    weights = [((2 / a) ** 0.5 * torch.randn(b, a, generator=g)).to(device, matrix_type) for a, b in pairwise(widths)]
    rounding = torch.finfo(torch.float16 if tf32 and compute == torch.float32 else compute).eps
    name = f"The fused networks ({kernels}, widths {' '.join(map(str, widths))}, products in {_name(compute)}) are"
    return agreement.results_agree(
        name,
        device,
        lambda: _results(kernels, x, weights, compute),
        lambda: _results(kernels, x.double(), [w.double() for w in weights], None),
        2 * rounding**0.5,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _results(kernels: str, x: Tensor, weights: list[Tensor], compute: torch.dtype | None) -> dict[str, Tensor]:
    """Return what the kernels compute, and its gradients; without `compute`, what plain torch does."""
    from zero123s.ops.mlp import triton

    by_input = kernels == "input gradient"
    leaves = [x.clone().requires_grad_(not by_input), *(w.clone().requires_grad_() for w in weights)]
    x, *weights = leaves
    with torch.autocast(x.device.type, enabled=False):
        if by_input:
            y = triton.relu_input_gradient(x, weights, compute) if compute else _input_gradient(x, weights)
        else:
            y = (
                triton.mlp_forward(x, weights, kernels, compute)
                if compute
                else reference.plain_mlp(x, weights, kernels)
            )
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.device, y.dtype)
        needed = leaves[1:] if by_input else leaves
        names = [f"the gradient of matrix {i + 1}" for i in range(len(weights))]
        names = names if by_input else ["the gradient of the input", *names]
        return {"the result": y.detach(), **dict(zip(names, torch.autograd.grad(y, needed, grad), strict=True))}


def _input_gradient(x: Tensor, weights: list[Tensor]) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(reference.plain_mlp(leaf, weights, "relu").sum(), leaf, create_graph=True)[0]
