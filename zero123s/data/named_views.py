"""Images of an object from its front, back and sides, without poses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from zero123s.config.options import option
from zero123s.errors import ConfigError, ImageError
from zero123s.preprocess.framing import SHARE, Framing, apply_framing, native_size, object_bounds
from zero123s.preprocess.input_image import CutOutConfig, InputImage, LowConfidenceMaskError, input_from_file

AZIMUTHS_DEG = {"front": 0.0, "left": 90.0, "back": 180.0, "right": -90.0}
"""Left and right are the object's own, like a person's hands: the camera at its left shows its left side."""


@dataclass
class NamedImagesConfig:
    """Up to four images at one elevation; left and right are the object's own."""

    front: str = option("", path=True)
    """Image from azimuth 0."""
    left: str = option("", path=True)
    """Image from azimuth 90: the side of the object's own left hand."""
    back: str = option("", path=True)
    """Image from azimuth 180."""
    right: str = option("", path=True)
    """Image from azimuth -90."""
    elevation_deg: float = option(0.0, low=-90.0, high=90.0)
    """Elevation of all cameras, degrees."""
    distance: float = option(3.8, above=0.0)
    """Distance of all cameras, world units."""
    fovy_deg: float = option(20.0, above=0.0, high=179.0)
    """Vertical field of view of all cameras, degrees."""

    def given(self) -> dict[str, str]:
        """Return the paths of the given images by name, front first."""
        return {name: getattr(self, name) for name in AZIMUTHS_DEG if getattr(self, name)}


@dataclass
class NamedWeightsConfig:
    """Weights of the named images."""

    front: float = option(1.0, low=0.0)
    """Weight of the image from the front."""
    left: float = option(1.0, low=0.0)
    """Weight of the image from the left."""
    back: float = option(1.0, low=0.0)
    """Weight of the image from the back."""
    right: float = option(1.0, low=0.0)
    """Weight of the image from the right."""


@dataclass(frozen=True)
class NamedImage:
    """One image, square and framed together with its companions."""

    name: str
    rgba: Float[np.ndarray, "S S 4"]
    saved: Mapping[str, np.ndarray]
    """Images for the run folder, by file stem; empty where the file is used as it is."""
    facts: Mapping[str, Any]


def read_named(images: NamedImagesConfig, cut_out: CutOutConfig) -> list[NamedImage]:
    """Read the given images, cut out where necessary.

    Images that are framed here are brought to one height of the object, so that all show it at one scale; images with
    transparency of their own stay as they are, as long as all of them have it.

    Raises:
        ConfigError: no front image.
        ImageError: an image cannot be used.
    """
    given = images.given()
    if "front" not in given:
        raise ConfigError("data.pictures.front is missing; the other sides are relative to the front.")
    inputs = {name: _input_of(name, path, cut_out) for name, path in given.items()}
    if not any(input_image.framing for input_image in inputs.values()):
        return [NamedImage(name, i.rgba, i.saved, i.facts) for name, i in inputs.items()]
    share = _common_height([input_image.cut_out[..., 3] for input_image in inputs.values()])
    return [
        NamedImage(
            name, at_height(i.cut_out, share), {"steps": i.saved["steps"]} if "steps" in i.saved else {}, i.facts
        )
        for name, i in inputs.items()
    ]


def at_height(rgba: Float[np.ndarray, "H W 4"], share: float) -> Float[np.ndarray, "S S 4"]:
    """Centre the object in a square of which its height takes `share`."""
    left, top, right, bottom = object_bounds(rgba[..., 3])
    size = native_size(rgba[..., 3])
    scale = share * size / (bottom - top)
    offset = (size / 2 - scale * (left + right) / 2, size / 2 - scale * (top + bottom) / 2)
    return apply_framing(rgba, Framing(scale, offset, size))


def _common_height(alphas: list[Float[np.ndarray, "H W"]]) -> float:
    """Return the largest share of the frame for the object's height at which its widest side fits."""
    bounds = [object_bounds(alpha) for alpha in alphas]
    widest = max((right - left) / (bottom - top) for left, top, right, bottom in bounds)
    return SHARE / max(widest, 1.0)


def _input_of(name: str, path: str, cut_out: CutOutConfig) -> InputImage:
    try:
        return input_from_file(path, cut_out)
    except LowConfidenceMaskError:
        raise
    except ImageError as error:
        raise ImageError(f"data.pictures.{name}: {error}") from error
