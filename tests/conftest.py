"""Fixtures for all tests: the tiny Zero123 checkpoint, and small systems that can be trained in a second."""

from pathlib import Path

import numpy as np
import pytest
from diffusion.conftest import tiny_ckpt, tiny_weights  # noqa: F401
from PIL import Image

from zero123s.data.random_camera import RandomCameraConfig
from zero123s.data.single_image import SingleImageData

TINY_CONFIG = Path(__file__).parent / "golden" / "tiny_config.yaml"


@pytest.fixture(scope="session")
def disc_path(tmp_path_factory) -> Path:
    """A red disc on transparent ground, with a depth and a normal picture of a ball beside it."""
    folder = tmp_path_factory.mktemp("disc")
    y, x = np.mgrid[-1:1:33j, -1:1:33j]
    r2 = (x**2 + y**2) / 0.6**2
    height = np.sqrt(np.clip(1 - r2, 0, 1))
    rgba = np.zeros((33, 33, 4), np.uint8)
    rgba[r2 < 1] = (220, 60, 20, 255)
    normal = np.stack([x / 0.6, -y / 0.6, height], axis=-1) * (r2 < 1)[..., None]
    Image.fromarray(rgba).save(folder / "disc_rgba.png")
    Image.fromarray(((1 - height) * 60000).astype(np.uint16)).save(folder / "disc_depth.png")
    Image.fromarray(np.rint((normal + 1) / 2 * 255).astype(np.uint8)).save(folder / "disc_normal.png")
    return folder / "disc_rgba.png"


@pytest.fixture
def disc_data(disc_path) -> SingleImageData:
    """The disc at 16 pixels, with two random cameras of 12 pixels a step."""
    camera = RandomCameraConfig(
        height=12,
        width=12,
        batch_size=2,
        camera_distance_range=[3.8, 3.8],
        fovy_range=[20.0, 20.0],
        eval_height=16,
        eval_width=16,
        eval_camera_distance=3.8,
        eval_fovy_deg=20.0,
    )
    cfg = SingleImageData.Config(
        image_path=str(disc_path),
        height=16,
        width=16,
        default_camera_distance=3.8,
        default_fovy_deg=20.0,
        requires_depth=True,
        requires_normal=True,
        random_camera=camera,
    )
    data = SingleImageData(cfg)
    data.prepare()
    return data
