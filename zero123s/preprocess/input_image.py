"""Turns a photo or a prompt into the framed image with transparency that a run is trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float

from zero123s.config.options import option
from zero123s.errors import ImageError
from zero123s.images.io import OPAQUE, LoadedImage, composite, fit_square, read_image, resize_rgba
from zero123s.preprocess.framing import Framing, frame_object, native_size, object_bounds
from zero123s.preprocess.mask_confidence import THRESHOLD
from zero123s.preprocess.segment import BACKENDS, NETWORKS, Segmentation, segment
from zero123s.preprocess.segmentation_networks import rembg_is_installed
from zero123s.preprocess.text_to_image import TextToImageConfig, generate_candidates

GAP, CAPTION = 8, 24
"""Pixels between the images of the side-by-side view, and below them for a line of text."""
SMALL_SHARE, OFF_CENTRE = 0.5, 0.1
"""Shares of the frame: below the first an object is small, beyond the second it is off centre."""


class LowConfidenceMaskError(ImageError):
    """The object was cut out with too low a confidence.

    Args:
        message: one sentence, with {image} in the place of the path of the saved steps.
        steps: the steps of the preparation side by side, to inspect.
    """

    def __init__(self, message: str, steps: Float[np.ndarray, "H W 3"]) -> None:
        super().__init__(message.replace("look at '{image}', then ", ""))
        self.message = message
        self.steps = steps

    def with_steps_saved_at(self, image: Path) -> ImageError:
        """Return the error with the path of the saved steps in its message.

        Args:
            image: file to which `steps` was written.

        Returns:
            The error to raise.
        """
        return ImageError(self.message.replace("{image}", str(image)))


@dataclass
class CutOutConfig:
    """How the object of a photo is found and framed."""

    backend: str = option("auto", choices=BACKENDS)
    """"auto": the file's transparency, else `grabcut`, which needs no weights, else `rembg` where it is installed."""
    model: str = option("", path=True)
    """For `transformers` the id or folder of a segmentation model, for `rembg` a model's name."""
    force: bool = False
    """Use a low-confidence cut-out."""
    frame: str = option("auto", choices=("auto", "always", "never"))
    """"auto" centres and scales what was cut out here, and a file's own cut-out that takes less than half the frame."""


@dataclass(frozen=True)
class Prepared:
    """A photo with its object cut out and framed."""

    rgba: Float[np.ndarray, "S S 4"]
    framing: Framing
    segmentation: Segmentation
    steps: Float[np.ndarray, "H W 3"]
    """Side by side: the photo, its cut-out over white, black and green, and the framed image."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class InputImage:
    """The image that a run is trained on, and how it was prepared."""

    rgba: Float[np.ndarray, "S S 4"]
    cut_out: Float[np.ndarray, "H W 4"]
    """The same object in the frame of the file, where its depth and normal images belong."""
    framing: Framing | None = None
    """From the file's frame to `rgba`; None = only padded to a square."""
    saved: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Images for the run folder, by file stem; empty where the file is used as it is."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Its description in run.json."""
    notes: tuple[str, ...] = ()


def prepare_loaded(
    loaded: LoadedImage, name: str, size: int | None = 512, backend: str = "auto", model: str = ""
) -> Prepared:
    """Cut the object out of a photo, centre it and scale it to the share of the frame that Zero123 was trained with.

    A mask of low confidence is returned as well, for `check` to refuse.

    Args:
        loaded: the photo.
        name: of the photo, for error messages.
        size: side of the result in pixels; None = the photo's resolution.
        backend, model: see `segment`.

    Returns:
        The framed image, the map to it, the mask and the steps to inspect.

    Raises:
        ImageError: the photo shows no object.
        ConfigError, MissingDependencyError: see `segment`.
    """
    segmentation = segment(loaded, backend, model)
    if not (segmentation.rgba[..., 3] >= 0.5).any():
        raise ImageError(
            f"No object was found in {name} ({segmentation.reason or 'the mask is empty'}); photograph it whole "
            f"in front of a plain background of another colour, {_network_advice(segmentation)}or give an image with "
            f"transparency.{_failures(segmentation)}"
        )
    size = size or native_size(segmentation.rgba[..., 3])
    rgba, framing = frame_object(segmentation.rgba, size)
    steps = side_by_side(loaded.rgba, segmentation.rgba, rgba, segmentation.caption)
    return Prepared(rgba, framing, segmentation, steps, (*loaded.notes, *segmentation.notes))


