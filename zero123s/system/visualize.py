"""Renders of the scene: the scored reference view, and orbits as a strip or a video."""

import logging
import math
import os
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch

from zero123s.errors import OutputError
from zero123s.images.image_metrics import mask_iou, psnr
from zero123s.images.io import write_png_atomic
from zero123s.ops.cameras import generate_rays
from zero123s.runtime.files import explain_os_error
from zero123s.structures import Cameras, ReferenceView, RenderOutput

logger = logging.getLogger(__name__)


@torch.no_grad()
def score_reference(system: Any, reference: ReferenceView) -> dict[str, float]:
    """Render the supervised views and compare them with their images, over the scene's background."""
    reference = reference.to(system.device)
    scores = {"psnr": 0.0, "mask_iou": 0.0}
    system.eval()
    n = len(reference.cameras)
    for i in range(n):
        camera = reference.cameras.select(slice(i, i + 1))
        out = system.render(camera)
        mask = reference.mask[i : i + 1]
        target = reference.rgb[i : i + 1] * mask + system.background(generate_rays(camera).rays_d) * (1 - mask)
        scores["psnr"] += psnr(out.comp_rgb.cpu().numpy(), target.cpu().numpy()) / n
        scores["mask_iou"] += mask_iou(out.opacity.cpu().numpy(), mask.cpu().numpy()) / n
    system.train()
    return scores


@torch.no_grad()
def render_orbit(system: Any, cameras: Cameras) -> list[np.ndarray]:
    """Return one frame per view: colour, normals, depth (near is bright) and opacity side by side, uint8."""
    system.eval()
    frames = []
    for i in range(len(cameras)):
        camera = cameras.select(slice(i, i + 1))
        out = system.render(camera, frozenset({"normal"}))
        assert out.comp_normal is not None
        normal = out.comp_normal + (1 - out.opacity)
        depth = depth_image(out, float(camera.distance[0]), system.field().bound)
        row = torch.cat([out.comp_rgb, normal, depth, out.opacity.expand_as(normal)], dim=2)[0]
        frames.append((255 * row.clamp(0, 1) + 0.5).to(torch.uint8).cpu().numpy())
    system.train()
    return frames


def depth_image(out: RenderOutput, distance: float, bound: float) -> torch.Tensor:
    """Return grey from white (nearest corner of the field's cube) to black (farthest, or nothing there), 1 H W 3."""
    reach = math.sqrt(3) * bound
    mean_depth = out.depth / out.opacity.clamp_min(1e-3)
    grey = ((distance + reach - mean_depth) / (2 * reach)).clamp(0, 1)
    return (grey * out.opacity).expand_as(out.comp_rgb)


def save_strip(path: Path, frames: list[np.ndarray]) -> None:
    """Write frames below each other as one PNG."""
    write_png_atomic(path, np.concatenate(frames, axis=0).astype(np.float32) / 255)


def save_video(path: Path, frames: list[np.ndarray], fps: int = 30) -> Path:
    """Write an mp4 atomically and return its path; without an encoder, a folder of frames.

    Raises OutputError.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        return _save_frames(path.with_suffix(""), frames)
    temporary = path.with_name(f".{path.stem}.part.mp4")
    height, width = frames[0].shape[:2]
    even = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))  # H.264 halves the colours' resolution
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(temporary, np.pad(np.stack(frames), even, "edge"), fps=fps, codec="libx264", macro_block_size=2)
        # The encoder is another process, which ends without a word when its disk is full.
        try:
            written = imageio_ffmpeg.count_frames_and_secs(temporary)[0]
        except (RuntimeError, OSError):  # a damaged file
            written = 0
        if written != len(frames):
            raise OutputError(f"'{path}' cannot be written whole: the disk is full, or the encoder failed.")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {explain_os_error(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _save_frames(folder: Path, frames: list[np.ndarray]) -> Path:
    logger.warning(
        "imageio-ffmpeg is not installed, so '%s' holds the video's frames as PNG files; `pip install imageio[ffmpeg]`",
        folder,
    )
    for number, frame in enumerate(frames):
        write_png_atomic(folder / f"{number:04d}.png", frame.astype(np.float32) / 255)
    return folder
