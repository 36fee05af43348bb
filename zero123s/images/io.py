"""Reads and writes images: any input becomes straight-alpha sRGB, or raises a one-sentence error."""

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from zero123s.errors import ImageError
from zero123s.images.formats import BRANDS, HEIF_ADVICE, readable_formats
from zero123s.runtime.files import replacing, user_path

MAX_PIXELS = 64_000_000
"""Above this an image is refused before it is decoded: it would take more than 1 GB as floats, and 1.6 while it is
read.
"""
MIN_SIDE = 8
"""Pixels; smaller images show no recognisable object."""
OPAQUE = 0.5
"""An image has meaningful transparency when some pixel is less opaque than this."""


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image, upright and in sRGB."""

    rgba: Float[np.ndarray, "H W 4"]
    """Straight alpha, float32 in [0, 1]; alpha is 1 everywhere when the file has none."""
    has_alpha: bool
    """True when part of the image is transparent."""
    notes: tuple[str, ...] = ()
    """Changes made to the image, one sentence each."""


def read_image(path: str | Path | bytes | IO[bytes], max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Read an image, rotated upright (EXIF) and converted to sRGB (ICC).

    Args:
        path: of a file, or its bytes, or an open file.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        The image and notes on changes.

    Raises:
        ImageError: missing, damaged, of an unsupported format, too large or too small.
    """
    path, content = _named_content(path)
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=readable_formats())
        _check_size(path, image.size, max_pixels)
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            notes.append(f"{path.name} has {image.n_frames} frames; the first is used.")  # type: ignore[attr-defined]
        image.load()
        profile = image.info.get("icc_profile")
        if image.getexif().get(0x0112, 1) != 1:
            image = ImageOps.exif_transpose(image)
            notes.append(f"{path.name} was turned upright as its EXIF orientation says.")
    except Image.DecompressionBombError as error:
        raise ImageError(_too_many(path, _pixels_in(str(error)), max_pixels)) from error
    except UnidentifiedImageError as error:
        raise ImageError(_not_an_image(path, content)) from error
    except ImageError:
        raise
    except Exception as error:  # on untrusted input a decoder may raise anything; all of it means a damaged file
        raise ImageError(f"'{path}' is damaged or cut short ({error}); save or download it again.") from error
    rgba = _to_srgb(image, profile, path.name, notes)
    if not (rgba[..., 3] > 0.5 / 255).any():
        raise ImageError(f"'{path}' is fully transparent; give an image in which the object is visible.")
    return LoadedImage(rgba, bool((rgba[..., 3] < OPAQUE).any()), tuple(notes))


def _named_content(source: str | Path | bytes | IO[bytes]) -> tuple[Path, bytes]:
    """Return an image's name for error messages, and its content."""
    if isinstance(source, bytes | bytearray | memoryview):
        return Path("the given bytes"), bytes(source)
    if isinstance(source, str | Path):
        if not str(source).strip():
            raise ImageError("The path of the image is empty.")
        return user_path(source), _read_bytes(user_path(source))
    if source.seekable():
        source.seek(0)
    content, name = source.read(), getattr(source, "name", None)
    if not isinstance(content, bytes):
        raise ImageError("The image was opened as text; open it with mode 'rb'.")
    return Path(name) if isinstance(name, str) else Path("the given file"), content


def load_reference_rgba(path: str | Path) -> LoadedImage:
    """Read an image whose transparency marks the background, as the main job needs it.

    Args:
        path: of the file.

    Returns:
        The image; it has transparency.

    Raises:
        ImageError: it cannot be read, or has no transparency.
    """
    loaded = read_image(path)
    if not loaded.has_alpha:
        raise ImageError(
            f"'{path}' has no transparent background, so the background would be rebuilt as part of the object: "
            f"cut the object out first with `zero123s prepare {path} --out {Path(path).stem}_rgba.png`."
        )
    return loaded


