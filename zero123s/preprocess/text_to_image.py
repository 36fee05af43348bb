"""Images of one object from a prompt, through any text-to-image pipeline of diffusers."""

import gc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from zero123s.config.options import option
from zero123s.errors import ConfigError, ImageError
from zero123s.images.io import LoadedImage, composite, fit_square, resize_rgba
from zero123s.preprocess.framing import object_bounds
from zero123s.preprocess.segment import Segmentation, segment

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SUFFIX = ", one whole object, centred, seen from the front, plain light gray background, soft even light"
NEGATIVE = "cropped, several objects, text, busy background, strong shadow"
THUMBNAIL = 192
"""Pixels per candidate on the contact sheet."""


@dataclass
class TextToImageConfig:
    """Settings of the text-to-image pipeline."""

    model: str = option(SDXL, path=True)
    """Hub id or folder of a diffusers text-to-image pipeline."""
    steps: int = option(30, low=1, high=1000)
    """Denoising steps."""
    guidance_scale: float = option(7.0, low=0.0)
    """Strength of classifier-free guidance."""
    negative_prompt: str = NEGATIVE
    """Negative prompt."""
    suffix: str = SUFFIX
    """Appended to the prompt: a view that segmentation and Zero123 can use."""
    candidates: int = option(4, low=1, high=100)
    """Images drawn; the one that segments and fits best is used."""
    choose: int = option(-1, low=-1)
    """Number of the candidate to use; -1 = the best."""
    height: int = option(1024, low=64, high=4096)
    """Pixels; what the pipeline was trained at."""
    width: int = option(1024, low=64, high=4096)
    """Pixels."""

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) % 8:
                raise ConfigError(
                    f"text_to_image.{name}: {getattr(self, name)} pixels; the pipeline needs a multiple of 8."
                )


@dataclass(frozen=True)
class Candidate:
    """A generated image and its suitability for the 3D stage."""

    rgb: Float[np.ndarray, "H W 3"]
    segmentation: Segmentation
    score: float
    """0 to 1: confidence of the cut-out times how well the object fills the frame without being cut."""


@dataclass(frozen=True)
class GeneratedCandidates:
    """All candidates, and the index of the chosen one."""

    candidates: tuple[Candidate, ...]
    chosen: int
    contact_sheet: Float[np.ndarray, "h w 3"]
    """Images above their cut-outs on white, in order; the chosen one has a green bar below."""


def generate_candidates(
    prompt: str, cfg: TextToImageConfig, seed: int = 0, device: torch.device | str = "cpu"
) -> GeneratedCandidates:
    """Generate and score images of a prompt; the pipeline's memory is released on return.

    Args:
        prompt: description of one object.
        cfg: settings of the pipeline.
        seed: of the first candidate; each further one adds 1.
        device: of the pipeline; float16 on CUDA, else float32.

    Returns:
        All candidates and the chosen one.

    Raises:
        ConfigError: an empty prompt, or numbers out of range.
        ImageError: the pipeline is not on this machine and cannot be fetched, or is damaged.
    """
    if not prompt.strip():
        raise ConfigError("data.prompt is empty; describe one object, e.g. data.prompt='a wooden toy duck'.")
    if cfg.candidates < 1 or cfg.steps < 1 or not -1 <= cfg.choose < cfg.candidates:
        raise ConfigError(
            f"text-to-image: candidates={cfg.candidates} and steps={cfg.steps} must be at least 1 and "
            f"choose={cfg.choose} below candidates (-1 = the best)."
        )
    candidates = tuple(score(rgb) for rgb in _generate(prompt, cfg, seed, torch.device(device)))
    chosen = cfg.choose if cfg.choose >= 0 else int(np.argmax([c.score for c in candidates]))
    return GeneratedCandidates(candidates, chosen, _contact_sheet(candidates, chosen))


def score(rgb: Float[np.ndarray, "H W 3"]) -> Candidate:
    """Cut the object out of an image offline and score the result.

    Args:
        rgb: H W 3 in [0, 1].

    Returns:
        The image with its cut-out and a score in [0, 1].
    """
    rgba = np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1).astype(np.float32)
    segmentation = segment(LoadedImage(rgba, False), "grabcut")
    if not (segmentation.rgba[..., 3] >= 0.5).any():
        return Candidate(rgb, segmentation, 0.0)
    left, top, right, bottom = object_bounds(segmentation.rgba[..., 3])
    fills = max((right - left) / rgb.shape[1], (bottom - top) / rgb.shape[0])
    # Below half the frame detail is lost, at the full frame something is probably cut off.
    framing = min(1.0, fills / 0.5) * (1.0 if fills < 0.97 else 0.5)
    return Candidate(rgb, segmentation, segmentation.confidence * framing)


def _generate(prompt: str, cfg: TextToImageConfig, seed: int, device: torch.device) -> list[Float[np.ndarray, "H W 3"]]:
    from diffusers import AutoPipelineForText2Image

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(cfg.model, torch_dtype=dtype)
    except (OSError, ValueError) as error:
        kind = "folder" if Path(cfg.model).is_dir() else "hub id"
        raise ImageError(
            f"The text-to-image pipeline '{cfg.model}' ({kind}) cannot be loaded: with a network, fetch it once by "
            f"`huggingface-cli download {cfg.model}`; without, copy a diffusers folder here and give its path as the model."
        ) from error
    try:
        pipeline = pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        return [
            # One generator per candidate: candidate i is the same image however many are drawn.
            np.asarray(
                pipeline(
                    prompt=prompt + cfg.suffix,
                    negative_prompt=cfg.negative_prompt,
                    num_inference_steps=cfg.steps,
                    guidance_scale=cfg.guidance_scale,
                    height=cfg.height,
                    width=cfg.width,
                    generator=torch.Generator(device).manual_seed(seed + i),
                    output_type="np",
                ).images[0],
                np.float32,
            )
            for i in range(cfg.candidates)
        ]
    finally:
        del pipeline
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _contact_sheet(candidates: tuple[Candidate, ...], chosen: int) -> Float[np.ndarray, "h w 3"]:
    white, columns = (1.0, 1.0, 1.0), []
    for i, candidate in enumerate(candidates):
        opaque = np.concatenate([candidate.rgb, np.ones_like(candidate.rgb[..., :1])], -1)
        pair = [
            composite(resize_rgba(fit_square(p), THUMBNAIL, THUMBNAIL), white)
            for p in (opaque, candidate.segmentation.rgba)
        ]
        bar = np.ones((8, THUMBNAIL, 3), np.float32) * ((0.1, 0.7, 0.2) if i == chosen else white)
        columns.append(np.concatenate([*pair, bar]))
    return np.concatenate(columns, axis=1)
