"""`zero123s prepare`: any photo becomes the centred, transparent picture that the main job wants."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from zero123s.errors import ImageError, UserError
from zero123s.preprocess.framing import Framing, frame_object
from zero123s.preprocess.images import (
    OPAQUE,
    LoadedImage,
    composite,
    fit_square,
    read_image,
    resize_rgba,
    write_png_atomic,
)
from zero123s.preprocess.segment import BACKENDS, THRESHOLD, Segmentation, segment

GAP = 8
"""Pixels between the pictures of the side-by-side view."""


@dataclass(frozen=True)
class Prepared:
    """A photo ready for the main job."""

    rgba: Float[np.ndarray, "S S 4"]
    framing: Framing
    segmentation: Segmentation
    steps: Float[np.ndarray, "H W 3"]
    """Side by side: the photo, its cut-out over white, black and green, and the framed picture."""
    notes: tuple[str, ...]


def prepare(
    photo: str | Path | Float[np.ndarray, "H W 4"], size: int = 512, backend: str = "auto", model: str = ""
) -> Prepared:
    """Return the object of `photo` cut out, centred and scaled to the share of the frame Zero123 was trained with.

    `photo` is a file, or straight-alpha pixels in [0, 1]. A doubtful cut-out is returned as well: `segmentation.confidence` says so, and `check` refuses it.

    Raises:
        ImageError: the photo cannot be read, or shows no object.
    """
    if isinstance(photo, np.ndarray):
        name, loaded = "the photo", LoadedImage(photo, bool((photo[..., 3] < OPAQUE).any()))
    else:
        name, loaded = f"'{photo}'", read_image(photo)
    segmentation = segment(loaded, backend, model)
    if not (segmentation.rgba[..., 3] >= 0.5).any():
        raise ImageError(
            f"No object was found in {name} ({segmentation.reason or 'the mask is empty'}); photograph it whole "
            "in front of a plain background of another colour, or give a picture with transparency."
        )
    rgba, framing = frame_object(segmentation.rgba, size)
    return Prepared(rgba, framing, segmentation, _side_by_side(loaded.rgba, segmentation.rgba, rgba), loaded.notes)


def check(prepared: Prepared, photo: str | Path, picture: str | Path) -> None:
    """Raise ImageError when the cut-out of `photo` is doubtful; `picture` is where the steps were drawn."""
    segmentation = prepared.segmentation
    if segmentation.confidence < THRESHOLD:
        raise ImageError(
            f"The cut-out of '{photo}' is doubtful: {segmentation.reason or 'many pixels are undecided'} (confidence "
            f"{segmentation.confidence:.2f}, {THRESHOLD} needed); look at '{picture}', then give a photo with a "
            "plainer background, or --force to use it as it is."
        )


def main(argv: list[str] | None = None) -> int:
    """Run `zero123s prepare PHOTO --out PNG`; returns 0, or 2 after a mistake that is told in one sentence."""
    parser = argparse.ArgumentParser("zero123s prepare", description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--out", type=Path, help="PNG to write; default: PHOTO_rgba.png beside the photo")
    parser.add_argument("--size", type=int, default=512, help="side of the result in pixels (default 512)")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="how the object is found (default auto)")
    parser.add_argument("--model", default="", help="id or folder of a segmentation model")
    parser.add_argument("--force", action="store_true", help="use a doubtful cut-out")
    args = parser.parse_args(argv)
    out = args.out or args.photo.with_name(f"{args.photo.stem}_rgba.png")
    picture = out.with_name(f"{out.stem}_steps.png")
    try:
        if not 16 <= args.size <= 4096:
            raise ImageError(f"--size {args.size} is out of range; give 16 to 4096 pixels.")
        if out.resolve() == args.photo.resolve():
            raise ImageError(f"'{out}' is the photo itself; choose another place with --out.")
        prepared = prepare(args.photo, args.size, args.backend, args.model)
        write_png_atomic(picture, prepared.steps)
        if not args.force:
            check(prepared, args.photo, picture)
        write_png_atomic(out, prepared.rgba)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in prepared.notes:
        print(note)
    segmentation = prepared.segmentation
    print(f"{out}: object found by {segmentation.method}, confidence {segmentation.confidence:.2f}; steps in {picture}")
    return 0


def _side_by_side(
    photo: Float[np.ndarray, "H W 4"], cut_out: Float[np.ndarray, "H W 4"], framed: Float[np.ndarray, "S S 4"]
) -> Float[np.ndarray, "h w 3"]:
    """Return every step at 256 pixels; halos show over one of the three colours."""
    photo, cut_out, framed = (resize_rgba(fit_square(image), 256, 256) for image in (photo, cut_out, framed))
    white, black, green = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    panels = [
        composite(photo, white),
        *(composite(cut_out, c) for c in (white, black, green)),
        composite(framed, white),
    ]
    gap = np.full((256, GAP, 3), 0.5, np.float32)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