def resize_rgba(rgba: Float[np.ndarray, "H W 4"], height: int, width: int) -> Float[np.ndarray, "h w 4"]:
    """Resize an image with premultiplied colours: area average when it shrinks, cubic when it grows.

    Args:
        rgba: H W 4, straight alpha in [0, 1].
        height: of the result in pixels.
        width: of the result in pixels.

    Returns:
        h w 4, straight alpha in [0, 1].

    Example:
        >>> import numpy as np
        >>> from zero123s.images.io import resize_rgba
        >>> rgba = np.zeros((2, 2, 4), np.float32)
        >>> rgba[0] = [1, 0, 0, 1]  # red above, transparent below
        >>> resize_rgba(rgba, 1, 1).tolist()
        [[[1.0, 0.0, 0.0, 0.5]]]
    """
    pre = premultiply(np.asarray(rgba, np.float32))
    for size, axis in ((height, 0), (width, 1)):
        shape = (pre.shape[1], size) if axis == 0 else (size, pre.shape[0])
        if size != pre.shape[axis]:
            pre = cv2.resize(pre, shape, interpolation=cv2.INTER_AREA if size < pre.shape[axis] else cv2.INTER_CUBIC)
    return unpremultiply(pre)


def fit_square(rgba: Float[np.ndarray, "H W 4"]) -> Float[np.ndarray, "S S 4"]:
    """Pad an image to a transparent square of its longer side.

    Args:
        rgba: H W 4.

    Returns:
        S S 4, the image in the centre.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.io import fit_square
        >>> fit_square(np.ones((2, 4, 4), np.float32))[:, 0, 3].tolist()
        [0.0, 1.0, 1.0, 0.0]
    """
    height, width = rgba.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 4), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = rgba
    return square


def premultiply(rgba: Float[np.ndarray, "H W 4"]) -> Float[np.ndarray, "H W 4"]:
    """Multiply colours by alpha, the form in which images may be filtered.

    Args:
        rgba: H W 4, straight alpha.

    Returns:
        H W 4, premultiplied.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.io import premultiply
        >>> premultiply(np.float32([[[1.0, 0.5, 0.0, 0.5]]])).tolist()
        [[[0.5, 0.25, 0.0, 0.5]]]
    """
    return np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1).astype(np.float32)


def unpremultiply(pre: Float[np.ndarray, "H W 4"]) -> Float[np.ndarray, "H W 4"]:
    """Divide colours by alpha; the inverse of `premultiply`.

    Args:
        pre: H W 4, premultiplied.

    Returns:
        H W 4, straight alpha, clipped to [0, 1]; pixels with less than half an 8-bit step of alpha become empty.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.io import unpremultiply
        >>> unpremultiply(np.float32([[[0.5, 0.25, 0.0, 0.5]]])).tolist()
        [[[1.0, 0.5, 0.0, 0.5]]]
    """
    alpha = np.clip(pre[..., 3:], 0.0, 1.0)
    visible = alpha > 0.5 / 255
    colour = np.where(visible, pre[..., :3] / np.where(visible, pre[..., 3:], 1.0), 0.0)
    return np.concatenate([np.clip(colour, 0.0, 1.0), np.where(visible, alpha, 0.0)], axis=-1).astype(np.float32)


def composite(rgba: Float[np.ndarray, "H W 4"], colour: tuple[float, float, float]) -> Float[np.ndarray, "H W 3"]:
    """Composite an image over a uniform colour.

    Args:
        rgba: H W 4, straight alpha in [0, 1].
        colour: red, green and blue in [0, 1].

    Returns:
        H W 3.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.io import composite
        >>> composite(np.float32([[[1.0, 0.0, 0.0, 0.5]]]), (1.0, 1.0, 1.0)).tolist()
        [[[1.0, 0.5, 0.5]]]
    """
    return rgba[..., :3] * rgba[..., 3:] + np.asarray(colour, np.float32) * (1 - rgba[..., 3:])


