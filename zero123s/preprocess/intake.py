"""What a run is given becomes what it works on: a photo or a sentence in, a framed picture with transparency out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from zero123s.config.options import option
from zero123s.errors import ImageError
from zero123s.images.io import OPAQUE, LoadedImage, composite, fit_square, read_image, resize_rgba
from zero123s.preprocess.framing import Framing, frame_object, native_size, object_bounds
from zero123s.preprocess.segment import BACKENDS, THRESHOLD, Segmentation, segment
from zero123s.preprocess.text_to_image import TextToImageConfig, draw

GAP = 8
"""Pixels between the pictures of the side-by-side view."""
SMALL_SHARE, OFF_CENTRE = 0.5, 0.1
"""Shares of the frame: below the first an object is small, beyond the second it is off centre."""


class DoubtfulCutOut(ImageError):
    """A cut-out that is not trusted.

    Args:
        message: one sentence in which {picture} stands for where the steps were drawn.
        steps: the picture to look at.
    """

    def __init__(self, message: str, steps: Float[np.ndarray, "H W 3"]) -> None:
        super().__init__(message.replace("look at '{picture}', then ", ""))
        self.message = message
        self.steps = steps

    def shown_in(self, picture: Path) -> ImageError:
        """Return the error that names the file into which `steps` was written."""
        return ImageError(self.message.replace("{picture}", str(picture)))


@dataclass
class CutOutConfig:
    """How the object of a photo is found and framed."""

    backend: str = option("auto", choices=BACKENDS)
    """"auto" uses the file's transparency where there is some, else `grabcut`, which needs no weights."""
    model: str = option("", path=True)
    """For `transformers` the id or folder of a segmentation model, for `rembg` a model's name."""
    force: bool = False
    """Use a doubtful cut-out."""
    frame: str = option("auto", choices=("auto", "always", "never"))
    """"auto" centres and scales what was cut out here; pictures with transparency of their own stay as they are."""


@dataclass(frozen=True)
class Prepared:
    """A photo ready for the main job."""

    rgba: Float[np.ndarray, "S S 4"]
    framing: Framing
    segmentation: Segmentation
    steps: Float[np.ndarray, "H W 3"]
    """Side by side: the photo, its cut-out over white, black and green, and the framed picture."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Intake:
    """The picture that a run works on, and how it came to be."""

    rgba: Float[np.ndarray, "S S 4"]
    cut_out: Float[np.ndarray, "H W 4"]
    """The same object in the frame of the file, where its depth and normal pictures belong."""
    framing: Framing | None = None
    """From the file's frame to `rgba`; None = only padded to a square."""
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Pictures for the run folder, by file stem; empty where the file is used as it is."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What run.json says of it."""
    notes: tuple[str, ...] = ()


def prepare_loaded(
    loaded: LoadedImage, name: str, size: int | None = 512, backend: str = "auto", model: str = ""
) -> Prepared:
    """Return the object of a photo cut out, centred and scaled to the share of the frame Zero123 was trained with.

    A doubtful cut-out is returned as well: `segmentation.confidence` says so, and `check` refuses it.

    Args:
        loaded: the photo.
        name: what errors call it.
        size: side of the result in pixels; None = as fine as the photo.
        backend, model: see `segment`.

    Raises:
        ImageError: the photo shows no object.
    """
    segmentation = segment(loaded, backend, model)
    if not (segmentation.rgba[..., 3] >= 0.5).any():
        raise ImageError(
            f"No object was found in {name} ({segmentation.reason or 'the mask is empty'}); photograph it whole "
            "in front of a plain background of another colour, or give a picture with transparency."
        )
    size = size or native_size(segmentation.rgba[..., 3])
    rgba, framing = frame_object(segmentation.rgba, size)
    return Prepared(rgba, framing, segmentation, side_by_side(loaded.rgba, segmentation.rgba, rgba), loaded.notes)


def prepare(
    photo: str | Path | Float[np.ndarray, "H W 4"], size: int = 512, backend: str = "auto", model: str = ""
) -> Prepared:
    """Return the object of `photo`, a file or straight-alpha pixels in [0, 1], cut out and framed; see `prepare_loaded`.

    Raises:
        ImageError: the photo cannot be read, or shows no object.
    """
    if isinstance(photo, np.ndarray):
        return prepare_loaded(
            LoadedImage(photo, bool((photo[..., 3] < OPAQUE).any())), "the photo", size, backend, model
        )
    return prepare_loaded(read_image(photo), f"'{photo}'", size, backend, model)


