"""Sums of 3D Gaussians at points on the CPU: every point sums only the Gaussians that reach its grid cell."""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from zero123s.ops.gaussian_sum.reference import MAX_POWER
from zero123s.ops.kernels import launch

CELLS = 64
"""Cells per axis of the grid around all Gaussians."""
_LIMIT, _HALF = np.float32(MAX_POWER), np.float32(0.5)


@njit(cache=True, nogil=True)
def _spans(means, reach, lower, cell, spans):
    """Write the first and last cell of every Gaussian along each axis."""
    for i in range(means.shape[0]):
        for a in range(3):
            spans[i, a, 0] = min(max(int((means[i, a] - reach[i, a] - lower[a]) / cell[a]), 0), CELLS - 1)
            spans[i, a, 1] = min(max(int((means[i, a] + reach[i, a] - lower[a]) / cell[a]), 0), CELLS - 1)


@njit(cache=True, nogil=True)
def _count(spans, counts):
    for i in range(spans.shape[0]):
        for cx in range(spans[i, 0, 0], spans[i, 0, 1] + 1):
            for cy in range(spans[i, 1, 0], spans[i, 1, 1] + 1):
                for cz in range(spans[i, 2, 0], spans[i, 2, 1] + 1):
                    counts[(cx * CELLS + cy) * CELLS + cz] += 1


@njit(cache=True, nogil=True)
def _fill(spans, next_place, members):
    for i in range(spans.shape[0]):
        for cx in range(spans[i, 0, 0], spans[i, 0, 1] + 1):
            for cy in range(spans[i, 1, 0], spans[i, 1, 1] + 1):
                for cz in range(spans[i, 2, 0], spans[i, 2, 1] + 1):
                    place = (cx * CELLS + cy) * CELLS + cz
                    members[next_place[place]] = i
                    next_place[place] += 1


@njit(cache=True, nogil=True)
def _sum(part, n_parts, x, lower, cell, start, members, means, precisions, values, sums, gradients):
    for p in range(part, x.shape[0], n_parts):
        cx = math.floor((x[p, 0] - lower[0]) / cell[0])
        cy = math.floor((x[p, 1] - lower[1]) / cell[1])
        cz = math.floor((x[p, 2] - lower[2]) / cell[2])
        if cx < 0 or cy < 0 or cz < 0 or cx >= CELLS or cy >= CELLS or cz >= CELLS:
            continue
        place = (cx * CELLS + cy) * CELLS + cz
        for m in range(start[place], start[place + 1]):
            i = members[m]
            dx, dy, dz = x[p, 0] - means[i, 0], x[p, 1] - means[i, 1], x[p, 2] - means[i, 2]
            px = precisions[i, 0, 0] * dx + precisions[i, 0, 1] * dy + precisions[i, 0, 2] * dz
            py = precisions[i, 1, 0] * dx + precisions[i, 1, 1] * dy + precisions[i, 1, 2] * dz
            pz = precisions[i, 2, 0] * dx + precisions[i, 2, 1] * dy + precisions[i, 2, 2] * dz
            power = _HALF * (dx * px + dy * py + dz * pz)
            if power > _LIMIT:
                continue
            weight = np.float32(math.exp(-power))
            for c in range(values.shape[1]):
                sums[p, c] += weight * values[i, c]
            weight *= values[i, 0]
            gradients[p, 0] -= weight * px
            gradients[p, 1] -= weight * py
            gradients[p, 2] -= weight * pz


class _Cells(NamedTuple):
    """Which Gaussians reach each cell of the grid around all of them."""

    means: Tensor
    reach: Tensor
    """Copies of what the lists were made from."""
    lower: Tensor
    size: Tensor
    """Lowest corner of the grid, and edges of a cell."""
    start: np.ndarray
    members: np.ndarray
    """A cell's Gaussians are `members[start[cell] : start[cell + 1]]`."""


_kept: list[_Cells] = []
"""The last call's: an export evaluates one set of Gaussians some 200 times, and lists take longer than most sums."""


def _cells_of(means: Tensor, reach: Tensor) -> _Cells:
    if _kept and torch.equal(_kept[0].means, means) and torch.equal(_kept[0].reach, reach):
        return _kept[0]
    lower = (means - reach).amin(0)
    size = ((means + reach).amax(0) - lower).clamp_min(1e-9) / CELLS * 1.0001
    spans, counts = np.empty((len(means), 3, 2), np.int64), np.zeros(CELLS**3, np.int64)
    _spans(means.numpy(), reach.numpy(), lower.numpy(), size.numpy(), spans)
    _count(spans, counts)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    members = np.empty(start[-1], np.int32)
    _fill(spans, start[:-1].copy(), members)
    _kept[:] = [_Cells(means.clone(), reach.clone(), lower, size, start, members)]
    return _kept[0]


def gaussian_sum(x: Tensor, means: Tensor, precisions: Tensor, values: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Sum float32 CPU Gaussians as the reference does; `reach` is the half box in which each one is above zero."""
    sums, gradients = x.new_zeros(len(x), values.shape[1]), x.new_zeros(len(x), 3)
    if len(means) == 0 or len(x) == 0:
        return sums, gradients
    cells = _cells_of(means, reach)
    arguments = (cells.lower, cells.size, cells.start, cells.members, means, precisions, values, sums, gradients)
    launch(_sum, x, *arguments)
    return sums, gradients
