"""`zero123s views photo.png`: novel views of one picture as single files, a contact sheet and a video."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from zero123s.diffusion.checkpoint import load_zero123
from zero123s.diffusion.locate import locate_checkpoint
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.sampling import SAMPLERS
from zero123s.errors import ConfigError, ImageError, UserError

FRAMES_PER_SECOND = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one sentence on standard error."""
    arguments = _parser().parse_args(argv)
    try:
        run(arguments)
    except UserError as error:
        print(f"zero123s views: {error}", file=sys.stderr)
        return 2
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Sample every asked view and write the pictures; raises UserError."""
    azimuths, elevations = (
        parse_angles(arguments.azimuths),
        parse_angles(arguments.elevations or str(arguments.elevation)),
    )
    cameras = [(elevation, azimuth) for elevation in elevations for azimuth in azimuths]
    if arguments.batch < 1:
        raise ConfigError(f"--batch {arguments.batch} must be at least 1.")
    out = Path(arguments.out)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"--out {out} must end in .png, .jpg or .webp.")
    rgb = read_picture(arguments.image)
    located = locate_checkpoint(arguments.checkpoint)
    model = load_zero123(
        located.path, arguments.config, arguments.family, not arguments.no_ema, arguments.dtype, arguments.device
    )
    generator = torch.Generator().manual_seed(arguments.seed)
    views = []
    started = time.monotonic()
    n_batches = -(-len(cameras) // arguments.batch)
    for index in range(n_batches):
        part = cameras[index * arguments.batch : (index + 1) * arguments.batch]

        def show(done: int, total: int, index: int = index) -> None:
            _progress((index + done / total) / n_batches, time.monotonic() - started)

        views.append(_sample(model, rgb, part, arguments, generator, show))
    sys.stderr.write("\n")
    for path in write_views(torch.cat(views), cameras, len(azimuths), out):
        print(path)


def parse_angles(text: str) -> list[float]:
    """Read `30`, `0,90,180` or `start:stop:step` (stop excluded) in degrees; raises ConfigError."""
    try:
        if ":" not in text:
            return [float(item) for item in text.split(",")]
        start, stop, step = (float(item) for item in text.split(":"))
        n = int(np.ceil((stop - start) / step))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"Angles '{text}' must be a number, a,b,c or start:stop:step.") from error
    if not 0 < n <= 10_000:
        raise ConfigError(f"Angles '{text}' make {n} views: the step must lead from start to stop.")
    return [start + i * step for i in range(n)]


def read_picture(path: str | Path) -> Float[Tensor, "1 3 S S"]:
    """Read a picture as a square on white, its transparency composited; raises ImageError."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGBA")
    except FileNotFoundError as error:
        raise ImageError(f"The picture {path} does not exist.") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ImageError(f"Cannot read {path} as a picture: {error}.") from error
    edge = max(picture.size)
    square = Image.new("RGBA", (edge, edge), "white")
    square.alpha_composite(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
    pixels = torch.from_numpy(np.array(square.convert("RGB"))).float() / 255
    return pixels.permute(2, 0, 1)[None].contiguous()


def write_views(
    views: Float[Tensor, "N 3 H W"], cameras: Sequence[tuple[float, float]], columns: int, out: Path
) -> list[Path]:
    """Write the contact sheet `out`, one file per view in the folder named after it, and a video beside it."""
    import imageio.v2 as imageio

    frames = [(view.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy() for view in views]
    size = frames[0].shape[0]
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * size, columns * size, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        y, x = divmod(i, columns)
        sheet[y * size : (y + 1) * size, x * size : (x + 1) * size] = frame
    folder = out.with_suffix("")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(out)
        for frame, (elevation, azimuth) in zip(frames, cameras, strict=True):
            Image.fromarray(frame).save(folder / f"elevation{elevation:g}_azimuth{azimuth:g}.png")
        video = out.with_suffix(".mp4")
        imageio.mimwrite(video, [np.asarray(f) for f in frames], fps=FRAMES_PER_SECOND, macro_block_size=2)
    except OSError as error:
        raise ConfigError(f"Cannot write the views to {out}: {error}.") from error
    return [out, folder, video]


def _sample(
    model: Zero123Model,
    rgb: Tensor,
    cameras: Sequence[tuple[float, float]],
    arguments: argparse.Namespace,
    generator: torch.Generator,
    progress,
) -> Tensor:
    elevations, azimuths = zip(*cameras, strict=True)
    return model.sample(
        rgb,
        elevations,
        azimuths,
        cond_elevation_deg=arguments.elevation,
        steps=arguments.steps,
        scale=arguments.scale,
        eta=arguments.eta,
        generator=generator,
        sampler=arguments.sampler,
        progress=progress,
    )


def _progress(fraction: float, seconds: float) -> None:
    bar = "#" * round(30 * fraction)
    left = seconds / fraction - seconds if fraction > 0 else 0.0
    sys.stderr.write(f"\r[{bar:<30}] {100 * fraction:3.0f} %  {seconds:.0f} s, {left:.0f} s left ")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zero123s views", description=__doc__)
    parser.add_argument("image", help="a picture of one object, transparent or white around it")
    parser.add_argument("--elevation", type=float, default=0.0, help="elevation of the picture's camera, degrees")
    parser.add_argument("--azimuths", default="0:360:45", help="degrees from the picture: a,b,c or start:stop:step")
    parser.add_argument("--elevations", help="elevations of the new views; default: the picture's own")
    parser.add_argument("--scale", type=float, default=3.0, help="classifier-free guidance")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--eta", type=float, default=0.0, help="fresh noise per step, 0 to 1 (ddim, original)")
    parser.add_argument("--sampler", choices=SAMPLERS, default="ddim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8, help="views per call of the network")
    parser.add_argument("--checkpoint", default="auto")
    parser.add_argument("--config", help="the checkpoint's YAML, if it has another size than the original")
    parser.add_argument("--family", default="auto")
    parser.add_argument("--no-ema", action="store_true", help="take the plain weights, not their moving average")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="views.png", help="the contact sheet; a folder and a video go beside it")
    return parser
