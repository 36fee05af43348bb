"""Whole files or none, and pictures as bytes."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from zero123s.errors import MeshError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it; raises MeshError with the operating system's reason."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise MeshError(
            f"Cannot write {path}: {error.strerror or error}; free space or choose another folder."
        ) from error


def encode_image(image: np.ndarray, fmt: str) -> bytes:
    """Return an image in [0, 1], row 0 on top, as PNG or JPEG bytes."""
    stream = io.BytesIO()
    pixels = Image.fromarray((image.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    pixels.save(stream, "JPEG" if fmt == "jpg" else "PNG", **({"quality": 95} if fmt == "jpg" else {}))
    return stream.getvalue()
