"""Unit vectors on CUDA in Triton: one kernel each for forward and backward pass, in place of four and five operations."""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import torch
import triton
import triton.language as tl
from torch import Tensor

from zero123s.ops.gpu_kernels import blocks, launch

_BLOCK = 256


@triton.jit
def _load(v, n, of_vector, of_axis, inside):
    """Return the three coordinates of vectors whose strides are given."""
    at = v + n * of_vector
    x = tl.load(at, mask=inside, other=0.0)
    return x, tl.load(at + of_axis, mask=inside, other=0.0), tl.load(at + 2 * of_axis, mask=inside, other=0.0)


@triton.jit
def _store(v, n, of_vector, of_axis, inside, x, y, z):
    """Write the three coordinates of vectors."""
    at = v + n * of_vector
    tl.store(at, x, mask=inside)
    tl.store(at + of_axis, y, mask=inside)
    tl.store(at + 2 * of_axis, z, mask=inside)


@triton.jit(do_not_specialize=["n_vectors", "of_vector", "of_axis"])
def _unit(v, out, n_vectors, of_vector, of_axis, eps, BLOCK: tl.constexpr):
    """Divide vectors by the larger of their length and `eps`."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_vectors
    x, y, z = _load(v, n, of_vector, of_axis, inside)
    inverse = 1.0 / tl.sqrt(tl.maximum(x * x + y * y + z * z, eps * eps))
    _store(out, n, of_vector, of_axis, inside, x * inverse, y * inverse, z * inverse)


@triton.jit(do_not_specialize=["n_vectors", "of_vector", "of_axis"])
def _unit_backward(v, grad, out, n_vectors, of_vector, of_axis, eps, BLOCK: tl.constexpr):
    """Write (g - u (u . g)) / |v|, u the unit vector; of vectors shorter than `eps` g / eps."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_vectors
    x, y, z = _load(v, n, of_vector, of_axis, inside)
    gx, gy, gz = _load(grad, n, of_vector, of_axis, inside)
    squared = x * x + y * y + z * z
    inverse = 1.0 / tl.sqrt(tl.maximum(squared, eps * eps))
    x, y, z = x * inverse, y * inverse, z * inverse
    along = tl.where(squared > eps * eps, gx * x + gy * y + gz * z, 0.0)
    gx, gy, gz = (gx - along * x) * inverse, (gy - along * y) * inverse, (gz - along * z) * inverse
    _store(out, n, of_vector, of_axis, inside, gx, gy, gz)


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v: Tensor, eps: float) -> Tensor:
        ctx.eps = eps
        ctx.save_for_backward(v)
        out = torch.empty_like(v)
        launch(_unit, (blocks(len(v), _BLOCK),), v, out, len(v), *v.stride(), eps, _BLOCK)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (v,) = ctx.saved_tensors
        out = torch.empty_like(v)
        grad = out.copy_(grad) if grad.stride() != v.stride() else grad
        launch(_unit_backward, (blocks(len(v), _BLOCK),), v, grad, out, len(v), *v.stride(), ctx.eps, _BLOCK)
        return out, None


def unit(v: Tensor, eps: float) -> Tensor:
    """Scale float32 vectors to unit length; rows or columns of memory hold a vector."""
    flat = v.reshape(-1, 3)
    if flat.stride() not in ((3, 1), (1, len(flat))):
        flat = flat.contiguous()  # `empty_like` gives other strides to a tensor with gaps
    return _Unit.apply(flat, eps).view(v.shape)  # type: ignore[union-attr]
