"""Novel views of one image, from Python: sample them, write them as contact sheet, single files and video."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from zero123s.config.options import option
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import locate_checkpoint
from zero123s.diffusion.model import PerView, Zero123Model
from zero123s.diffusion.sampling import SAMPLERS, Progress
from zero123s.diffusion.speed import speed_up
from zero123s.errors import ConfigError
from zero123s.images.io import composite, fit_square
from zero123s.images.pixels import ImageLike, to_rgba

logger = logging.getLogger(__name__)
FRAMES_PER_SECOND = 8
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass
class ViewsConfig:
    """Keys of configs/novel-views.yaml and flags of `zero123s views`."""

    elevation: float = option(0.0, low=-90.0, high=90.0)
    """Elevation of the image's camera in degrees."""
    azimuths: str = "0:360:45"
    """Azimuths of the new views in degrees from the image: "a,b,c" or "start:stop:step", stop excluded."""
    elevations: str | None = None
    """Elevations of the new views, in the same forms; None = the image's own."""
    scale: float = option(3.0, low=0.0)
    """Strength of classifier-free guidance."""
    steps: int = option(50, low=1)
    """Network evaluations per view."""
    sampler: str = option("ddim", choices=SAMPLERS)
    """Which sampler; see `sampling.sample_latents`."""
    eta: float = option(0.0, low=0.0, high=1.0)
    """Fresh noise per step of `ddim` and `original`."""
    seed: int = 0
    """Seed of all randomness."""
    batch: int = option(8, low=1)
    """Views per call of the network."""
    checkpoint: str = option("auto", path=True)
    """`auto`, a file, or a folder of the diffusers layout."""
    model_config: str | None = option(None, path=True)
    """The checkpoint's YAML; None = its metadata, a `.yaml` next to it, or its tensors' shapes."""
    family: str = option("auto", choices=("auto", "stable-zero123", "zero123"))
    """What the fourth pose term means."""
    ema: bool = True
    """Take the denoiser's moving average where the file has one."""
    dtype: str = option("auto", choices=("auto", "fp32", "bf16", "fp16"))
    """Precision of the weights."""
    device: str | None = None
    """Where to compute; None = CUDA where there is one, else the CPU."""
    fast: bool = True
    """Use faster implementations with the same result; see `speed.speed_up`."""
    out: str = option("views.png", path=True)
    """The contact sheet."""


