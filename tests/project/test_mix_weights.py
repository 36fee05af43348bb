"""benchmarks/mix_weights.py: the weights in between two files."""

import importlib.util
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mix_weights.py"


@pytest.fixture(scope="module")
def mix():
    spec = importlib.util.spec_from_file_location("mix_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_weights_lie_between_those_of_both_files(mix):
    before = {"w": torch.tensor([0.0, 2.0], dtype=torch.float16), "n": torch.tensor([3])}
    after = {"w": torch.tensor([1.0, 4.0]), "n": torch.tensor([7])}
    out = mix.mixed(before, after, 0.25)
    assert out["w"].tolist() == [0.25, 2.5]
    assert out["w"].dtype == torch.float16
    assert out["n"].tolist() == [3], "counts are not averaged"


def test_other_structures_are_refused(mix):
    with pytest.raises(SystemExit, match="do not hold the same tensors"):
        mix.mixed({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, 0.5)
