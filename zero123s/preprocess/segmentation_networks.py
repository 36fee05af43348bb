"""Masks from segmentation networks: rembg's own, and those of transformers."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from zero123s.errors import ConfigError, ImageError, MissingDependencyError

logger = logging.getLogger(__name__)

REMBG_MODEL = "u2net"


def rembg_is_installed() -> bool:
    """Return whether the extra `segment` is installed.

    Returns:
        True if rembg can be imported.
    """
    try:
        import rembg  # noqa: F401
    except ImportError:
        return False
    return True


def rembg_alpha(rgb: Float[np.ndarray, "H W 3"], model: str) -> Float[np.ndarray, "H W"]:
    """Segment an image by a rembg model; a download is announced before it starts.

    Args:
        rgb: H W 3 in [0, 1].
        model: name of the model; "" = u2net.

    Returns:
        H W in [0, 1].

    Raises:
        MissingDependencyError: rembg is not installed.
        ImageError: the model cannot be fetched.
    """
    try:
        import rembg
    except ImportError as error:
        raise MissingDependencyError(
            "The backend rembg is not installed; run `pip install -e '.[segment]'` or use the backend grabcut."
        ) from error
    name = model or REMBG_MODEL
    weights = Path(os.environ.get("U2NET_HOME") or Path.home() / ".u2net") / f"{name}.onnx"
    if not weights.is_file():
        logger.warning("rembg downloads its model '%s' to %s; this happens once.", name, weights.parent)
    try:
        session = rembg.new_session(name)
    except Exception as error:
        raise ImageError(
            f"rembg cannot get its model '{name}' ({error}); put the .onnx file into {weights.parent} by hand."
        ) from error
    mask = rembg.remove(np.rint(rgb * 255).astype(np.uint8), session=session, only_mask=True)
    return np.asarray(mask, np.float32) / 255


def transformers_alpha(rgb: Float[np.ndarray, "H W 3"], model: str) -> Float[np.ndarray, "H W"]:
    """Segment an image by a transformers model whose last output is one logit per pixel.

    Args:
        rgb: H W 3 in [0, 1].
        model: hub id or folder.

    Returns:
        H W in [0, 1].

    Raises:
        ConfigError: `model` is empty.
        ImageError: the model cannot be loaded, or has another kind of output.
    """
    if not model:
        raise ConfigError(
            "the backend transformers needs a model: give a hub id or a folder, e.g. ZhengPeng7/BiRefNet."
        )
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageSegmentation

    try:
        network = AutoModelForImageSegmentation.from_pretrained(model).eval()
        processor: Callable = AutoImageProcessor.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ImageError(
            f"The segmentation model '{model}' cannot be loaded; give the folder of a downloaded model."
        ) from error
    with torch.no_grad():
        output = network(**processor(images=np.rint(rgb * 255).astype(np.uint8), return_tensors="pt"))
    logits = output.logits if hasattr(output, "logits") else output[-1]
    if logits.ndim != 4 or logits.shape[1] != 1:
        raise ImageError(f"The model '{model}' gives {tuple(logits.shape)}, not one foreground logit per pixel.")
    alpha = torch.nn.functional.interpolate(logits, rgb.shape[:2], mode="bilinear", antialias=True).sigmoid()
    return alpha[0, 0].numpy()