def prepare(
    photo: str | Path | Float[np.ndarray, "H W 4"], size: int = 512, backend: str = "auto", model: str = ""
) -> Prepared:
    """Cut out and frame the object of a photo; see `prepare_loaded`.

    Args:
        photo: a file, or H W 4 straight alpha in [0, 1].
        size: side S of the result in pixels.
        backend, model: see `segment`.

    Returns:
        The framed image S S 4, the map to it, the mask and the steps to inspect.

    Raises:
        ImageError: the photo cannot be read, or shows no object.
        ConfigError, MissingDependencyError: see `segment`.

    Example:
        >>> import numpy as np
        >>> from zero123s.preprocess.input_image import prepare
        >>> photo = np.zeros((96, 96, 4), np.float32)
        >>> photo[20:80, 30:60] = 1
        >>> prepare(photo, size=128).rgba.shape
        (128, 128, 4)
    """
    if isinstance(photo, np.ndarray):
        return prepare_loaded(
            LoadedImage(photo, bool((photo[..., 3] < OPAQUE).any())), "the photo", size, backend, model
        )
    return prepare_loaded(read_image(photo), f"'{photo}'", size, backend, model)


def check(prepared: Prepared, name: str | Path, force_by: str = "--force") -> None:
    """Refuse a mask of low confidence.

    Args:
        prepared: the prepared photo.
        name: of the photo, for the message.
        force_by: option that overrides the refusal, for the message.

    Raises:
        LowConfidenceMaskError: the confidence is below THRESHOLD.
    """
    if prepared.segmentation.confidence < THRESHOLD:
        raise LowConfidenceMaskError(
            low_confidence_message(prepared.segmentation, f"'{name}'", force_by), prepared.steps
        )


def low_confidence_message(found: Segmentation, name: str, force_by: str) -> str:
    """Explain why a mask is refused and list the remedies.

    Args:
        found: the mask.
        name: of the photo.
        force_by: option that overrides the refusal.

    Returns:
        One sentence; {image} in it stands for the path of the saved steps.
    """
    remedies = ["give an image that shows the whole object larger"]
    if found.method != "alpha":
        remedies = ["give a photo with a plainer background"]
        remedies += [advice.rstrip(", ")] if (advice := _network_advice(found)) else []
    return (
        f"The cut-out of {name} is doubtful: {found.reason or 'many pixels are undecided'} (confidence "
        f"{found.confidence:.2f}, {THRESHOLD} needed); look at '{{image}}', then {', '.join(remedies)}, or {force_by} to "
        f"use it as it is.{_failures(found)}"
    )


def _network_advice(found: Segmentation) -> str:
    if found.method == "alpha" or found.network_tried:
        return ""
    return "install a network that finds objects anywhere (pip install -e '.[segment]'), "


def _failures(found: Segmentation) -> str:
    return "".join(f" {note}" for note in found.notes if found.network_tried)


def input_from_file(path: str, cfg: CutOutConfig) -> InputImage:
    """Read the object of a file: unchanged if the file has transparency, else cut out and framed.

    Args:
        path: of the image.
        cfg: backend and framing.

    Returns:
        The image to train on, and how it was prepared.

    Raises:
        ImageError: the file cannot be used; LowConfidenceMaskError if the cut-out should be inspected first.
    """
    return _input_from(read_image(path), path, cfg)


def check_file(path: str | Path, cfg: CutOutConfig) -> LoadedImage:
    """Read a file and raise the ImageError with which `input_from_file` would end, without running a network.

    Args:
        path: of the image.
        cfg: backend and framing; where it selects a network, the file is only read.

    Returns:
        The image as read.

    Raises:
        ImageError: see `input_from_file`.
    """
    loaded = read_image(path)
    asks_rembg = cfg.backend == "auto" and not loaded.has_alpha and rembg_is_installed()
    if cfg.backend not in NETWORKS and not asks_rembg:
        _input_from(loaded, str(path), cfg)
    return loaded


def _input_from(loaded: LoadedImage, path: str, cfg: CutOutConfig) -> InputImage:
    if not loaded.has_alpha or cfg.backend not in ("auto", "alpha") or cfg.frame == "always":
        return _cut_out(loaded, path, cfg)
    found = segment(loaded, cfg.backend)
    # With frame=never an object may be cut by the frame: camera poses refer to the whole image.
    is_refused = found.confidence < THRESHOLD and not cfg.force and cfg.frame != "never"
    if is_refused or (cfg.frame == "auto" and is_small_in_frame(found.rgba[..., 3])):
        framed = _cut_out(loaded, path, cfg)
        note = f"the object of {Path(path).name} takes less than half of the frame: it was centred and scaled."
        return replace(framed, notes=(*framed.notes, note))
    rgba = fit_square(found.rgba)
    saved = {} if found.rgba is loaded.rgba else {"steps": side_by_side(loaded.rgba, found.rgba, rgba, found.caption)}
    notes = (*loaded.notes, *found.notes, *_framing_notes(found.rgba, path))
    return InputImage(rgba, found.rgba, None, saved, _facts(path, found), notes)


