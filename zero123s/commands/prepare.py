"""`zero123s prepare`: turns a photo into the centred, transparent image that training needs."""

import argparse
import sys
from pathlib import Path

import numpy as np

from zero123s.errors import ImageError, UserError
from zero123s.images.io import write_png_atomic
from zero123s.preprocess.input_image import LowConfidenceMaskError, Prepared, check, prepare
from zero123s.preprocess.segment import BACKENDS
from zero123s.runtime.files import user_path


def main(argv: list[str] | None = None) -> int:
    """Run `zero123s prepare PHOTO --out PNG`; returns 0, or 2 after a user error, reported in one sentence."""
    parser = argparse.ArgumentParser("zero123s prepare", description=__doc__)
    parser.add_argument("photo", type=user_path)
    parser.add_argument("--out", type=user_path, help="PNG to write; default: PHOTO_rgba.png next to the photo")
    parser.add_argument("--size", type=int, default=512, help="side of the result in pixels (default 512)")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="how the object is found (default auto)")
    parser.add_argument(
        "--model", type=lambda text: str(user_path(text)), default="", help="id or folder of a segmentation model"
    )
    parser.add_argument("--force", action="store_true", help="use a doubtful cut-out")
    parser.add_argument("--no-elevation", action="store_true", help="do not estimate from which elevation it was taken")
    args = parser.parse_args(argv)
    out = args.out or args.photo.with_name(f"{args.photo.stem}_rgba.png")
    steps_path = out.with_name(f"{out.stem}_steps.png")
    try:
        if not 16 <= args.size <= 4096:
            raise ImageError(f"--size {args.size} is out of range; give 16 to 4096 pixels.")
        if out.resolve() == args.photo.resolve():
            raise ImageError(f"'{out}' is the photo itself; choose another place with --out.")
        prepared = prepare(args.photo, args.size, args.backend, args.model)
        write_png_atomic(steps_path, prepared.steps)
        if not args.force:
            check(prepared, args.photo)
        write_png_atomic(out, prepared.rgba)
        elevation = "" if args.no_elevation else _report_elevation(prepared, steps_path)
    except LowConfidenceMaskError as error:
        print(f"error: {error.with_steps_saved_at(steps_path)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in prepared.notes:
        print(note)
    segmentation = prepared.segmentation
    if elevation:
        print(elevation)
    print(f"{out}: {segmentation.caption}; steps in {steps_path}")
    return 0


def _report_elevation(prepared: Prepared, steps_path: Path) -> str:
    """Return the message about the elevation, and add the plot of its scores to the image of the steps."""
    from zero123s.preprocess.elevation import estimate_elevation, score_panel

    estimate = estimate_elevation(prepared.rgba)
    panel = score_panel(estimate)
    panel = np.pad(panel, ((0, len(prepared.steps) - len(panel)), (0, 0), (0, 0)), constant_values=1)
    write_png_atomic(steps_path, np.concatenate([prepared.steps, panel], axis=1))
    return "\n".join([*estimate.warnings, estimate.summary()])