def check(prepared: Prepared, name: str | Path, force_by: str = "--force") -> None:
    """Raise DoubtfulCutOut when the cut-out is doubtful; `force_by` is what a user would say to use it nevertheless."""
    segmentation = prepared.segmentation
    if segmentation.confidence < THRESHOLD:
        raise DoubtfulCutOut(
            f"The cut-out of '{name}' is doubtful: {segmentation.reason or 'many pixels are undecided'} (confidence "
            f"{segmentation.confidence:.2f}, {THRESHOLD} needed); look at '{{picture}}', then give a photo with a "
            f"plainer background, or {force_by} to use it as it is.",
            prepared.steps,
        )


def take_in_picture(path: str, cfg: CutOutConfig) -> Intake:
    """Return the object of a file: as it is where it has transparency of its own, else cut out and framed.

    Raises:
        ImageError: the file cannot be used; DoubtfulCutOut when a person should look at the cut-out first.
    """
    loaded = read_image(path)
    as_it_is = loaded.has_alpha and cfg.backend in ("auto", "alpha")
    if as_it_is and cfg.frame != "always":
        return Intake(fit_square(loaded.rgba), loaded.rgba, notes=(*loaded.notes, *_framing_notes(loaded.rgba, path)))
    return _cut_out(loaded, path, cfg)


def take_in_prompt(prompt: str, drawing: TextToImageConfig, cfg: CutOutConfig, seed: int) -> Intake:
    """Return the object that a sentence describes: drawn, the best candidate chosen, cut out and framed.

    Raises:
        ConfigError, ImageError: see `draw` and `take_in_picture`.
    """
    drawn = draw(prompt, drawing, seed, "cuda" if torch.cuda.is_available() else "cpu")
    if all(c.score == 0 for c in drawn.candidates):
        raise ImageError(
            f"None of the {len(drawn.candidates)} pictures drawn for '{prompt}' shows one object before a plain "
            "background; change data.prompt or seed, or draw more with data.text_to_image.candidates."
        )
    rgb = drawn.candidates[drawn.chosen].rgb
    rgba = np.concatenate([rgb, np.ones_like(rgb[..., :1])], axis=-1).astype(np.float32)
    try:
        intake = _cut_out(LoadedImage(rgba, False), f"candidate {drawn.chosen}", cfg)
    except DoubtfulCutOut as error:
        raise DoubtfulCutOut(error.message, _stacked(drawn.contact_sheet, error.steps)) from error
    facts = {"prompt": prompt, "model": drawing.model, "chosen": drawn.chosen}
    facts["scores"] = [round(c.score, 3) for c in drawn.candidates]
    kept = {"candidates": drawn.contact_sheet, "drawn": rgb, **intake.kept}
    return Intake(intake.rgba, intake.cut_out, intake.framing, kept, {**facts, **intake.facts}, intake.notes)


def side_by_side(
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


def _cut_out(loaded: LoadedImage, name: str, cfg: CutOutConfig) -> Intake:
    prepared = prepare_loaded(loaded, f"'{name}'", None, cfg.backend, cfg.model)
    if not cfg.force:
        check(prepared, name, "data.cut_out.force=true")
    found = prepared.segmentation
    facts: dict[str, Any] = {"source": name, "method": found.method, "confidence": round(found.confidence, 3)}
    if found.reason:
        facts["doubt"] = found.reason
    kept = {"steps": prepared.steps}
    if cfg.frame == "never":
        return Intake(fit_square(found.rgba), found.rgba, None, kept, facts, prepared.notes)
    facts["framing"] = {
        "scale": prepared.framing.scale,
        "offset": prepared.framing.offset,
        "size": prepared.framing.size,
    }
    return Intake(prepared.rgba, found.rgba, prepared.framing, kept, facts, prepared.notes)


def _framing_notes(rgba: Float[np.ndarray, "H W 4"], path: str) -> tuple[str, ...]:
    """Say when an object with transparency of its own stands where Zero123 does not expect it."""
    height, width = rgba.shape[:2]
    left, top, right, bottom = object_bounds(rgba[..., 3])
    side = max(height, width)
    share = max(right - left, bottom - top) / side
    off = max(abs(left + right - width), abs(top + bottom - height)) / 2 / side
    if share >= SMALL_SHARE and off <= OFF_CENTRE:
        return ()
    return (
        f"the object of {Path(path).name} takes {share:.0%} of the frame, {off:.0%} off its centre; "
        "data.cut_out.frame=always centres it and scales it to 78%.",
    )


def _stacked(above: Float[np.ndarray, "a b 3"], below: Float[np.ndarray, "c d 3"]) -> Float[np.ndarray, "h w 3"]:
    width = max(above.shape[1], below.shape[1])
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=1.0) for p in (above, below)]
    return np.concatenate(padded)
