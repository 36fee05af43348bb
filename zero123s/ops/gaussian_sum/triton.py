"""Sums of 3D Gaussians at points on CUDA in Triton: one program per block of points, which visits every Gaussian.

All programs read the same Gaussians at about the same time, from the cache; lists of those nearby would cost more.
"""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import triton
import triton.language as tl
from torch import Tensor

from zero123s.ops.gaussian_sum.reference import MAX_POWER
from zero123s.ops.gpu_kernels import blocks, launch

_BLOCK = 128
"""Points of a program."""


@triton.jit(do_not_specialize=["n_points", "n_gaussians"])
def _sum(
    x, means, precisions, values, sums, gradients, n_points, n_gaussians, most,
    C: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum all Gaussians at a block of points, and the gradients of the first column."""
    n, c = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, CHANNELS)
    inside = n < n_points
    x0 = tl.load(x + 3 * n, mask=inside, other=0.0)
    x1 = tl.load(x + 3 * n + 1, mask=inside, other=0.0)
    x2 = tl.load(x + 3 * n + 2, mask=inside, other=0.0)
    total = tl.zeros((BLOCK, CHANNELS), tl.float32)
    gx, gy, gz = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for i in range(0, n_gaussians):
        dx, dy, dz = x0 - tl.load(means + 3 * i), x1 - tl.load(means + 3 * i + 1), x2 - tl.load(means + 3 * i + 2)
        at = precisions + 9 * i
        xx, xy, xz = tl.load(at), tl.load(at + 1), tl.load(at + 2)
        yy, yz, zz = tl.load(at + 4), tl.load(at + 5), tl.load(at + 8)
        px, py, pz = xx * dx + xy * dy + xz * dz, xy * dx + yy * dy + yz * dz, xz * dx + yz * dy + zz * dz
        power = 0.5 * (dx * px + dy * py + dz * pz)
        weight = tl.where(power <= most, tl.exp(-power), 0.0)
        value = tl.load(values + i * C + c, mask=c < C, other=0.0)
        total += weight[:, None] * value[None, :]
        weight *= tl.load(values + i * C)
        gx -= weight * px
        gy -= weight * py
        gz -= weight * pz
    tl.store(sums + n[:, None] * C + c[None, :], total, mask=inside[:, None] & (c < C)[None, :])
    tl.store(gradients + 3 * n, gx, mask=inside)
    tl.store(gradients + 3 * n + 1, gy, mask=inside)
    tl.store(gradients + 3 * n + 2, gz, mask=inside)


def gaussian_sum(x: Tensor, means: Tensor, precisions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum float32 Gaussians as the reference does; no gradients flow back."""
    n_values = values.shape[1]
    sums, gradients = x.new_empty(len(x), n_values), x.new_empty(len(x), 3)
    if len(x):
        inputs, sizes = (x, means, precisions, values), (len(x), len(means), MAX_POWER)
        constants = n_values, triton.next_power_of_2(max(n_values, 1)), _BLOCK
        launch(_sum, (blocks(len(x), _BLOCK),), *inputs, sums, gradients, *sizes, *constants)
    return sums, gradients
