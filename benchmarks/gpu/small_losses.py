"""What train_small.py minimises and measures: losses of a batch, scores and images of held-out pairs."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.diffusion import training
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.validation import image_scores, lift_scores, sample_views
from zero123s.images.image_metrics import ssim
from zero123s.images.io import write_png_atomic
from zero123s.randomness import generator_for, generator_on
from zero123s.structures import PosedViews

DROPOUT = 0.05
"""As in train-zero123.yaml."""
TIMESTEPS = (900, 600, 300)
"""At which one step's prediction of the clean view is scored."""
SAMPLE_STEPS, SAMPLE_SCALE = 10, 3.0
N_SHOWN = 12


class ColourError:
    """The error of latents that shows in the image's colours.

    The latents are whitened: a channel of fine detail, which is unpredictable on an unseen side, weighs as much as the
    colours do. A linear map of the latents gives the image's colours at their resolution up to a small rest; the denoising
    loss weighs the error by `share` through that map and by the rest as it is, on average alike.

    Args:
        model: whose autoencoder is fitted by least squares.
        rgb: N 3 H W in [0, 1], images to fit it on.
        share: 0 to 1.
    """

    def __init__(self, model: Zero123Model, rgb: Float[Tensor, "N 3 H W"], share: float) -> None:
        with torch.no_grad():
            latents = model.scale_factor * model.encode_image(rgb)
            small = F.adaptive_avg_pool2d(rgb * 2 - 1, (latents.shape[-2], latents.shape[-1]))
        x, y = (t.movedim(1, -1).flatten(0, 2).double().cpu() for t in (latents, small))
        fitted = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), y)
        colours = fitted.solution[:-1]
        rest = (torch.cat([x, torch.ones_like(x[:, :1])], 1) @ fitted.solution - y).square().mean()
        self.unexplained = float(rest / y.var(0).mean())
        """Share of the colours' variance that the map leaves out."""
        metric = share * len(colours) * colours @ colours.T / colours.square().sum()
        self.metric = (metric + (1 - share) * torch.eye(len(colours))).float().to(rgb.device)

    def __call__(self, error: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
        """Return the weighted mean square."""
        return (torch.einsum("bchw,cd->bdhw", error, self.metric) * error).mean()


def draw_noising(
    model: Zero123Model, shape: tuple[int, ...], high_noise_share: float, seed: int, step: int
) -> training.Noising:
    """Draw dropout, timesteps and noise of a batch on the model's device, as `training.draw_noising` does on the CPU."""
    device, n, last = model.device, shape[0], model.n_timesteps
    generator = generator_on(device, generator_for(seed, step, "gpu-noise"))
    r, u = torch.rand(2, n, generator=generator, device=device)
    low = torch.randint(last, (n,), generator=generator, device=device)
    high = torch.randint(last // 2, last, (n,), generator=generator, device=device)
    noise = torch.randn(shape, generator=generator, device=device)
    t = torch.where(u < high_noise_share, high, low)
    return training.Noising(r < 2 * DROPOUT, (r >= DROPOUT) & (r < 3 * DROPOUT), t, noise)


def half_precision(device: torch.device, enabled: bool = True) -> torch.autocast:
    """Compute networks in bf16, which needs no loss scaling."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def losses(
    model: Zero123Model, views: PosedViews, noising: training.Noising | None, colour: ColourError, bf16: bool = True
) -> dict[str, Tensor]:
    """Return the lift's loss and, where noise is given, the denoiser's; see `Zero123FinetuneSystem`.

    The networks compute in bf16, everything that is compared in float32.
    """
    assert model.lift is not None
    device, rgb, poses = model.device, views.on_white(), training.pairwise_poses(model, views)
    k = rgb.shape[1] - 1
    amp = lambda: half_precision(device, bf16)  # noqa: E731
    encoded = rgb if noising is not None else rgb[:, :1]
    with torch.no_grad(), amp():
        latents = model.encode_image(encoded.flatten(0, 1)).float().unflatten(0, encoded.shape[:2])
    with amp():
        lift_view = model.lift.render(model.lift.volume(latents[:, 0], poses[:, 0, 3]), poses)
    alpha = views.rgba[:, 1:, ..., 3].flatten(0, 1)[:, None]
    terms = {
        "lift": training.lift_loss(
            lift_view.features[:, :3].float(), lift_view.opacity.float(), rgb[:, 1:].flatten(0, 1), alpha
        )
    }
    if noising is None:
        return terms
    of_views = lambda x: x[:, None].expand(-1, k, *[-1] * (x.ndim - 1)).flatten(0, 1)  # noqa: E731
    targets = model.scale_factor * latents[:, 1:].flatten(0, 1)
    noised = model.add_noise(targets, noising.noise, noising.t)
    with amp():
        concat = torch.cat([of_views(latents[:, 0]), model.lift.maps(lift_view).float()], dim=1)
        concat = concat * (~noising.no_concat).to(concat).view(-1, 1, 1, 1)
        # In training the dropped embedding is zero before the projection: the pose stays, as in the original.
        embedding = of_views(model.embed_image(rgb[:, 0]).float())
        embedding = embedding * (~noising.no_embedding).to(embedding).view(-1, 1, 1)
        output = model.denoise(noised, noising.t, model.project(embedding, poses.flatten(0, 1)), concat).float()
    with half_precision(device, enabled=False):
        error = output - training.denoising_target(model, targets, noising.noise, noising.t)
        return terms | {"denoise": colour(error)}


@torch.no_grad()
def one_step(model: Zero123Model, views: PosedViews, t: int, seed: int = 0) -> Float[Tensor, "B 3 H W"]:
    """Predict the second view of every object at once from its noised latents at timestep `t`."""
    rgb, pose = views.on_white(), training.pairwise_poses(model, views)[:, 0]
    latents = model.scale_factor * model.encode_image(rgb[:, 1])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    at = torch.full((len(latents),), t, device=latents.device)
    noised, signal = model.add_noise(latents, noise, at), model.alphas_cumprod[t]
    context = model.project(model.embed_image(rgb[:, 0]), pose)
    eps = model.predict_noise(noised, at, context, model.concat_for(model.encode_image(rgb[:, 0]), pose))
    return model.decode_latents((noised - (1 - signal).sqrt() * eps) / signal.sqrt() / model.scale_factor)


@torch.no_grad()
def lifted(model: Zero123Model, views: PosedViews) -> Float[Tensor, "B 3 R R"]:
    """Return the lift's own image of the second view of every object, in [0, 1]."""
    assert model.lift is not None
    pose = training.pairwise_poses(model, views)
    latents = model.encode_image(views.on_white()[:, 0])
    lift_view = model.lift.render(model.lift.volume(latents, pose[:, 0, 3]), pose[:, :1])
    return (lift_view.features[:, :3] / 2 + 0.5).clamp(0, 1)


def _psnr(rgb: Tensor, truth: Tensor) -> float:
    return float((-10 * (rgb - truth).square().mean((1, 2, 3)).clamp_min(1e-10).log10()).mean())


@torch.no_grad()
def validate(model: Zero123Model, views: PosedViews, sheet: Path | None) -> dict[str, float]:
    """Score a model on pairs, and draw some of them: input, truth, lift, one step at t = 600, sampled."""
    rgb = views.on_white()
    truth, lift_view = rgb[:, 1], lifted(model, views)
    small = F.adaptive_avg_pool2d(truth, (lift_view.shape[-2], lift_view.shape[-1]))
    pairs = zip(*(x.movedim(1, -1).cpu().numpy() for x in (lift_view, small)), strict=True)
    scores = lift_scores(model, views) | {"lift_ssim": float(np.mean([ssim(a, b) for a, b in pairs]))}
    steps = {t: one_step(model, views, t) for t in TIMESTEPS}
    scores |= {f"x0_psnr_t{t}": _psnr(image, truth) for t, image in steps.items()}
    drawn = sample_views(model, views, SAMPLE_STEPS, SAMPLE_SCALE)
    scores |= {f"sampled_{name}": value for name, value in image_scores(drawn, views).items()}
    if sheet is not None:
        columns = [rgb[:, 0], truth, F.interpolate(lift_view, size=truth.shape[-2:]), steps[600], drawn]
        shown = np.unique(np.linspace(0, len(truth) - 1, N_SHOWN).astype(int)).tolist()
        rows = torch.cat([column[shown] for column in columns], dim=2)  # one object's images below each other
        write_png_atomic(sheet, rows.permute(2, 0, 3, 1).flatten(1, 2).cpu().numpy())
    return scores
