"""Fixtures for all tests: tiny models, a tiny image, a few rendered objects; and which tests run in which order."""

import os
from collections import OrderedDict
from pathlib import Path

# Two threads on tensors this small cost more than they give, and a run next door owns the other core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if os.environ.get("ZERO123S_TYPECHECK"):  # every test also checks every annotation: slow, for now and then
    from zero123s.run.type_checks import check_types_while_running

    check_types_while_running()

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():  # Triton kernels are interpreted, which is decided when they are imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

from PIL import Image
from safetensors.torch import save_file

from zero123s.data.random_camera import RandomCameraConfig
from zero123s.data.single_image import SingleImageData
from zero123s.diffusion.checkpoint import layout
from zero123s.diffusion.checkpoint.load_zero123 import save_zero123
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import read_model_config
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset

GOLDEN = Path(__file__).parents[1] / "golden"
LONGEST_FIRST = ("on_device", "configs", "end_to_end", "distributed", "refinement", "threestudio_recipes", "kill")
"""Names of the longest test files of whole jobs: begun last, one worker would end minutes after the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole jobs after the units, leave out what needs a CUDA device where there is none, let slow tests be slow."""
    for item in items:
        if item.path.parent.name in ("end_to_end", "pretend"):
            item.add_marker(pytest.mark.end_to_end)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))
    items.sort(key=_place_in_the_suite)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _place_in_the_suite(item: pytest.Item) -> int:
    """Return 0 for a unit and more for a whole job, growing as its file gets shorter."""
    if not item.get_closest_marker("end_to_end"):
        return 0
    name = item.path.stem.removeprefix("test_")
    return 1 + (LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST))


TINY_LIFTED = Path(__file__).parent / "tiny_lifted.yaml"
TINY_ZERO123 = Path(__file__).parent / "tiny_zero123.yaml"


@pytest.fixture(scope="session")
def tiny_weights() -> dict[str, torch.Tensor]:
    """The state dict of the tiny original model, averages and text leftovers included."""
    weights: dict[str, torch.Tensor] = OrderedDict()
    # The schedule's buffers are never read: any content must do.
    for name in ("betas", "alphas_cumprod", "sqrt_alphas_cumprod"):
        weights[name] = torch.full((1000,), 0.5)
    with np.load(GOLDEN / "tiny_weights.npz") as file:
        start = 0
        data = torch.from_numpy(file["data"]).float()
        rows = zip(
            str(file["names"]).split("\n"),
            str(file["shapes"]).split("\n"),
            file["exponents"],
            file["ones"],
            strict=True,
        )
        for name, shape_text, exponent, one in rows:
            shape = [int(n) for n in shape_text.split(",") if n]
            n = int(np.prod(shape))
            weights[name] = (data[start : start + n] * 2.0 ** -int(exponent) + int(one)).reshape(shape)
            start += n
        for key in file.files:
            if key.startswith("extra/"):
                weights[key.removeprefix("extra/")] = torch.from_numpy(file[key])
    return weights


@pytest.fixture(scope="session")
def tiny_zero123(tmp_path_factory) -> list[str]:
    """Overrides that guide a run with a toy model of random weights instead of one that has to be downloaded."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("zero123") / "tiny.ckpt"
    save_zero123(build_model(read_model_config(TINY_ZERO123)), path)
    return [f"system.guidance.checkpoint={path}", f"system.guidance.config={TINY_ZERO123}"]


@pytest.fixture(scope="session")
def tiny_text_model(tmp_path_factory) -> Path:
    """A diffusers folder of a Stable Diffusion with random weights."""
    from tiny_text_model import save_tiny_stable_diffusion

    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def disc_path(tmp_path_factory) -> Path:
    """A red disc on transparent ground, with a depth and a normal image of a ball beside it."""
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


@pytest.fixture(scope="session")
def rendered_views(tmp_path_factory) -> Path:
    """Shards of twelve small objects, four views each at 32 pixels."""
    folder = tmp_path_factory.mktemp("rendered")
    render_dataset(procedural_objects(0, 12), folder, RenderSettings(views=4, size=32, supersample=1, shard_size=8))
    return folder


@pytest.fixture(scope="session")
def tiny_autoencoder(tmp_path_factory) -> Path:
    """A file with the random autoencoder of tiny_lifted.yaml, under the original's key names."""
    torch.manual_seed(0)
    model = build_model(read_model_config(TINY_LIFTED))
    state = model.vae.state_dict()
    sources = layout.weight_sources(model.config, "vae", state).items()
    path = tmp_path_factory.mktemp("autoencoder") / "autoencoder.safetensors"
    save_file({source.key: layout.join_parts([(source, state[name])]) for name, source in sources}, str(path))
    return path
