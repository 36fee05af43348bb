"""Volume rendering of packed samples: weights, opacity, depth and any per-sample values along each ray."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.compositing import reference

__all__ = ["Composited", "composite", "composite_alpha", "visibility", "visibility_alpha", "visible_samples"]

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
    """Return weights, opacity, depth and accumulated values of rays with densities `sigmas` (Max 1995).

    Samples lie ray by ray; `packed_info` holds each ray's first sample and count. Depth is the weighted distance,
    not divided by opacity. Samples whose transmittance is below `early_stop_eps` weigh nothing. Differentiable in
    `sigmas` and `values`, through every output.
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
    """As `composite`, from the opacity in [0, 1] of each sample (NeuS)."""
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
    """Return which samples are at least `alpha_thre` opaque and reached by `early_stop_eps` of the light.

    `alphas_at` gives the opacity of the samples it is asked for: of all at once, or, on the CPU, front to back as
    long as light passes, which spares most of the evaluations inside and behind an opaque object.
    """
    if backends.resolve("compositing", backend, ray_indices.device) == "numba":
        from zero123s.ops.compositing import numba

        return numba.visible_samples(alphas_at, ray_indices, packed_info, alpha_thre, early_stop_eps)
    everything = torch.arange(len(ray_indices), device=ray_indices.device)
    return visibility_alpha(alphas_at(everything), packed_info, alpha_thre, early_stop_eps, backend)


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
    """Return which samples are at least `alpha_thre` opaque and reached by `early_stop_eps` of the light."""
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
    """As `visibility`, from the opacity of each sample."""
    if _backend(alphas, backend) == "triton":
        from zero123s.ops.compositing import triton

        return triton.visibility_alpha(alphas, packed_info, alpha_thre, early_stop_eps)
    return (reference.from_alpha(alphas, packed_info) >= early_stop_eps) & (alphas >= alpha_thre)
