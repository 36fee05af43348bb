"""Fixtures for all tests: the tiny Zero123 model that the golden tensors were recorded from."""

import os
from collections import OrderedDict
from pathlib import Path

# Two threads on tensors this small cost more than they give, and a run next door owns the other core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


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
def tiny_zero123(tiny_weights, tmp_path_factory) -> list[str]:
    """Overrides that guide a run with the tiny model instead of one that has to be downloaded."""
    path = tmp_path_factory.mktemp("zero123") / "tiny.ckpt"
    torch.save({"state_dict": {k: v for k, v in tiny_weights.items() if not k.startswith("model_ema.")}}, path)
    return [f"system.guidance.checkpoint={path}", f"system.guidance.config={GOLDEN / 'tiny_config.yaml'}"]
