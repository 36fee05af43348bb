"""Feature volumes on the CPU: one volume per thread, features of a cell side by side in memory.

Against grid_sample and batched products: `benchmarks/lift_step.py`.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from zero123s.ops.kernels import launch
from zero123s.ops.volume_sampling.reference import LEAK, Medium

ZERO = np.float32(0)
ONE = np.float32(1)
HALF = np.float32(0.5)
DARK = np.float32(1e-5)
"""Transmittance below which the rest of a ray is left out."""
CLEAR = np.float32(1e-5)
"""Share of a ray's light below which a sample is empty: its features are not read and get no gradient."""


@numba.njit(cache=True, inline="always")
def _cell(position, size):
    """Return the lower cell index along one axis and the fraction towards the next."""
    scaled = ((position + ONE) * np.float32(size) - ONE) * HALF
    lower = np.floor(scaled)
    return np.int64(lower), scaled - np.float32(lower)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _gather(volume, point, out):
    """Write the features at one point, and return whether it lies inside."""
    depth, height, width, n_features = volume.shape
    x, fx = _cell(point[0], width)
    y, fy = _cell(point[1], height)
    z, fz = _cell(point[2], depth)
    out[:] = 0
    if x < -1 or y < -1 or z < -1 or x >= width or y >= height or z >= depth:
        return False
    for corner in range(8):
        i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
        if x + i < 0 or y + j < 0 or z + k < 0 or x + i >= width or y + j >= height or z + k >= depth:
            continue
        w = (fx if i else ONE - fx) * (fy if j else ONE - fy) * (fz if k else ONE - fz)
        row = volume[z + k, y + j, x + i]
        for c in range(n_features):
            out[c] += w * row[c]
    return True


@numba.njit(cache=True, fastmath=True, nogil=True)
def _scatter(grad_volume, point, grad):
    """Add the gradient at one point to the cells around it."""
    depth, height, width, n_features = grad_volume.shape
    x, fx = _cell(point[0], width)
    y, fy = _cell(point[1], height)
    z, fz = _cell(point[2], depth)
    if x < -1 or y < -1 or z < -1 or x >= width or y >= height or z >= depth:
        return
    for corner in range(8):
        i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
        if x + i < 0 or y + j < 0 or z + k < 0 or x + i >= width or y + j >= height or z + k >= depth:
            continue
        w = (fx if i else ONE - fx) * (fy if j else ONE - fy) * (fz if k else ONE - fz)
        row = grad_volume[z + k, y + j, x + i]
        for c in range(n_features):
            row[c] += w * grad[c]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _sample(part, n_parts, volume, points, out):
    for b in range(part, volume.shape[0], n_parts):
        for p in range(points.shape[1]):
            _gather(volume[b], points[b, p], out[b, p])


@numba.njit(cache=True, fastmath=True, nogil=True)
def _sample_backward(part, n_parts, grad_out, points, grad_volume):
    for b in range(part, grad_volume.shape[0], n_parts):
        for p in range(points.shape[1]):
            _scatter(grad_volume[b], points[b, p], grad_out[b, p])


@numba.njit(cache=True, fastmath=True, nogil=True, inline="always")
def _sigmoid_and_softplus(x):
    """Return both; softplus is the sigmoid's integral."""
    e = np.exp(-abs(x))
    if x > 0:
        return ONE / (ONE + e), x + np.log(ONE + e)
    return e / (ONE + e), np.log(ONE + e)


@numba.njit(cache=True, fastmath=True, nogil=True, inline="always")
def _density_at(densities, point):
    """Return the density at one point, and whether the point lies inside the volume."""
    depth, height, width = densities.shape
    x, fx = _cell(point[0], width)
    y, fy = _cell(point[1], height)
    z, fz = _cell(point[2], depth)
    if x < -1 or y < -1 or z < -1 or x >= width or y >= height or z >= depth:
        return ZERO, False
    density = ZERO
    for k in range(2):
        if z + k < 0 or z + k >= depth:
            continue
        for j in range(2):
            if y + j < 0 or y + j >= height:
                continue
            row = densities[z + k, y + j]
            left = row[x] if x >= 0 else ZERO
            right = row[x + 1] if x + 1 < width else ZERO
            w = (fy if j else ONE - fy) * (fz if k else ONE - fz)
            density += w * (left + fx * (right - left))
    return density, True


