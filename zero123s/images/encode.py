"""Atomic writing of files, and encoding of images to bytes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from zero123s.runtime.files import replacing


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Args:
        path: of the file; its folder exists.
        data: the content.

    Raises:
        OutputError: with the operating system's reason.
    """
    with replacing(path) as file:
        file.write(data)


def encode_image(image: np.ndarray, fmt: str) -> bytes:
    r"""Encode an image.

    Args:
        image: H W C in [0, 1], row 0 on top; C is 1, 3 or 4.
        fmt: "png" or "jpg".

    Returns:
        The file's content.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.encode import encode_image
        >>> encode_image(np.zeros((2, 2, 3)), "png")[:4]
        b'\x89PNG'
    """
    stream = io.BytesIO()
    pixels = Image.fromarray((image.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    pixels.save(stream, "JPEG" if fmt == "jpg" else "PNG", **({"quality": 95} if fmt == "jpg" else {}))
    return stream.getvalue()
