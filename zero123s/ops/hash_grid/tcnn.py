"""Hash encoding by tiny-cuda-nn on CUDA, on our table: same layout, so that no parameter has to be moved."""

import functools

import tinycudann as tcnn
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from zero123s.errors import MissingDependencyError


@functools.cache
def _encoding(sizes: tuple[int, int, int, int, float], n_params: int, device: int) -> nn.Module:
    """Return tiny-cuda-nn's encoding of these sizes; raises MissingDependencyError when its layout is another."""
    names = ("n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution", "per_level_scale")
    with torch.cuda.device(device):
        config = {"otype": "HashGrid", **dict(zip(names, sizes, strict=True))}
        encoding = tcnn.Encoding(3, config, dtype=torch.float32)
    found = encoding.params.numel()
    if found != n_params:
        raise MissingDependencyError(
            f"This tiny-cuda-nn lays the hash grid out in {found} parameters instead of {n_params}; use backend: reference."
        )
    return encoding


def encode(
    x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], sizes: tuple[int, int, int, int, float]
) -> Float[Tensor, "N LF"]:
    """Interpolate the features of every level; twice differentiable in `x`, once in `table`.

    `sizes` are levels, features per level, log2 of the largest level, coarsest resolution and growth.
    """
    if x.shape[0] == 0:  # tiny-cuda-nn launches no empty kernel
        return x.new_zeros(0, sizes[0] * sizes[1]) + 0.0 * (x.sum() + table.sum())
    encoding = _encoding(sizes, table.numel(), x.device.index or 0)
    # The module's own parameters stay unused: ours take their place for the length of the call.
    return functional_call(encoding, {"params": table.reshape(-1)}, (x.contiguous(),)).to(table.dtype)


def position_gradient(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    grad: Float[Tensor, "N LF"],
    sizes: tuple[int, int, int, int, float],
) -> Float[Tensor, "N 3"]:
    """Return the gradient of `grad . encode(x)` by `x`, differentiable in table and `grad`."""
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (out,) = torch.autograd.grad(encode(x, table, sizes), x, grad, create_graph=keep_graph)
    return out
