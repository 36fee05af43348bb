"""Plain-torch compositing of packed samples: the definition that faster backends are tested against."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ray_of_sample(packed_info: Int[Tensor, "R 2"], n_samples: int | None = None) -> Int[Tensor, "S"]:
    """Return the ray index of every sample; with their number given, a GPU need not be asked for it."""
    rays = torch.arange(packed_info.shape[0], device=packed_info.device)
    return torch.repeat_interleave(rays, packed_info[:, 1], output_size=n_samples)


def exclusive_sum(x: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]) -> Float[Tensor, "S"]:
    """Return the sum of the earlier samples of the same ray."""
    if x.numel() == 0:
        return x
    if x.device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
        return _exclusive_sum_unpadded(x, packed_info)
    # Rays are padded to one length: differences of one global running sum would lose small rays to rounding.
    ray = ray_of_sample(packed_info, len(x))
    column = torch.arange(x.shape[0], device=x.device) - packed_info[ray, 0]
    padded = x.new_zeros(packed_info.shape[0], int(packed_info[:, 1].max()) + 1)
    padded = padded.index_put((ray, column + 1), x)
    if x.device.type == "cuda":  # CUDA's cumsum is not deterministic; a product with ones above the diagonal is
        ones = torch.ones(padded.shape[1], padded.shape[1], dtype=torch.float64, device=x.device).triu()
        return (padded.double() @ ones)[ray, column].to(x)
    return padded.cumsum(dim=1)[ray, column]


def _exclusive_sum_unpadded(x: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]) -> Float[Tensor, "S"]:
    """The same without asking a GPU for the longest ray: double precision loses no small ray to the running sum."""
    before = x.double()
    before = before.cumsum(0) - before
    first = packed_info[:, 0].clamp(max=len(x) - 1)  # of a ray without samples: never read
    return (before - before[first[ray_of_sample(packed_info, len(x))]]).to(x)


def from_density(
    optical_depth: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]
) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
    """Return transmittance before, and opacity of, each sample of the given optical depth sigma * dt."""
    return torch.exp(-exclusive_sum(optical_depth, packed_info)), -torch.expm1(-optical_depth)


def from_alpha(alphas: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]) -> Float[Tensor, "S"]:
    """Return the transmittance before each sample of the given opacity."""
    if alphas.numel() == 0:
        return alphas
    if alphas.device.type == "cuda" and not torch.is_grad_enabled():
        # As depths, whose sum asks a GPU for nothing; gradients would be cut where a sample is opaque.
        depths = -torch.log1p(-alphas.double().clamp(max=1 - 1e-12))
        return torch.exp(-exclusive_sum(depths, packed_info)).to(alphas)
    ray = ray_of_sample(packed_info, len(alphas))
    column = torch.arange(alphas.shape[0], device=alphas.device) - packed_info[ray, 0]
    padded = alphas.new_ones(packed_info.shape[0], int(packed_info[:, 1].max()) + 1)
    padded = padded.index_put((ray, column + 1), 1.0 - alphas)
    return padded.cumprod(dim=1)[ray, column]


def accumulate(
    transmittance: Float[Tensor, "S"],
    alphas: Float[Tensor, "S"],
    t_starts: Float[Tensor, "S"],
    t_ends: Float[Tensor, "S"],
    packed_info: Int[Tensor, "R 2"],
    values: Float[Tensor, "S C"],
    early_stop_eps: float,
) -> tuple[Float[Tensor, "S"], Float[Tensor, "R"], Float[Tensor, "R"], Float[Tensor, "R C"]]:
    """Return weights, opacity, depth and accumulated values, which keep the type of the weights."""
    weights = transmittance * alphas
    values = values.to(weights)  # under autocast colours are in half precision
    if early_stop_eps > 0.0:
        weights = torch.where(transmittance >= early_stop_eps, weights, 0.0)
    ray = ray_of_sample(packed_info, len(alphas))
    n_rays = packed_info.shape[0]
    opacity = weights.new_zeros(n_rays).index_add(0, ray, weights)
    depth = weights.new_zeros(n_rays).index_add(0, ray, weights * (0.5 * (t_starts + t_ends)))
    accumulated = weights.new_zeros(n_rays, values.shape[1]).index_add(0, ray, weights[:, None] * values)
    return weights, opacity, depth, accumulated
