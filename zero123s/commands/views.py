"""`zero123s views photo.png`: novel views of one image as single files, a contact sheet and a video."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from zero123s.config.interpolation import resolve
from zero123s.config.load import load_config
from zero123s.config.parse import parse
from zero123s.diffusion.novel_views import (
    ViewsConfig,
    check_sheet,
    load_for_views,
    parse_angles,
    read_on_white,
    sample_views,
    write_views,
)
from zero123s.errors import UserError
from zero123s.runtime.files import user_path

_HELP = {
    "elevation": "elevation of the image's camera, degrees",
    "azimuths": "degrees from the image: a,b,c or start:stop:step",
    "elevations": "elevations of the new views; default: the image's own",
    "scale": "classifier-free guidance",
    "steps": "network evaluations per view",
    "sampler": "ddim, euler, dpm-solver, or original (the released code's own timesteps)",
    "eta": "fresh noise per step, 0 to 1 (ddim, original)",
    "batch": "views per call of the network",
    "checkpoint": "auto, a file, or a diffusers folder",
    "model_config": "the checkpoint's YAML, if it has another size than the original",
    "family": "auto, stable-zero123 or zero123",
    "ema": "take the moving average of the weights",
    "dtype": "auto, fp32, bf16 or fp16",
    "device": "cuda or cpu",
    "fast": "take faster ways to the same result",
    "out": "the contact sheet; a folder and a video are written next to it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one sentence on standard error."""
    arguments = vars(_parser().parse_args(argv))
    try:
        run(arguments.pop("image"), read_settings(arguments.pop("config", None), arguments))
    except UserError as error:
        print(f"zero123s views: {error}", file=sys.stderr)
        return 2
    return 0


def run(image: str, cfg: ViewsConfig) -> None:
    """Sample all requested views, write the images and print their paths; raises UserError."""
    azimuths = parse_angles(cfg.azimuths)
    elevations = [cfg.elevation] if cfg.elevations is None else parse_angles(cfg.elevations)
    cameras = [(elevation, azimuth) for elevation in elevations for azimuth in azimuths]
    check_sheet(cfg.out)
    rgb = read_on_white(image)
    model = load_for_views(cfg)
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        _progress(done / total, time.monotonic() - started)

    views = sample_views(model, rgb, [c[0] for c in cameras], [c[1] for c in cameras], cfg, show)
    sys.stderr.write("\n")
    for path in write_views(views, cameras, len(azimuths), cfg.out):
        print(path)


def read_settings(config: str | None, flags: dict[str, Any]) -> ViewsConfig:
    """Return the settings: defaults, overridden by the YAML file, overridden by the flags; raises ConfigError."""
    section = {} if config is None else dict(resolve(load_config(config).cfg))
    return parse(ViewsConfig, section | flags)


def _progress(fraction: float, seconds: float) -> None:
    bar = "#" * round(30 * fraction)
    left = seconds / fraction - seconds if fraction > 0 else 0.0
    sys.stderr.write(f"\r[{bar:<30}] {100 * fraction:3.0f} %  {seconds:.0f} s, {left:.0f} s left ")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zero123s views", description=__doc__, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    parser.add_argument("image", help="an image of one object, transparent or white around it")
    parser.add_argument(
        "--config", type=user_path, help="a YAML of these settings; configs/novel-views.yaml lists the defaults"
    )
    for field in fields(ViewsConfig):
        flag = "--" + field.name.replace("_", "-")
        if field.type is bool:
            parser.add_argument(
                flag, dest=field.name, action=argparse.BooleanOptionalAction, help=_HELP.get(field.name)
            )
        else:
            kind = field.type if field.type in (int, float) else str
            parser.add_argument(flag, dest=field.name, type=kind, help=_HELP.get(field.name))
    return parser
