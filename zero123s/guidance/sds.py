"""The formulas of score distillation, apart from any network (DreamFusion, eq. 3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sample_timesteps(
    batch_size: int, min_percent: float, max_percent: float, n_timesteps: int, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Draw t uniformly from {int(T min), ..., int(T max)}, at most T - 1, one per view."""
    low, high = int(n_timesteps * min_percent), int(n_timesteps * max_percent)
    return torch.randint(low, high + 1, (batch_size,), generator=generator).clamp_max(n_timesteps - 1)


def annealed_timesteps(
    batch_size: int, min_percent: float, max_percent: float, n_timesteps: int, progress: float, mode: str
) -> Int[Tensor, "B"]:
    """Return one timestep for all views, falling from T max to T min.

    Args:
        progress: share of the annealing that is done, in [0, 1].
        mode: "linear", or "sqrt" (HiFA, eq. 8).
    """
    share = progress if mode == "linear" else progress**0.5
    percent = max_percent - (max_percent - min_percent) * share
    return torch.full((batch_size,), min(n_timesteps - 1, round(n_timesteps * percent)))


def prioritized_timesteps(
    batch_size: int, min_percent: float, max_percent: float, alphas_cumprod: Float[Tensor, "T"], progress: float
) -> Int[Tensor, "B"]:
    """Return one timestep for all views by DreamTime's time prioritized schedule (Huang et al. 2023, eq. 5 and 6).

    The share of the run spent above level t is the share that W(t) = sqrt((1 - a_t) / a_t) g(t) has above t, where g is 1
    from t = 500 to 800 and falls off as a Gaussian of 100 below and 300 above (of 1000 timesteps).

    Args:
        alphas_cumprod: T, the noise schedule.
        progress: share of the schedule that is done, in [0, 1].
    """
    n = len(alphas_cumprod)
    t = torch.arange(n, dtype=torch.float64)
    distance = torch.where(
        t > 0.8 * n, (t - 0.8 * n) / (0.3 * n), torch.where(t < 0.5 * n, (t - 0.5 * n) / (0.1 * n), 0.0)
    )
    a = alphas_cumprod.detach().cpu().double()
    weight = ((1 - a) / a).sqrt() * torch.exp(-0.5 * distance.square())
    low, high = int(n * min_percent), min(int(n * max_percent), n - 1)
    spent = weight[low : high + 1].flip(0).cumsum(0)  # from the noisiest level down
    below = int(torch.searchsorted(spent, progress * spent[-1]).clamp_max(high - low))
    return torch.full((batch_size,), high - below)


def rescale_guidance(
    guided: Float[Tensor, "B C h w"], cond: Float[Tensor, "B C h w"], share: float
) -> Float[Tensor, "B C h w"]:
    """Return share * guided * std(cond) / std(guided) + (1 - share) * guided, deviations by view (Lin et al. 2023, eq. 15, 16)."""
    deviations = [x.flatten(1).std(dim=1)[:, None, None, None] for x in (cond, guided)]
    return guided * (share * deviations[0] / deviations[1].clamp_min(1e-8) + 1 - share)


def threshold_noise(
    noise_pred: Float[Tensor, "B C h w"],
    noised: Float[Tensor, "B C h w"],
    alphas_cumprod_t: Float[Tensor, "B"],
    quantile: float,
) -> Float[Tensor, "B C h w"]:
    """Return the prediction whose denoised latents are clamped to a quantile of their absolute values, view by view.

    Dynamic thresholding (Saharia et al. 2022, Imagen, section 2.3) without its division: latents have no range of their own.
    """
    a = alphas_cumprod_t[:, None, None, None]
    clean = (noised - (1 - a).sqrt() * noise_pred) / a.sqrt()
    limit = clean.flatten(1).abs().float().quantile(quantile, dim=1).to(clean)[:, None, None, None]
    return (noised - a.sqrt() * clean.clamp(-limit, limit)) / (1 - a).sqrt()


def step_weight(alphas_cumprod_t: Float[Tensor, "B"], weighting: str) -> Float[Tensor, "B"]:
    """Return w(t) by name: "sds" 1 - a_t, "uniform" 1, "fantasia3d" sqrt(a_t) (1 - a_t)."""
    if weighting == "uniform":
        return torch.ones_like(alphas_cumprod_t)
    weight = 1 - alphas_cumprod_t
    return alphas_cumprod_t.sqrt() * weight if weighting == "fantasia3d" else weight


def weighted_gradient(
    residual: Float[Tensor, "B C h w"],
    alphas_cumprod_t: Float[Tensor, "B"],
    weighting: str = "sds",
    normalize: bool = False,
    clip: float | None = None,
) -> Float[Tensor, "B C h w"]:
    """Return w(t) residual, non-finite entries zeroed, every view's gradient divided by its norm, clamped to +-clip."""
    grad = torch.nan_to_num(step_weight(alphas_cumprod_t, weighting)[:, None, None, None] * residual)
    if normalize:
        grad = grad / grad.flatten(1).norm(dim=1).clamp_min(1e-8)[:, None, None, None]
    return grad if clip is None else grad.clamp(-clip, clip)


def sds_loss(latents: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Return a loss whose gradient with respect to `latents` is `grad / B`.

    0.5 * ||z - stop_gradient(z - grad)||^2 / B, so that its value is 0.5 * ||grad||^2 / B.
    """
    target = (latents - grad).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def loss_with_gradient(
    images: Float[Tensor, "B H W C"], grad: Float[Tensor, "B H W C"], value: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return a loss of the given value whose gradient with respect to `images` is `grad`, computed beforehand."""
    carrier = (images * grad).sum()
    return carrier - carrier.detach() + value.detach()
