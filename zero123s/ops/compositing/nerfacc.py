"""Compositing by nerfacc's kernels on CUDA."""

import torch
from jaxtyping import Float, Int
from nerfacc.volrend import accumulate_along_rays, render_transmittance_from_alpha, render_transmittance_from_density
from torch import Tensor

from zero123s.ops.compositing.reference import ray_of_sample

Composited = tuple[Float[Tensor, "S"], Float[Tensor, "R"], Float[Tensor, "R"], Float[Tensor, "R C"]]


def composite(
    sigmas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
    early_stop_eps: float,
) -> Composited:
    """Composite by density; see `zero123s.ops.compositing.composite`."""
    transmittance, alphas = render_transmittance_from_density(t_starts, t_ends, sigmas, packed_info=packed_info)
    return _accumulate(transmittance, alphas, t_starts, t_ends, packed_info, values, early_stop_eps)


def composite_alpha(
    alphas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
    early_stop_eps: float,
) -> Composited:
    """Composite by opacity; see `zero123s.ops.compositing.composite_alpha`."""
    transmittance = render_transmittance_from_alpha(alphas, packed_info=packed_info)
    return _accumulate(transmittance, alphas, t_starts, t_ends, packed_info, values, early_stop_eps)


def _accumulate(
    transmittance: Float[Tensor, "S"],
    alphas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
    early_stop_eps: float,
) -> Composited:
    weights = transmittance * alphas
    if early_stop_eps > 0.0:
        weights = torch.where(transmittance >= early_stop_eps, weights, 0.0)
    along = {"ray_indices": ray_of_sample(packed_info), "n_rays": packed_info.shape[0]}
    middle = 0.5 * (t_starts + t_ends)
    opacity = accumulate_along_rays(weights, None, **along)[:, 0]
    depth = accumulate_along_rays(weights, middle[:, None], **along)[:, 0]
    return weights, opacity, depth, accumulate_along_rays(weights, values, **along)