@numba.njit(cache=True, fastmath=True, nogil=True)
def _walk(densities, points, gain, shift, scale, fog, ray):
    """Write opacity, its slope over the density, and the light that arrives for every sample; return how many get any."""
    alphas, slopes, throughs = ray[0], ray[1], ray[2]
    through = ONE
    for s in range(points.shape[0]):
        alpha, slope = fog, ZERO
        density, inside = _density_at(densities, points[s])
        if inside:
            sigmoid, softplus = _sigmoid_and_softplus(gain * density - shift)
            clear = np.exp(-softplus * scale)
            alpha, slope = ONE - clear, clear * scale * sigmoid * gain
        alphas[s], slopes[s], throughs[s] = alpha, slope, through
        through *= ONE - alpha + LEAK
        if through < DARK:
            return s + 1
    return points.shape[0]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _composite(part, n_parts, volume, points, gain, shift, scale, out):
    n_rays, n_samples, n_features = points.shape[1], points.shape[2], volume.shape[-1]
    values = np.empty(n_features, np.float32)
    ray = np.empty((3, n_samples), np.float32)
    alphas, slopes, throughs = ray[0], ray[1], ray[2]
    fog = ONE - np.exp(-_sigmoid_and_softplus(-shift)[1] * scale)
    for b in range(part, volume.shape[0], n_parts):
        densities = volume[b, ..., 0].copy()
        for r in range(n_rays):
            n = _walk(densities, points[b, r], gain, shift, scale, fog, ray)
            for s in range(n):
                weight = alphas[s] * throughs[s]
                out[b, r, 0] += weight
                if slopes[s] > 0 and weight > CLEAR:
                    _gather(volume[b], points[b, r, s], values)
                    for c in range(1, n_features):
                        out[b, r, c] += weight * values[c]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _composite_backward(part, n_parts, volume, points, gain, shift, scale, grad_out, grad_volume):
    n_rays, n_samples, n_features = points.shape[1], points.shape[2], volume.shape[-1]
    values = np.empty(n_features, np.float32)
    ray = np.empty((3, n_samples), np.float32)
    alphas, slopes, throughs = ray[0], ray[1], ray[2]
    fog = ONE - np.exp(-_sigmoid_and_softplus(-shift)[1] * scale)
    for b in range(part, volume.shape[0], n_parts):
        densities = volume[b, ..., 0].copy()
        for r in range(n_rays):
            grad = grad_out[b, r]
            n = _walk(densities, points[b, r], gain, shift, scale, fog, ray)
            behind = ZERO
            for s in range(n - 1, -1, -1):
                weight, weight_grad = alphas[s] * throughs[s], grad[0]
                if slopes[s] > 0 and weight > CLEAR:
                    _gather(volume[b], points[b, r, s], values)
                    for c in range(1, n_features):
                        weight_grad += grad[c] * values[c]
                        values[c] = weight * grad[c]
                    alpha_grad = throughs[s] * weight_grad - behind / (ONE - alphas[s] + LEAK)
                    values[0] = alpha_grad * slopes[s]
                    _scatter(grad_volume[b], points[b, r, s], values)
                behind += weight * weight_grad


class _SampleVolume(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volume: Tensor, points: Tensor) -> Tensor:
        out = volume.new_zeros(*points.shape[:2], volume.shape[-1])
        launch(_sample, volume, points, out)
        ctx.save_for_backward(points)
        ctx.shape = volume.shape
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (points,) = ctx.saved_tensors
        grad = grad_out.new_zeros(ctx.shape)
        launch(_sample_backward, grad_out, points, grad)
        return grad, None


class _CompositeVolume(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volume: Tensor, points: Tensor, medium: Medium) -> Tensor:
        numbers = tuple(np.float32(x) for x in medium)
        out = volume.new_zeros(*points.shape[:2], volume.shape[-1])
        launch(_composite, volume, points, *numbers, out)
        ctx.save_for_backward(volume, points)
        ctx.numbers = numbers
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        volume, points = ctx.saved_tensors
        grad = torch.zeros_like(volume)
        launch(_composite_backward, volume, points, *ctx.numbers, grad_out, grad)
        return grad, None, None


def sample_volume(volume: Tensor, points: Tensor) -> Tensor:
    """Return the interpolated features; see `zero123s.ops.volume_sampling.sample_volume`."""
    return _SampleVolume.apply(volume, points)


def composite_volume(volume: Tensor, points: Tensor, medium: Medium) -> Tensor:
    """Return what rays accumulate; see `zero123s.ops.volume_sampling.composite_volume`."""
    return _CompositeVolume.apply(volume, points, medium)
