"""How well a Zero123 obeys the pose, and how good its novel views are, on objects it never saw."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.sampling import sample_latents
from zero123s.diffusion.training import pairwise_poses
from zero123s.mesh.metrics import relative_roughness, roughness, ssim
from zero123s.ops.lpips import Lpips
from zero123s.structures import PosedViews

GATE_TIMESTEP = 900
"""Where hardly more than the pose and the image can tell what to draw."""


@torch.no_grad()
def pose_sensitivity(model: Zero123Model, views: PosedViews, seed: int = 0) -> dict[str, float]:
    """Return the x0 error at t = 900 with the right pose, and its ratio with wrong ones.

    shuffled: another sample's pose; mirrored: the azimuth's sign flipped (1 = no idea of the direction of rotation);
    identity: the input's own pose. The ratios of `picture_` are those of the decoded images against the true ones:
    whitened latents count detail that nobody can foresee as much as shape and colour, images do not.
    """
    rgb = views.on_white()
    given, wanted = rgb[:, 0], rgb[:, 1]
    pose = pairwise_poses(model, views)[:, 0]
    embedding, image_latents = model.embed_image(given), model.encode_image(given)
    latents = model.scale_factor * model.encode_image(wanted)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    t = torch.full((len(latents),), GATE_TIMESTEP, device=latents.device)
    noised = model.add_noise(latents, noise, t)
    signal = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    still = torch.tensor([0.0, 0.0, 1.0], device=pose.device).expand(len(pose), -1)
    mirror = torch.tensor([1.0, -1.0, 1.0, 1.0], device=pose.device)
    variants = {
        "right": pose,
        "shuffled": torch.cat([pose.roll(1, 0)[:, :3], pose[:, 3:]], dim=1),
        "mirrored": pose * mirror,
        "identity": torch.cat([still, pose[:, 3:]], dim=1),
    }
    errors, in_pictures = {}, {}
    for name, pose in variants.items():
        eps = model.predict_noise(noised, t, model.project(embedding, pose), model.concat_for(image_latents, pose))
        clean = (noised - (1 - signal).sqrt() * eps) / signal.sqrt()
        errors[name] = float((clean - latents).square().mean())
        in_pictures[name] = float((model.decode_latents(clean / model.scale_factor) - wanted).square().mean())
    scores = {"x0_error": errors["right"]}
    for prefix, measured in (("", errors), ("picture_", in_pictures)):
        right = measured.pop("right")
        scores |= {f"{prefix}{name}_ratio": error / right for name, error in measured.items()}
    return scores


@torch.no_grad()
def sample_views(
    model: Zero123Model, views: PosedViews, steps: int = 50, scale: float = 3.0, seed: int = 0
) -> Float[Tensor, "B 3 H W"]:
    """Sample view 1 of every object from its view 0 by DDIM, as images in [0, 1]."""
    given = views.on_white()[:, 0]
    pose = pairwise_poses(model, views)[:, 0]
    context = model.project(model.embed_image(given), pose)
    concat = model.concat_for(model.encode_image(given), pose)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(given), model.latent_channels, model.latent_size, model.latent_size)
    noise = torch.randn(shape, generator=generator).to(given)
    latents = sample_latents(model, noise, context, concat, steps, scale, 0.0, generator, "ddim")
    return model.decode_latents(latents / model.scale_factor)


def silhouette(rgb: Float[Tensor, "B 3 H W"]) -> Bool[Tensor, "B H W"]:
    """Return where an image on white differs from white by more than 6 %."""
    return (1 - rgb).amax(1) > 0.06


def image_scores(rgb: Float[Tensor, "B 3 H W"], views: PosedViews, lpips: Lpips | None = None) -> dict[str, float]:
    """Return mean PSNR (dB), SSIM and, where it is given, LPIPS against view 1, and mean IoU of silhouettes with its mask.

    "relative_roughness" is that of `mesh.metrics`, inside the true mask where the image shows an object, too.
    """
    truth, mask = views.on_white()[:, 1], views.rgba[:, 1, ..., 3] > 0.5
    mse = F.mse_loss(rgb, truth, reduction="none").mean((1, 2, 3)).clamp_min(1e-10)
    shape = silhouette(rgb)
    iou = (shape & mask).sum((1, 2)) / (shape | mask).sum((1, 2)).clamp_min(1)
    ours, theirs = (x.movedim(1, -1).cpu().numpy() for x in (rgb, truth))
    both = (shape & mask).cpu().numpy()
    rough = ([roughness(picture, inside) for picture, inside in zip(x, both, strict=True)] for x in (ours, theirs))
    scores = {
        "psnr": float((-10 * mse.log10()).mean()),
        "ssim": float(np.mean([ssim(drawn, wanted) for drawn, wanted in zip(ours, theirs, strict=True)])),
        "mask_iou": float(iou.mean()),
        "relative_roughness": relative_roughness(*rough),
    }
    return scores if lpips is None else scores | {lpips.key: float(lpips(rgb, truth).mean())}


@torch.no_grad()
def embedding_similarity(model: Zero123Model, rgb: Float[Tensor, "B 3 H W"], views: PosedViews) -> float:
    """Return the mean cosine between the image embeddings of images and of view 1; 1 = the same to that encoder.

    With the original's CLIP encoder this is the usual CLIP similarity.
    """
    drawn, wanted = model.embed_image(rgb), model.embed_image(views.on_white()[:, 1])
    return float(F.cosine_similarity(drawn.flatten(1), wanted.flatten(1)).mean())


@torch.no_grad()
def lift_scores(model: Zero123Model, views: PosedViews) -> dict[str, float]:
    """Return PSNR and silhouette IoU of the lift's own image of view 1, at its own size; empty without a lift."""
    if model.lift is None:
        return {}
    pose = pairwise_poses(model, views)
    latents = model.encode_image(views.on_white()[:, 0])
    seen = model.lift.render(model.lift.volume(latents, pose[:, 0, 3]), pose[:, :1])
    size = (seen.opacity.shape[-2], seen.opacity.shape[-1])
    truth = F.adaptive_avg_pool2d(views.on_white()[:, 1], size)
    mask = F.adaptive_avg_pool2d(views.rgba[:, 1, ..., 3], size) > 0.5
    picture = (seen.features[:, :3] / 2 + 0.5).clamp(0, 1)
    mse = (picture - truth).square().mean((1, 2, 3)).clamp_min(1e-10)
    shape = seen.opacity[:, 0] > 0.5
    iou = (shape & mask).sum((1, 2)) / (shape | mask).sum((1, 2)).clamp_min(1)
    return {"lift_psnr": float((-10 * mse.log10()).mean()), "lift_iou": float(iou.mean())}