def is_small_in_frame(alpha: Float[np.ndarray, "H W"]) -> bool:
    """Return whether the object's longer side takes less than SMALL_SHARE of the frame.

    Args:
        alpha: H W in [0, 1].

    Returns:
        True if it is small.

    Raises:
        ImageError: nothing in the image is at least half opaque.
    """
    left, top, right, bottom = object_bounds(alpha)
    return max(right - left, bottom - top) < SMALL_SHARE * max(alpha.shape)


def input_from_prompt(prompt: str, text_to_image: TextToImageConfig, cfg: CutOutConfig, seed: int) -> InputImage:
    """Generate images of a prompt, choose the best, and cut out and frame its object.

    Args:
        prompt: description of one object.
        text_to_image: settings of the pipeline.
        cfg: backend and framing.
        seed: of the first candidate; each further one adds 1.

    Returns:
        The image to train on, and how it was prepared.

    Raises:
        ConfigError, ImageError: see `draw` and `input_from_file`.
        LowConfidenceMaskError: the cut-out should be inspected first.
    """
    drawn = generate_candidates(prompt, text_to_image, seed, "cuda" if torch.cuda.is_available() else "cpu")
    if all(c.score == 0 for c in drawn.candidates):
        raise ImageError(
            f"None of the {len(drawn.candidates)} images drawn for '{prompt}' shows one object before a plain "
            "background; change data.prompt or seed, or draw more with data.text_to_image.candidates."
        )
    rgb = drawn.candidates[drawn.chosen].rgb
    rgba = np.concatenate([rgb, np.ones_like(rgb[..., :1])], axis=-1).astype(np.float32)
    try:
        input_image = _cut_out(LoadedImage(rgba, False), f"candidate {drawn.chosen}", cfg)
    except LowConfidenceMaskError as error:
        raise LowConfidenceMaskError(error.message, _stacked(drawn.contact_sheet, error.steps)) from error
    facts = {"prompt": prompt, "model": text_to_image.model, "chosen": drawn.chosen}
    facts["scores"] = [round(c.score, 3) for c in drawn.candidates]
    saved = {"candidates": drawn.contact_sheet, "drawn": rgb, **input_image.saved}
    return InputImage(
        input_image.rgba,
        input_image.cut_out,
        input_image.framing,
        saved,
        {**facts, **input_image.facts},
        input_image.notes,
    )


def side_by_side(
    photo: Float[np.ndarray, "H W 4"],
    cut_out: Float[np.ndarray, "H W 4"],
    framed: Float[np.ndarray, "S S 4"],
    caption: str,
) -> Float[np.ndarray, "h w 3"]:
    """Draw the steps of the preparation in a row, with a caption.

    Args:
        photo: H W 4, straight alpha in [0, 1].
        cut_out: H W 4; drawn over white, black and green, to show halos.
        framed: S S 4.
        caption: one line of text.

    Returns:
        h w 3 in [0, 1], 256 pixels per panel.
    """
    photo, cut_out, framed = (resize_rgba(fit_square(image), 256, 256) for image in (photo, cut_out, framed))
    white, black, green = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    panels = [
        composite(photo, white),
        *(composite(cut_out, c) for c in (white, black, green)),
        composite(framed, white),
    ]
    gap = np.full((256, GAP, 3), 0.5, np.float32)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    below = np.full((CAPTION, row.shape[1], 3), 255, np.uint8)
    cv2.putText(below, caption, (8, CAPTION - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([row, below.astype(np.float32) / 255])


def _cut_out(loaded: LoadedImage, name: str, cfg: CutOutConfig) -> InputImage:
    prepared = prepare_loaded(loaded, f"'{name}'", None, cfg.backend, cfg.model)
    if not cfg.force:
        check(prepared, name, "data.cut_out.force=true")
    found = prepared.segmentation
    facts = _facts(name, found)
    saved = {"steps": prepared.steps}
    if cfg.frame == "never":
        return InputImage(fit_square(found.rgba), found.rgba, None, saved, facts, prepared.notes)
    facts["framing"] = {
        "scale": prepared.framing.scale,
        "offset": prepared.framing.offset,
        "size": prepared.framing.size,
    }
    return InputImage(prepared.rgba, found.rgba, prepared.framing, saved, facts, prepared.notes)


def _facts(name: str, found: Segmentation) -> dict[str, Any]:
    """Return the description of the mask for run.json."""
    facts: dict[str, Any] = {"source": name, "method": found.method, "confidence": round(found.confidence, 3)}
    if found.reason:
        facts["doubt"] = found.reason
    if found.notes:
        facts["notes"] = list(found.notes)
    return facts


def _framing_notes(rgba: Float[np.ndarray, "H W 4"], path: str) -> tuple[str, ...]:
    """Note that an object with its own transparency is smaller or further off centre than Zero123 was trained on."""
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
