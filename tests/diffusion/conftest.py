"""The tiny checkpoint of the original layout, rebuilt from integers with everything that the real files carry."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import read_model_config

GOLDEN = Path(__file__).parents[1] / "golden"
TINY_CONFIG = GOLDEN / "tiny_config.yaml"


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """Everything that was recorded from the original."""
    with np.load(GOLDEN / "reference.npz") as file:
        recorded = {key: torch.from_numpy(file[key]) for key in file.files}
    # The three tokens behind raw/eps_ctx3 are not in the file: they continue the series of its other random inputs
    # (in/latents, in/noise, in/x_T, in/z_dec and in/vjp_dir are seeds 2026 to 2030).
    tokens = np.random.RandomState(2031).randn(2, 3, 64)
    return recorded | {"in/ctx3": torch.from_numpy(tokens).float()}


@pytest.fixture(scope="session")
def image(golden) -> torch.Tensor:
    """The two recorded input images in [0, 1]."""
    return golden["in/image_u8"].float() / 255


@pytest.fixture(scope="session")
def inputs(golden) -> tuple[torch.Tensor, ...]:
    """Noisy latents, timesteps, context, concat."""
    return golden["x_t"], golden["in/t"], golden["cc_stable"], golden["vae_mode"]


class NumpyOneScalar:
    """Pickles as NumPy 1 pickled a float64."""

    def __init__(self, value: float) -> None:
        self.value = np.float64(value)

    def __reduce__(self):
        return sys.modules["numpy.core.multiarray"].scalar, (np.dtype("float64"), self.value.tobytes())


def save_like_lightning(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write what Lightning 1.4.2 wrote: callbacks keyed by class, AdamW state, NumPy-1 scalars."""
    names = {"pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint", "numpy.core.multiarray": "scalar"}
    modules = {name: types.ModuleType(name) for name in names}
    callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    modules["pytorch_lightning.callbacks.model_checkpoint"].ModelCheckpoint = callback

    def scalar(dtype, data):
        return np.frombuffer(data, dtype)[0]

    scalar.__module__, scalar.__qualname__ = "numpy.core.multiarray", "scalar"
    modules["numpy.core.multiarray"].scalar = scalar
    kept = {name: sys.modules.get(name) for name in names}
    sys.modules.update(modules)
    moments = {"step": 105000, "exp_avg": torch.zeros(320), "exp_avg_sq": torch.zeros(320)}
    try:
        torch.save(
            {
                "epoch": 28,
                "global_step": 105000,
                "pytorch-lightning_version": "1.4.2",
                "state_dict": weights,
                "callbacks": {callback: {"best_model_score": torch.tensor(0.1), "best_model_path": "logs/a.ckpt"}},
                "optimizer_states": [{"state": {0: moments}, "param_groups": [{"lr": NumpyOneScalar(1e-4)}]}],
                "lr_schedulers": [{"_last_lr": [NumpyOneScalar(1e-4)]}],
            },
            path,
        )
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@pytest.fixture(scope="session")
def tiny_ckpt(tiny_weights, tmp_path_factory) -> Path:
    """The whole checkpoint: fp32, averages, wrapped by Lightning."""
    path = tmp_path_factory.mktemp("tiny") / "zero123.ckpt"
    save_like_lightning(tiny_weights, path)
    return path


@pytest.fixture(scope="session")
def tiny_half_ckpt(tiny_weights, tmp_path_factory) -> Path:
    """A pruned one: fp16 without averages."""
    path = tmp_path_factory.mktemp("half") / "zero123_pruned.ckpt"
    halved = {k: v.half() for k, v in tiny_weights.items() if not k.startswith("model_ema.")}
    torch.save({"state_dict": halved}, path)
    return path


@pytest.fixture(scope="session")
def models(tiny_ckpt, tiny_half_ckpt):
    """The three variants by name: (model, prefix of its recorded outputs)."""
    return {
        "ema": (load_zero123(tiny_ckpt, TINY_CONFIG, dtype="fp32"), "ema/"),
        "raw": (load_zero123(tiny_ckpt, TINY_CONFIG, dtype="fp32", ema=False), "raw/"),
        "half": (load_zero123(tiny_half_ckpt, TINY_CONFIG, dtype="fp32"), "raw/"),
    }


@pytest.fixture(scope="session")
def tiny_v_model():
    """A model of the bundled one's structure (v-prediction, pose lift) with random weights."""
    torch.manual_seed(0)
    return build_model(read_model_config(Path(__file__).parents[1] / "helpers" / "tiny_lifted.yaml")).eval()
