"""Atomic writing of files, and encoding of images to bytes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from zero123s.runtime.files import replacing


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically; raises OutputError with the operating system's reason."""
    with replacing(path) as file:
        file.write(data)


def encode_image(image: np.ndarray, fmt: str) -> bytes:
    """Return an image in [0, 1], row 0 on top, as PNG or JPEG bytes."""
    stream = io.BytesIO()
    pixels = Image.fromarray((image.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    pixels.save(stream, "JPEG" if fmt == "jpg" else "PNG", **({"quality": 95} if fmt == "jpg" else {}))
    return stream.getvalue()
