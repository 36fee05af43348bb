"""Alpha compositing of packed samples (NeRF, eq. 3), differentiable."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def _exclusive_sum(
    values: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"], ray_indices: Tensor
) -> Float[Tensor, "S"]:
    """Return, for every sample, the sum over the earlier samples of its ray."""
    # In double: the running total over all rays grows far beyond the differences that are wanted.
    total = values.double().cumsum(0) - values.double()
    first = packed_info[:, 0].clamp_max(max(len(values) - 1, 0))
    start = total[first] if len(values) else total.new_zeros(len(packed_info))
    return (total - start[ray_indices]).to(values.dtype)


def ray_indices_of(packed_info: Int[Tensor, "R 2"]) -> Int[Tensor, "S"]:
    """Return the ray of every sample."""
    return torch.repeat_interleave(torch.arange(len(packed_info), device=packed_info.device), packed_info[:, 1])


def transmittance(sigmas_dt: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]) -> Float[Tensor, "S"]:
    """Return exp(-sum of the optical thickness of the earlier samples of the ray)."""
    return torch.exp(-_exclusive_sum(sigmas_dt, packed_info, ray_indices_of(packed_info)))


def composite(
    sigmas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
) -> tuple[Float[Tensor, "S"], Float[Tensor, "R"], Float[Tensor, "R"], Float[Tensor, "R C"]]:
    """Return (weights, opacity, depth, accumulated values); differentiable in `sigmas` and `values`.

    w_i = T_i (1 - exp(-sigma_i dt_i)); depth = sum w_i (t_start + t_end) / 2, not divided by opacity.
    """
    thickness = sigmas * (t_ends - t_starts)
    weights = transmittance(thickness, packed_info) * -torch.expm1(-thickness)
    return weights, *_accumulate(weights, t_starts, t_ends, packed_info, values)


def composite_alpha(
    alphas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
) -> tuple[Float[Tensor, "S"], Float[Tensor, "R"], Float[Tensor, "R"], Float[Tensor, "R C"]]:
    """Return what `composite` returns, from opacities in [0, 1) instead of densities (NeuS)."""
    thickness = -torch.log1p(-alphas.clamp_max(1 - 1e-6))
    weights = transmittance(thickness, packed_info) * alphas
    return weights, *_accumulate(weights, t_starts, t_ends, packed_info, values)


def _accumulate(
    weights: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    middle = 0.5 * (t_starts + t_ends)
    columns = torch.cat([torch.ones_like(middle)[:, None], middle[:, None], values], dim=-1)
    sums = weights.new_zeros(len(packed_info), columns.shape[1])
    sums = sums.index_add(0, ray_indices_of(packed_info), weights[:, None] * columns)
    return sums[:, 0], sums[:, 1], sums[:, 2:]


@torch.no_grad()
def visibility(
    sigmas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    alpha_thre: float = 0.0,
    early_stop_eps: float = 1e-4,
) -> Bool[Tensor, "S"]:
    """Return which samples matter: alpha >= alpha_thre and transmittance >= early_stop_eps."""
    thickness = sigmas * (t_ends - t_starts)
    visible = transmittance(thickness, packed_info) >= early_stop_eps
    return visible & (-torch.expm1(-thickness) >= alpha_thre)
