"""Volume rendering of packed samples: weights, opacity, depth and any per-sample values along each ray."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.compositing import reference

__all__ = ["Composited", "composite", "composite_alpha", "visibility", "visibility_alpha"]

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
    backends.resolve("compositing", backend, sigmas.device)
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
    backends.resolve("compositing", backend, alphas.device)
    transmittance = reference.from_alpha(alphas, packed_info)
    return reference.accumulate(transmittance, alphas, t_starts, t_ends, packed_info, values, early_stop_eps)


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
) -> Bool[Tensor, "S"]:
    """As `visibility`, from the opacity of each sample."""
    return (reference.from_alpha(alphas, packed_info) >= early_stop_eps) & (alphas >= alpha_thre)
