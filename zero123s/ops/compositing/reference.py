"""Plain-torch compositing of packed samples: the definition that faster backends are tested against."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ray_of_sample(packed_info: Int[Tensor, "R 2"], n_samples: int | None = None) -> Int[Tensor, "S"]:
    """Return the ray index of every sample.

    Args:
        packed_info: R 2, first sample and number of samples of every ray.
        n_samples: their total, if known: without it, the host waits for a GPU to count them.

    Returns:
        S, ascending.

    Example:
        >>> import torch
        >>> from zero123s.ops.compositing.reference import ray_of_sample
        >>> ray_of_sample(torch.tensor([[0, 2], [2, 0], [2, 1]]))
        tensor([0, 0, 2])
    """
    rays = torch.arange(packed_info.shape[0], device=packed_info.device)
    return torch.repeat_interleave(rays, packed_info[:, 1], output_size=n_samples)


def exclusive_sum(x: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]) -> Float[Tensor, "S"]:
    """Return the sum over the earlier samples of the same ray.

    Args:
        x: S, values of the samples, ray by ray.
        packed_info: R 2, first sample and number of samples of every ray.

    Returns:
        S, differentiable.

    Example:
        >>> import torch
        >>> from zero123s.ops.compositing.reference import exclusive_sum
        >>> exclusive_sum(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([[0, 3], [3, 1]]))
        tensor([0., 1., 3., 0.])
    """
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
    """The same without waiting for the longest ray; double precision keeps small addends of the running sum."""
    before = x.double()
    before = before.cumsum(0) - before
    first = packed_info[:, 0].clamp(max=len(x) - 1)  # of a ray without samples: never read
    return (before - before[first[ray_of_sample(packed_info, len(x))]]).to(x)


def from_density(
    optical_depth: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]
) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
    """Return transmittance before, and opacity of, each sample.

    Args:
        optical_depth: S, sigma * dt of each sample, ray by ray.
        packed_info: R 2, first sample and number of samples of every ray.

    Returns:
        Transmittance S and opacity S, in [0, 1].
    """
    return torch.exp(-exclusive_sum(optical_depth, packed_info)), -torch.expm1(-optical_depth)


def from_alpha(alphas: Float[Tensor, "S"], packed_info: Int[Tensor, "R 2"]) -> Float[Tensor, "S"]:
    """Return the transmittance before each sample.

    Args:
        alphas: S, opacity of each sample in [0, 1], ray by ray.
        packed_info: R 2, first sample and number of samples of every ray.

    Returns:
        S, in [0, 1].
    """
    if alphas.numel() == 0:
        return alphas
    if alphas.device.type == "cuda" and not torch.is_grad_enabled():
        # As depths, whose sum does not wait for a GPU; gradients would be cut where a sample is opaque.
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
    """Return weights and their sums along each ray; see `zero123s.ops.compositing.composite`.

    Args:
        transmittance: S, before each sample, in [0, 1].
        alphas: S, opacity of each sample in [0, 1].
        t_starts: S, start of each sample's interval in world units.
        t_ends: S, its end.
        packed_info: R 2, first sample and number of samples of every ray.
        values: S C, what is accumulated.
        early_stop_eps: samples with a transmittance below it have the weight 0; 0 = all count.

    Returns:
        Weights S, opacity R, depth R and accumulated values R C, all of the type of the weights.
    """
    weights = transmittance * alphas
    if early_stop_eps > 0.0:
        weights = torch.where(transmittance >= early_stop_eps, weights, 0.0)
    ray = ray_of_sample(packed_info, len(alphas))
    n_rays = packed_info.shape[0]
    opacity = weights.new_zeros(n_rays).index_add(0, ray, weights)
    depth = weights.new_zeros(n_rays).index_add(0, ray, weights * (0.5 * (t_starts + t_ends)))
    accumulated = weights.new_zeros(n_rays, values.shape[1]).index_add(0, ray, weights[:, None] * values)
    return weights, opacity, depth, accumulated
