"""Prepares an uploaded image for a run, with the visitor's corrections."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from zero123s.errors import ImageError
from zero123s.images.io import OPAQUE, LoadedImage, fit_square, read_image, resize_rgba
from zero123s.preprocess.elevation import ElevationEstimate, estimate_elevation
from zero123s.preprocess.framing import SHARE, apply_framing, frame_object, native_size
from zero123s.preprocess.input_image import is_small_in_frame, side_by_side
from zero123s.preprocess.mask_confidence import THRESHOLD
from zero123s.preprocess.segment import Segmentation, segment

MAX_SIDE = 2048
"""Pixels; a larger photo is made smaller at once: no texture would show more of it."""
ADD, REMOVE = "#00c853", "#ff1744"
"""Colours of the two brushes."""
MAX_CROP = 0.9
"""Share of the photo that may be cut off in one direction."""


@dataclass(frozen=True)
class Limits:
    """Limits of uploads."""

    megabytes: float = 20.0
    megapixels: float = 24.0


@dataclass(frozen=True)
class Corrections:
    """A visitor's corrections."""

    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Shares of the photo cut off on the left, right, top and bottom before anything else."""
    share: float = SHARE
    """Of the frame that the object's longer side takes."""
    shift: tuple[float, float] = (0.0, 0.0)
    """To the right and upwards, in shares of the frame."""
    framed: bool | None = None
    """Centre and scale the object; None = unless it came cut out already and fills half of the frame."""


@dataclass(frozen=True)
class PreparedPhoto:
    """A prepared photo, and the steps for the visitor to inspect."""

    rgba: Float[np.ndarray, "S S 4"]
    steps: Float[np.ndarray, "H W 3"]
    """The photo, its cut-out over white, black and green, and the framed image."""
    segmentation: Segmentation
    elevation: ElevationEstimate
    notes: tuple[str, ...] = ()

    @property
    def is_uncertain(self) -> bool:
        """Whether the cut-out should be corrected before it is used."""
        return self.segmentation.confidence < THRESHOLD

    def summary(self) -> str:
        """Return the text below the image."""
        found, guess = self.segmentation, self.elevation
        doubt = f" Doubtful: {found.reason or 'many pixels are undecided'}." if self.is_uncertain else ""
        lines = [f"O{found.caption[1:]}.{doubt}"]
        lines.append(f"Elevation: about {guess.elevation_deg:.0f} degrees, confidence {guess.confidence:.2f}.")
        return "\n\n".join([*lines, *self.notes])


def read_upload(path: str | Path, limits: Limits, name: str = "") -> LoadedImage:
    """Return an uploaded image, at most MAX_SIDE pixels a side.

    Args:
        name: what errors call it; never the server's own path.

    Raises:
        ImageError: too large a file, too many pixels, no image, damaged, empty.
    """
    path = Path(path)
    name = Path(name or path.name).name
    size = path.stat().st_size if path.is_file() else 0
    if size > 1e6 * limits.megabytes:
        raise ImageError(
            f"'{name}' has {size / 1e6:.1f} MB, more than the {limits.megabytes:g} MB that are taken; make it smaller."
        )
    try:
        loaded = read_image(path, int(1e6 * limits.megapixels))
    except ImageError as error:
        raise ImageError(str(error).replace(str(path), name)) from error
    height, width = loaded.rgba.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        loaded = replace(loaded, rgba=resize_rgba(loaded.rgba, round(height * scale), round(width * scale)))
    return loaded


def prepare_photo(
    photo: LoadedImage, corrections: Corrections | None = None, strokes: Float[np.ndarray, "h w 4"] | None = None
) -> PreparedPhoto:
    """Return a photo cut out, corrected and framed.

    Args:
        strokes: what was painted over the whole photo, straight alpha: ADD where the object is, REMOVE where it is not.

    Raises:
        ImageError: nothing is left of the object, or a correction is out of range.
    """
    corrections = corrections or Corrections()
    _check(corrections)
    rows, columns = _window(photo.rgba.shape[:2], corrections.crop)
    cropped = photo.rgba[rows, columns]
    loaded = LoadedImage(np.ascontiguousarray(cropped), bool((cropped[..., 3] < OPAQUE).any()), photo.notes)
    found = segment(loaded)
    if strokes is not None:
        painted = resize_rgba(np.asarray(strokes, np.float32), *photo.rgba.shape[:2])[rows, columns]
        found = replace(found, rgba=paint(found.rgba, loaded.rgba, painted))
    if not (found.rgba[..., 3] >= 0.5).any():
        raise ImageError(
            f"No object was found ({found.reason or 'the mask is empty'}); paint over it with the green brush, or give a "
            "photo with a plainer background."
        )
    framed = corrections.framed
    if framed is None:
        framed = found.method != "alpha" or is_small_in_frame(found.rgba[..., 3])
    rgba = _frame(found.rgba, corrections) if framed else fit_square(found.rgba)
    steps = side_by_side(loaded.rgba, found.rgba, rgba, found.caption)
    return PreparedPhoto(rgba, steps, found, estimate_elevation(rgba), (*loaded.notes, *found.notes))


def paint(
    cut_out: Float[np.ndarray, "H W 4"], photo: Float[np.ndarray, "H W 4"], strokes: Float[np.ndarray, "H W 4"]
) -> Float[np.ndarray, "H W 4"]:
    """Apply painted strokes to a cut-out: the green brush adds from the photo, the red one removes."""
    green, red = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255 for c in (ADD, REMOVE))
    covered = strokes[..., 3] > 0.5
    towards_green = np.linalg.norm(strokes[..., :3] - green, axis=-1) < np.linalg.norm(strokes[..., :3] - red, axis=-1)
    rgba = np.where(
        (covered & towards_green)[..., None],
        np.concatenate([photo[..., :3], np.ones_like(photo[..., :1])], -1),
        cut_out,
    )
    return np.where((covered & ~towards_green)[..., None], 0.0, rgba).astype(np.float32)


def _check(corrections: Corrections) -> None:
    left, right, top, bottom = corrections.crop
    if min(corrections.crop) < 0 or max(left + right, top + bottom) > MAX_CROP:
        raise ImageError(f"The crop leaves less than {1 - MAX_CROP:.0%} of the photo; cut off less.")
    if not 0.2 <= corrections.share <= 1.0:
        raise ImageError("The object's share of the frame must be 0.2 to 1.")
    if max(abs(v) for v in corrections.shift) > 0.5:
        raise ImageError("The object can be shifted by at most half of the frame.")


def _window(shape: tuple[int, int], crop: tuple[float, float, float, float]) -> tuple[slice, slice]:
    height, width = shape
    left, right, top, bottom = crop
    return (
        slice(round(top * height), height - round(bottom * height)),
        slice(round(left * width), width - round(right * width)),
    )


def _frame(cut_out: Float[np.ndarray, "H W 4"], corrections: Corrections) -> Float[np.ndarray, "S S 4"]:
    size = native_size(cut_out[..., 3], corrections.share)
    rgba, framing = frame_object(cut_out, size, corrections.share)
    right, up = corrections.shift
    if right or up:
        offset = (framing.offset[0] + right * size, framing.offset[1] - up * size)
        rgba = apply_framing(cut_out, replace(framing, offset=offset))
    return rgba