def load_for_views(cfg: ViewsConfig) -> Zero123Model:
    """Load the checkpoint of a configuration.

    Args:
        cfg: checkpoint, precision, device and speed.

    Returns:
        A frozen model in eval mode.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    device = cfg.device or ("cuda" if torch.cuda.is_available() else "cpu")
    path = locate_checkpoint(cfg.checkpoint).path
    model = load_zero123(path, cfg.model_config, cfg.family, cfg.ema, cfg.dtype, device)
    return speed_up(model) if cfg.fast else model


def sample_views(
    model: Zero123Model,
    rgb: Float[Tensor, "1 3 H W"],
    elevation_deg: PerView,
    azimuth_deg: PerView,
    cfg: ViewsConfig,
    progress: Progress | None = None,
) -> Float[Tensor, "B H W 3"]:
    """Sample views of one image, a batch at a time.

    Args:
        model: a loaded Zero123.
        rgb: 1 3 H W, the input image on white, in [0, 1].
        elevation_deg: of the views, a number or one per view.
        azimuth_deg: of the views, counted from the input's camera; a number or one per view.
        cfg: sampler, seed and batch size.
        progress: called with (done, total) network evaluations.

    Returns:
        B H W 3, in [0, 1], on the CPU.
    """
    as_numbers = [torch.as_tensor(value, dtype=torch.float32).reshape(-1) for value in (elevation_deg, azimuth_deg)]
    elevations, azimuths = torch.broadcast_tensors(*as_numbers)
    parts = list(zip(elevations.split(cfg.batch), azimuths.split(cfg.batch), strict=True))
    generator = torch.Generator().manual_seed(cfg.seed)
    views = []
    for index, (elevation, azimuth) in enumerate(parts):

        def show(done: int, total: int, before: int = index) -> None:
            if progress is not None:
                progress(before * total + done, len(parts) * total)

        views.append(
            model.sample(
                rgb,
                elevation,
                azimuth,
                cond_elevation_deg=cfg.elevation,
                steps=cfg.steps,
                scale=cfg.scale,
                eta=cfg.eta,
                generator=generator,
                sampler=cfg.sampler,
                progress=show,
            )
        )
    return torch.cat(views).permute(0, 2, 3, 1).cpu()


def novel_views(
    image: ImageLike,
    elevation_deg: PerView,
    azimuth_deg: PerView,
    cond_elevation_deg: float = 0.0,
    steps: int = 50,
    scale: float = 3.0,
    seed: int = 0,
    checkpoint: str = "auto",
    sampler: str = "ddim",
    dtype: str = "auto",
    device: str | None = None,
    model: Zero123Model | None = None,
    model_config: str | None = None,
) -> Float[Tensor, "B H W 3"]:
    """Sample an object's appearance from other cameras, given one image of it.

    Args:
        image: of one object, transparent or white around it, as `zero123s.prepare` returns it.
        elevation_deg: of the views, in degrees, a number or one per view.
        azimuth_deg: of the views, in degrees counted from the image's camera; a number or one per view.
        cond_elevation_deg: elevation of the image's camera in degrees.
        steps: network evaluations per view.
        scale: strength of classifier-free guidance.
        seed: of all randomness.
        checkpoint: "auto", a file, or a folder of the diffusers layout.
        sampler: see `sampling.sample_latents`.
        dtype: see `checkpoint.load_zero123`.
        device: where to compute; None = CUDA where there is one, else the CPU.
        model: a model loaded before, in place of `checkpoint`.
        model_config: the checkpoint's YAML; None = its metadata, a `.yaml` next to it, or its tensors' shapes.

    Returns:
        B H W 3, images in [0, 1] of the model's size.

    Raises:
        ImageError: the image cannot be read.
        CheckpointError: the checkpoint is missing or damaged.
        ConfigError: an option is out of range.
    """
    cfg = ViewsConfig(
        elevation=cond_elevation_deg, scale=scale, steps=steps, sampler=sampler, seed=seed, checkpoint=checkpoint
    )
    cfg.dtype, cfg.device, cfg.model_config = dtype, device, model_config
    rgb = read_on_white(image)
    return sample_views(model or load_for_views(cfg), rgb, elevation_deg, azimuth_deg, cfg)


def parse_angles(text: str) -> list[float]:
    """Read angles from text.

    Args:
        text: `30`, `0,90,180` or `start:stop:step` (stop excluded), in degrees.

    Returns:
        Angles in degrees.

    Raises:
        ConfigError: another form, or more than 10,000 angles.

    Example:
        >>> from zero123s.diffusion.novel_views import parse_angles
        >>> parse_angles("0:360:90")
        [0.0, 90.0, 180.0, 270.0]
    """
    try:
        if ":" not in text:
            angles = [float(item) for item in text.split(",")]
            if not np.isfinite(angles).all():
                raise ValueError
            return angles
        start, stop, step = (float(item) for item in text.split(":"))
        n = int(np.ceil((stop - start) / step))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"Angles '{text}' must be a number, a,b,c or start:stop:step.") from error
    if not 0 < n <= 10_000:
        raise ConfigError(f"Angles '{text}' make {n} views: the step must lead from start to stop.")
    return [start + i * step for i in range(n)]


def read_on_white(image: ImageLike) -> Float[Tensor, "1 3 S S"]:
    """Read an image as a square on white, its transparency composited.

    Args:
        image: a path, a PIL image, or an array H W 3 or H W 4, 8-bit or floats in [0, 1].

    Returns:
        1 3 S S, in [0, 1]; S is the longer edge.

    Raises:
        ImageError: it does not exist, cannot be read, or is fully transparent.

    Example:
        >>> import numpy as np
        >>> from zero123s.diffusion.novel_views import read_on_white
        >>> rgba = np.zeros((16, 32, 4))
        >>> rgba[4:12, 4:12] = [1, 0, 0, 1]  # an opaque red square
        >>> rgb = read_on_white(rgba)
        >>> rgb.shape, rgb[0, :, 0, 0].tolist()  # padded with white
        (torch.Size([1, 3, 32, 32]), [1.0, 1.0, 1.0])
    """
    rgb = composite(fit_square(to_rgba(image)), (1.0, 1.0, 1.0))
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None].contiguous()


def write_views(
    views: Float[Tensor, "N H W 3"], cameras: Sequence[tuple[float, float]], columns: int, out: str | Path
) -> list[Path]:
    """Write views as a contact sheet, one file per view in the folder named after it, and a video next to it.

    Args:
        views: N H W 3, in [0, 1].
        cameras: (elevation, azimuth) of each view in degrees, for the file names.
        columns: views per row of the sheet.
        out: the contact sheet.

    Returns:
        What was written: sheet, folder and, where a video can be encoded, video.

    Raises:
        ConfigError: `out` does not end as an image file does, or cannot be written.
    """
    out = check_sheet(out)
    frames = [(view.clamp(0, 1) * 255).round().byte().cpu().numpy() for view in views]
    height, width = frames[0].shape[:2]
    sheet = np.full((-(-len(frames) // columns) * height, columns * width, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        y, x = divmod(i, columns)
        sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = frame
    folder, video = out.with_suffix(""), out.with_suffix(".mp4")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(out)
        for frame, (elevation, azimuth) in zip(frames, cameras, strict=True):
            Image.fromarray(frame).save(folder / f"elevation{elevation:g}_azimuth{azimuth:g}.png")
        if find_spec("imageio_ffmpeg") is None:
            logger.warning("imageio-ffmpeg is not installed, so no video is written; `pip install imageio[ffmpeg]`")
            return [out, folder]
        imageio.mimwrite(video, list(frames), fps=FRAMES_PER_SECOND, macro_block_size=2)
    except OSError as error:
        raise ConfigError(f"Cannot write the views to {out}: {error}.") from error
    return [out, folder, video]


def check_sheet(out: str | Path) -> Path:
    """Check the name of a contact sheet.

    Args:
        out: its path.

    Returns:
        The path.

    Raises:
        ConfigError: it does not end as an image file does.
    """
    path = Path(out)
    if path.suffix.lower() not in SHEET_SUFFIXES:
        raise ConfigError(f"The contact sheet {out} must end in {', '.join(SHEET_SUFFIXES)}.")
    return path
