"""Volume rendering of packed samples: weights, opacity, depth and any per-sample values along each ray."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.compositing import reference

__all__ = [
    "AT_ONCE",
    "FIRST",
    "FRONT_TO_BACK",
    "Composited",
    "composite",
    "composite_alpha",
    "visibility",
    "visibility_alpha",
    "visible_samples",
]

AT_ONCE = 1 << 21
"""Samples whose opacity is evaluated together; each takes some 400 bytes of features and hidden layers."""

FRONT_TO_BACK = 4 * AT_ONCE
"""Samples above which those in front are evaluated first: on a GPU that starts thirty operations more and waits twice."""

FIRST = 24
"""Samples of a ray that are evaluated first. Late in a run a ray has 39, light reaches 16.5, and 22 are evaluated."""

Composited = tuple[Float[Tensor, "S"], Float[Tensor, "R"], Float[Tensor, "R"], Float[Tensor, "R C"]]


def composite(
    sigmas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
    early_stop_eps: float = 0.0,
    backend: str = "auto",
) -> Composited:
    """Composite samples along rays from their densities (Max 1995).

    With a_i = 1 - exp(-sigma_i dt_i) and T_i = prod_{j<i} (1 - a_j), a sample's weight is T_i a_i. Differentiable in
    `sigmas` and `values`, through every output.

    Args:
        sigmas: S, densities >= 0 in 1 / world unit; the samples of one ray are consecutive.
        t_starts: S, distance along the ray at which each sample's interval starts, in world units.
        t_ends: S, where it ends.
        packed_info: R 2, first sample and number of samples of every ray; see `ray_marching.pack_info`.
        values: S C, what is accumulated: colours, normals or other features.
        early_stop_eps: samples with T_i below it have the weight 0.
        backend: "auto", "reference", "numba" (CPU), "triton" or "nerfacc" (CUDA).

    Returns:
        Weights S; opacity R in [0, 1]; depth R, the weighted sum of interval midpoints, not divided by opacity; and the
        weighted sums of `values`, R C.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import math, torch
        >>> from zero123s.ops.compositing import composite
        >>> sigmas = torch.tensor([math.log(2.0), math.log(2.0)])  # each interval of length 1 absorbs a half
        >>> t_starts, t_ends = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])
        >>> values = torch.tensor([[1.0], [0.0]])
        >>> weights, opacity, depth, rgb = composite(sigmas, t_starts, t_ends, torch.tensor([[0, 2]]), values)
        >>> [[round(x, 4) for x in t.flatten().tolist()] for t in (weights, opacity, depth, rgb)]
        [[0.5, 0.25], [0.75], [0.625], [0.5]]
    """
    chosen = _backend(sigmas, backend)
    if chosen in ("numba", "triton"):
        alphas = -torch.expm1(-sigmas * (t_ends - t_starts))
        return composite_alpha(alphas, t_starts, t_ends, packed_info, values, early_stop_eps, chosen)
    if chosen == "nerfacc":
        from zero123s.ops.compositing import nerfacc

        return nerfacc.composite(sigmas, t_starts, t_ends, packed_info, values, early_stop_eps)
    transmittance, alphas = reference.from_density(sigmas * (t_ends - t_starts), packed_info)
    return reference.accumulate(transmittance, alphas, t_starts, t_ends, packed_info, values, early_stop_eps)


def composite_alpha(
    alphas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
    early_stop_eps: float = 0.0,
    backend: str = "auto",
) -> Composited:
    """Composite samples along rays from their opacities, as NeuS derives them from a signed distance.

    As `composite`; differentiable in `alphas` and `values`.

    Args:
        alphas: S, opacity of each sample in [0, 1]; the samples of one ray are consecutive.
        t_starts: S, distance along the ray at which each sample's interval starts, in world units.
        t_ends: S, where it ends.
        packed_info: R 2, first sample and number of samples of every ray.
        values: S C, what is accumulated.
        early_stop_eps: samples with a transmittance below it have the weight 0.
        backend: "auto", "reference", "numba" (CPU), "triton" or "nerfacc" (CUDA).

    Returns:
        Weights S, opacity R, depth R and accumulated values R C, as `composite`.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.compositing import composite_alpha
        >>> alphas, t = torch.tensor([0.5, 1.0, 1.0]), torch.arange(3.0)
        >>> weights, opacity, *_ = composite_alpha(alphas, t, t + 1, torch.tensor([[0, 3], [3, 0]]), torch.ones(3, 1))
        >>> weights.tolist(), opacity.tolist()  # the third sample is hidden; the second ray has no samples
        ([0.5, 0.5, 0.0], [1.0, 0.0])
    """
    chosen = _backend(alphas, backend)
    if chosen == "triton":
        from zero123s.ops.compositing import triton

        return triton.composite_alpha(alphas, t_starts, t_ends, packed_info, values, early_stop_eps)  # type: ignore[return-value]
    if chosen == "nerfacc":
        from zero123s.ops.compositing import nerfacc

        return nerfacc.composite_alpha(alphas, t_starts, t_ends, packed_info, values, early_stop_eps)
    if chosen == "numba":
        from zero123s.ops.compositing import numba

        return numba.composite_alpha(alphas, t_starts, t_ends, packed_info, values, early_stop_eps)  # type: ignore[return-value]
    transmittance = reference.from_alpha(alphas, packed_info)
    return reference.accumulate(transmittance, alphas, t_starts, t_ends, packed_info, values, early_stop_eps)


@torch.no_grad()
def visible_samples(
    alphas_at: Callable[[Int[Tensor, "K"]], Float[Tensor, "K"]],
    ray_indices: Int[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    alpha_thre: float = 0.0,
    early_stop_eps: float = 1e-4,
    backend: str = "auto",
) -> Bool[Tensor, "S"]:
    """Return which samples are at least `alpha_thre` opaque and receive at least `early_stop_eps` of the light.

    Args:
        alphas_at: returns the opacities K of the samples at the indices K, at most `AT_ONCE`. Of more than `FRONT_TO_BACK`
            samples only the `FIRST` of each ray are evaluated, and those behind them that light reaches. `march_visible`
            evaluates fewer on a CPU.
        ray_indices: S, ray of every sample, ascending.
        packed_info: R 2, first sample and number of samples of every ray.
        alpha_thre: smallest opacity of a sample that is kept.
        early_stop_eps: smallest transmittance before a sample that is kept.
        backend: "auto", "reference", "numba" (CPU, the reference) or "triton" (CUDA).

    Returns:
        S, True for the samples to keep; without gradients.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.compositing import visible_samples
        >>> alphas = torch.tensor([0.0, 1.0, 1.0])
        >>> rays, packed_info = torch.zeros(3, dtype=torch.long), torch.tensor([[0, 3]])
        >>> visible_samples(lambda i: alphas[i], rays, packed_info, alpha_thre=0.01)
        tensor([False,  True, False])
    """

    def evaluate(index: Int[Tensor, "K"]) -> Float[Tensor, "K"]:
        return torch.cat([alphas_at(part) for part in index.split(AT_ONCE)])

    everything = torch.arange(len(ray_indices), device=ray_indices.device)
    if len(everything) <= FRONT_TO_BACK:
        return visibility_alpha(evaluate(everything), packed_info, alpha_thre, early_stop_eps, backend)
    is_first = everything - packed_info[:, 0].index_select(0, ray_indices) < FIRST
    index = torch.nonzero(is_first)[:, 0]
    first = evaluate(index)
    alphas = first.new_zeros(len(everything)).index_copy_(0, index, first)
    reached = visibility_alpha(alphas, packed_info, 0.0, early_stop_eps, backend)  # those behind absorb nothing yet
    index = torch.nonzero(reached & ~is_first)[:, 0]
    alphas.index_copy_(0, index, evaluate(index))
    return visibility_alpha(alphas, packed_info, alpha_thre, early_stop_eps, backend)


def _backend(x: Tensor, backend: str) -> str:
    if backend == "auto" and x.dtype != torch.float32:
        backend = "reference"  # the kernels are written for float32
    return backends.resolve("compositing", backend, x.device)


@torch.no_grad()
def visibility(
    sigmas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    alpha_thre: float = 0.0,
    early_stop_eps: float = 1e-4,
) -> Bool[Tensor, "S"]:
    """Return which samples are visible, from their densities: opaque enough, and reached by enough of the light.

    Args:
        sigmas: S, densities >= 0 in 1 / world unit.
        t_starts: S, start of each sample's interval in world units.
        t_ends: S, its end.
        packed_info: R 2, first sample and number of samples of every ray.
        alpha_thre: smallest opacity of a visible sample.
        early_stop_eps: smallest transmittance before a visible sample.

    Returns:
        S, True for visible samples; without gradients.

    Example:
        >>> import torch
        >>> from zero123s.ops.compositing import visibility
        >>> t = torch.arange(3.0)
        >>> visibility(torch.tensor([0.0, 50.0, 50.0]), t, t + 1, torch.tensor([[0, 3]]), alpha_thre=0.01)
        tensor([False,  True, False])
    """
    transmittance, alphas = reference.from_density(sigmas * (t_ends - t_starts), packed_info)
    return (transmittance >= early_stop_eps) & (alphas >= alpha_thre)


@torch.no_grad()
def visibility_alpha(
    alphas: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    alpha_thre: float = 0.0,
    early_stop_eps: float = 1e-4,
    backend: str = "auto",
) -> Bool[Tensor, "S"]:
    """Return which samples are visible, from their opacities; see `visibility`.

    Args:
        alphas: S, opacity of each sample in [0, 1].
        packed_info: R 2, first sample and number of samples of every ray.
        alpha_thre: smallest opacity of a visible sample.
        early_stop_eps: smallest transmittance before a visible sample.
        backend: "auto", "reference", "numba" (CPU), "triton" or "nerfacc" (CUDA); only "triton" has kernels of its own.

    Returns:
        S, True for visible samples; without gradients.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.
    """
    if _backend(alphas, backend) == "triton":
        from zero123s.ops.compositing import triton

        return triton.visibility_alpha(alphas, packed_info, alpha_thre, early_stop_eps)
    return (reference.from_alpha(alphas, packed_info) >= early_stop_eps) & (alphas >= alpha_thre)