def write_png_atomic(path: str | Path, image: Float[np.ndarray, "H W C"]) -> Path:
    """Write an image as 8-bit PNG, atomically.

    Args:
        path: of the file; its folder is made.
        image: H W 3 or H W 4 in [0, 1].

    Returns:
        The path.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
    with replacing(path, sync=False) as file:
        Image.fromarray(pixels).save(file, format="PNG")
    return path


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(f"'{path}' is a folder; name one image in it.")
    if not path.exists():
        if address := re.match(r"([a-z][a-z0-9+]+):/+(.*)", str(path)):  # pathlib has made one slash of two
            raise ImageError(f"'{address[1]}://{address[2]}' is an address; download the image and name its file.")
        raise ImageError(f"'{path}' does not exist; check the path of the image.")
    if not path.is_file():
        raise ImageError(f"'{path}' is not a regular file; give an image such as a PNG or JPEG.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"'{path}' cannot be read ({error.strerror}); check its permissions.") from error


def _not_an_image(path: Path, content: bytes) -> str:
    if not content:
        return f"'{path}' is empty; save or download it again."
    kind = BRANDS.get(content[4:12])
    if kind in readable_formats():
        return f"'{path}' is damaged or cut short; save or download it again."
    if kind:
        named = "a HEIC" if kind == "HEIF" else "an AVIF"
        return f"'{path}' is {named} image, which cannot be read here; {HEIF_ADVICE}."
    return f"'{path}' is not an image that can be read; give a PNG, JPEG, WebP, AVIF, TIFF, GIF or BMP file."


def _check_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(_too_many(path, f"{width}x{height}", max_pixels))
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"'{path}' has only {width}x{height} pixels; give an image of at least 64x64.")


def _too_many(path: Path, pixels: str, max_pixels: int) -> str:
    return (
        f"'{path}' has {pixels} pixels, more than the {max_pixels / 1e6:g} million that are read; make it smaller (2048 "
        "pixels a side is plenty)."
    )


def _pixels_in(message: str) -> str:
    """Return the number of pixels stated by Pillow's own refusal, which is worded as an attack."""
    found = re.search(r"\((\d+) pixels\)", message)
    return f"{int(found[1]) / 1e6:.0f} million" if found else "too many"


def _to_srgb(image: Image.Image, profile: bytes | None, name: str, notes: list[str]) -> Float[np.ndarray, "H W 4"]:
    """Return float sRGB with alpha from any of Pillow's modes."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_gray(image, name, notes)
    if image.mode in ("1", "P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    if image.mode in ("LA", "La"):
        image = image.getchannel("L")
    elif image.mode in ("RGBA", "RGBa", "RGBX"):
        image = image.convert("RGBA").convert("RGB")
    if profile and image.mode in ("RGB", "L", "CMYK"):
        image = _apply_profile(image, profile, name, notes)
    pixels = np.ones((image.height, image.width, 4), np.float32)
    # In place: a float copy of the colours would be most of what a large image takes.
    np.divide(np.asarray(image.convert("RGB")), np.float32(255), out=pixels[..., :3])
    if alpha is not None:
        np.divide(np.asarray(alpha), np.float32(255), out=pixels[..., 3])
    return pixels


def _deep_gray(image: Image.Image, name: str, notes: list[str]) -> Float[np.ndarray, "H W 4"]:
    """Return 16-bit or floating-point gray; integers are divided by 65535, floats expected in [0, 1]."""
    gray = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        gray = gray / 65535
    elif not np.isfinite(gray).all() or gray.max() > 1 or gray.min() < 0:
        notes.append(f"{name} holds floating-point values outside [0, 1]; they were clipped.")
        gray = np.nan_to_num(gray)
    gray = np.clip(gray, 0, 1)[..., None]
    return np.concatenate([gray, gray, gray, np.ones_like(gray)], axis=-1)


def _apply_profile(image: Image.Image, profile: bytes, name: str, notes: list[str]) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        description = ImageCms.getProfileDescription(source).strip()
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        notes.append(f"The colour profile of {name} cannot be used ({error}); its colours are taken as sRGB.")
        return image
    if "srgb" not in description.lower():
        notes.append(f"The colours of {name} were converted from '{description}' to sRGB.")
    assert converted is not None
    return converted
