"""3 x 3 convolution on the CPU by Winograd's F(4 x 4, 3 x 3): a quarter of the multiplications (Lavin, Gray 2016).

Each 4 x 4 tile of the output costs 36 products per pair of channels in place of 144: transform the 6 x 6 tiles of the
input, multiply 36 matrices, transform back. The transforms are numba kernels over whole rows of tiles, a few rows at a
time, so that the 36 matrices stay in the cache; the products are torch's.
"""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
import threading

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor

# numba's fallback threading layer must not be entered by two threads at once.
_lock = threading.Lock()
_TILE = 4
# Tiles whose 36 matrices are made at once: for 128 channels 4.7 MB in and 4.7 MB out.
_TILES_AT_ONCE = 256
_WEIGHT_TRANSFORM = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_F2, _F4, _F5, _F8 = (np.float32(n) for n in (2, 4, 5, 8))


def conv3x3(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "K C 3 3"], bias: Float[Tensor, "K"] | None = None
) -> Float[Tensor, "B K H W"]:
    """Convolve float32 images with zero padding of one pixel; differentiable in `x` only. H and W are multiples of 4."""
    return _Convolution.apply(x, weight, bias)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        # The gradient of a convolution is one with the kernel turned by 180 degrees and its channels exchanged.
        return _convolve(grad, weight.flip(2, 3).transpose(0, 1), None), None, None


@torch.no_grad()
def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, channels, height, width = x.shape
    n_out = weight.shape[0]
    # 36 matrices K C, in the order of the tile's rows and columns. Made anew each time: that is cheap, and kept they
    # would take four times the memory of the weights.
    transform = torch.kron(_WEIGHT_TRANSFORM, _WEIGHT_TRANSFORM)
    products = (transform @ weight.reshape(-1, 9).T).view(36, n_out, channels)
    out = x.new_empty(batch, n_out, height, width)
    rows, columns = height // _TILE, width // _TILE
    step = min(rows, max(1, _TILES_AT_ONCE // columns))
    offset = np.zeros(n_out, np.float32) if bias is None else bias.detach().numpy()
    tiles_in = torch.empty(36, channels, step * columns)
    tiles_out = torch.empty(36, n_out, step * columns)
    pixels, made = x.detach().contiguous().numpy(), out.numpy()
    for b in range(batch):
        for first in range(0, rows, step):
            n = min(step, rows - first) * columns
            v, m = tiles_in[:, :, :n], tiles_out[:, :, :n]
            with _lock:
                _transform_input(pixels[b], first, v.numpy())
            torch.bmm(products, v, out=m)
            with _lock:
                _transform_output(m.numpy(), offset, first, made[b])
    return out


@njit(cache=True, parallel=True, fastmath={"contract", "nsz"}, boundscheck=False)
def _transform_input(image, first, v):
    """Write the 36 coefficients of every 6 x 6 tile (stride 4, padded by one pixel) of some rows of tiles."""
    n_channels, height, width = image.shape
    columns = width // 4
    n_rows = v.shape[2] // columns
    for c in prange(n_channels):
        lines = np.zeros((6, width + 2), np.float32)
        mixed = np.empty((6, width + 2), np.float32)
        for row in range(n_rows):
            top = (first + row) * 4 - 1
            for i in range(6):
                y = top + i
                if 0 <= y < height:
                    lines[i, 1 : width + 1] = image[c, y]
                else:
                    lines[i, :] = 0
            for x in range(width + 2):
                d0, d1, d2 = lines[0, x], lines[1, x], lines[2, x]
                d3, d4, d5 = lines[3, x], lines[4, x], lines[5, x]
                mixed[0, x] = _F4 * d0 - _F5 * d2 + d4
                mixed[1, x] = d4 + d3 - _F4 * (d2 + d1)
                mixed[2, x] = d4 - d3 - _F4 * (d2 - d1)
                mixed[3, x] = d4 - d2 + _F2 * (d3 - d1)
                mixed[4, x] = d4 - d2 - _F2 * (d3 - d1)
                mixed[5, x] = _F4 * d1 - _F5 * d3 + d5
            start = row * columns
            for i in range(6):
                line = mixed[i]
                for j in range(columns):
                    x = 4 * j
                    d0, d1, d2 = line[x], line[x + 1], line[x + 2]
                    d3, d4, d5 = line[x + 3], line[x + 4], line[x + 5]
                    t = start + j
                    v[6 * i, c, t] = _F4 * d0 - _F5 * d2 + d4
                    v[6 * i + 1, c, t] = d4 + d3 - _F4 * (d2 + d1)
                    v[6 * i + 2, c, t] = d4 - d3 - _F4 * (d2 - d1)
                    v[6 * i + 3, c, t] = d4 - d2 + _F2 * (d3 - d1)
                    v[6 * i + 4, c, t] = d4 - d2 - _F2 * (d3 - d1)
                    v[6 * i + 5, c, t] = _F4 * d1 - _F5 * d3 + d5


@njit(cache=True, parallel=True, fastmath={"contract", "nsz"}, boundscheck=False)
def _transform_output(m, bias, first, image):
    """Turn 36 coefficients per tile into its 4 x 4 pixels."""
    n_channels, _, width = image.shape
    columns = width // 4
    n_rows = m.shape[2] // columns
    for k in prange(n_channels):
        mixed = np.empty((4, 6, columns), np.float32)
        for row in range(n_rows):
            start = row * columns
            for i in range(6):
                for j in range(columns):
                    t = start + j
                    m0, m1, m2 = m[i, k, t], m[6 + i, k, t], m[12 + i, k, t]
                    m3, m4, m5 = m[18 + i, k, t], m[24 + i, k, t], m[30 + i, k, t]
                    even, odd = m1 + m2, m1 - m2
                    far_even, far_odd = m3 + m4, m3 - m4
                    mixed[0, i, j] = m0 + even + far_even
                    mixed[1, i, j] = odd + _F2 * far_odd
                    mixed[2, i, j] = even + _F4 * far_even
                    mixed[3, i, j] = odd + _F8 * far_odd + m5
            for i in range(4):
                line = image[k, (first + row) * 4 + i]
                for j in range(columns):
                    m0, m1, m2 = mixed[i, 0, j], mixed[i, 1, j], mixed[i, 2, j]
                    m3, m4, m5 = mixed[i, 3, j], mixed[i, 4, j], mixed[i, 5, j]
                    even, odd = m1 + m2, m1 - m2
                    far_even, far_odd = m3 + m4, m3 - m4
                    line[4 * j] = m0 + even + far_even + bias[k]
                    line[4 * j + 1] = odd + _F2 * far_odd + bias[k]
                    line[4 * j + 2] = even + _F4 * far_even + bias[k]
                    line[4 * j + 3] = odd + _F8 * far_odd + m5 + bias[k]
