"""Scores of a Zero123 model on held-out objects: sensitivity to the pose and quality of novel views."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.sampling import sample_latents
from zero123s.diffusion.training import pairwise_poses
from zero123s.images.image_metrics import relative_roughness, roughness, ssim
from zero123s.ops.efficientnet import PerceptualNetwork
from zero123s.structures import PosedViews

SENSITIVITY_TIMESTEP = 900
"""So noisy that the prediction depends on little but the pose and the input image."""


@torch.no_grad()
def pose_sensitivity(model: Zero123Model, views: PosedViews, seed: int = 0) -> dict[str, float]:
    """Measure how much the denoising error at t = 900 grows when the model is given a wrong pose.

    A ratio of 1 means that the model ignores the pose. The wrong poses are "shuffled" (another sample's), "mirrored"
    (the azimuth difference with the opposite sign: 1 = blind to the direction of rotation) and "identity" (the
    input's own). Ratios of decoded images, with the prefix `picture_`, compare colours and shapes; whitened latents
    weigh unpredictable detail as much.

    Args:
        model: which is scored.
        views: held-out objects, at least two, with two views each: the input and the target.
        seed: of the noise.

    Returns:
        "x0_error": mean squared error of the predicted clean latents with the right pose; "shuffled_ratio",
        "mirrored_ratio", "identity_ratio": that error with the wrong pose over it; the same with the prefix "picture_".
    """
    rgb = views.on_white()
    input_rgb, target_rgb = rgb[:, 0], rgb[:, 1]
    pose = pairwise_poses(model, views)[:, 0]
    embedding, image_latents = model.embed_image(input_rgb), model.encode_image(input_rgb)
    latents = model.scale_factor * model.encode_image(target_rgb)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    t = torch.full((len(latents),), SENSITIVITY_TIMESTEP, device=latents.device)
    noised = model.add_noise(latents, noise, t)
    signal = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    unmoved = torch.tensor([0.0, 0.0, 1.0], device=pose.device).expand(len(pose), -1)
    mirror = torch.tensor([1.0, -1.0, 1.0, 1.0], device=pose.device)
    variants = {
        "right": pose,
        "shuffled": torch.cat([pose.roll(1, 0)[:, :3], pose[:, 3:]], dim=1),
        "mirrored": pose * mirror,
        "identity": torch.cat([unmoved, pose[:, 3:]], dim=1),
    }
    errors, image_errors = {}, {}
    for name, pose in variants.items():
        eps = model.predict_noise(noised, t, model.project(embedding, pose), model.concat_for(image_latents, pose))
        clean = (noised - (1 - signal).sqrt() * eps) / signal.sqrt()
        errors[name] = float((clean - latents).square().mean())
        image_errors[name] = float((model.decode_latents(clean / model.scale_factor) - target_rgb).square().mean())
    scores = {"x0_error": errors["right"]}
    for prefix, measured in (("", errors), ("picture_", image_errors)):
        right = measured.pop("right")
        scores |= {f"{prefix}{name}_ratio": error / right for name, error in measured.items()}
    return scores


@torch.no_grad()
def sample_views(
    model: Zero123Model, views: PosedViews, steps: int = 50, scale: float = 3.0, seed: int = 0
) -> Float[Tensor, "B 3 H W"]:
    """Sample the second view of every object from its first by DDIM.

    Args:
        model: which is scored.
        views: of B objects, at least two views each.
        steps: network evaluations.
        scale: strength of classifier-free guidance.
        seed: of the initial noise.

    Returns:
        B 3 H W, in [0, 1].
    """
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
    """Find the object in images on white.

    Args:
        rgb: B 3 H W, in [0, 1].

    Returns:
        B H W, True where a channel is more than 6 % darker than white.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.validation import silhouette
        >>> silhouette(torch.tensor([1.0, 0.95, 0.9]).expand(1, 3, 1, 3))
        tensor([[[False, False,  True]]])
    """
    return (1 - rgb).amax(1) > 0.06


def image_scores(
    rgb: Float[Tensor, "B 3 H W"], views: PosedViews, network: PerceptualNetwork | None = None
) -> dict[str, float]:
    """Compare sampled images with the second view of every object.

    Args:
        rgb: B 3 H W, sampled images on white in [0, 1].
        views: of the B objects; view 1 is the ground truth.
        network: adds a perceptual distance.

    Returns:
        Means over the batch: "psnr" in dB, "ssim", "mask_iou" of the silhouettes, "relative_roughness" (see
        `images.image_metrics`) where both silhouettes overlap, and the LPIPS distance under its own key.
    """
    truth, mask = views.on_white()[:, 1], views.rgba[:, 1, ..., 3] > 0.5
    mse = F.mse_loss(rgb, truth, reduction="none").mean((1, 2, 3)).clamp_min(1e-10)
    shape = silhouette(rgb)
    iou = (shape & mask).sum((1, 2)) / (shape | mask).sum((1, 2)).clamp_min(1)
    images, truths = (x.movedim(1, -1).cpu().numpy() for x in (rgb, truth))
    both = (shape & mask).cpu().numpy()
    rough = ([roughness(image, inside) for image, inside in zip(x, both, strict=True)] for x in (images, truths))
    scores = {
        "psnr": float((-10 * mse.log10()).mean()),
        "ssim": float(np.mean([ssim(sampled, target) for sampled, target in zip(images, truths, strict=True)])),
        "mask_iou": float(iou.mean()),
        "relative_roughness": relative_roughness(*rough),
    }
    return scores if network is None else scores | {network.key: float(network(rgb, truth).mean())}


@torch.no_grad()
def embedding_similarity(model: Zero123Model, rgb: Float[Tensor, "B 3 H W"], views: PosedViews) -> float:
    """Compare images with the second view of every object by the model's image encoder.

    With the original's CLIP encoder this is the usual CLIP similarity.

    Args:
        model: gives the image encoder.
        rgb: B 3 H W, on white in [0, 1].
        views: of the B objects; view 1 is the ground truth.

    Returns:
        Mean cosine similarity of the image embeddings, at most 1.
    """
    sampled, target = model.embed_image(rgb), model.embed_image(views.on_white()[:, 1])
    return float(F.cosine_similarity(sampled.flatten(1), target.flatten(1)).mean())


@torch.no_grad()
def lift_scores(model: Zero123Model, views: PosedViews) -> dict[str, float]:
    """Compare the pose lift's rendering with the second view of every object, at the lift's resolution.

    Args:
        model: which is scored.
        views: of B objects, at least two views each.

    Returns:
        "lift_psnr" in dB and "lift_iou" of the silhouettes; empty for a model without a pose lift.
    """
    if model.lift is None:
        return {}
    pose = pairwise_poses(model, views)
    latents = model.encode_image(views.on_white()[:, 0])
    rendered = model.lift.render(model.lift.volume(latents, pose[:, 0, 3]), pose[:, :1])
    size = (rendered.opacity.shape[-2], rendered.opacity.shape[-1])
    truth = F.adaptive_avg_pool2d(views.on_white()[:, 1], size)
    mask = F.adaptive_avg_pool2d(views.rgba[:, 1, ..., 3], size) > 0.5
    rgb = (rendered.features[:, :3] / 2 + 0.5).clamp(0, 1)
    mse = (rgb - truth).square().mean((1, 2, 3)).clamp_min(1e-10)
    shape = rendered.opacity[:, 0] > 0.5
    iou = (shape & mask).sum((1, 2)) / (shape | mask).sum((1, 2)).clamp_min(1)
    return {"lift_psnr": float((-10 * mse.log10()).mean()), "lift_iou": float(iou.mean())}
