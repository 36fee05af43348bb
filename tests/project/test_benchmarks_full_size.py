"""The file that benchmarks/full_size.py writes is what the releases are."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.model_config import ModelConfig, parse_model_config

TINY = {
    "unet_config": {
        "params": {
            "image_size": 4,
            "model_channels": 32,
            "channel_mult": [1],
            "attention_resolutions": [1],
            "num_res_blocks": 1,
            "context_dim": 32,
        }
    },
    "first_stage_config": {"params": {"ddconfig": {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "resolution": 8}}},
    "cond_stage_config": {
        "params": {"image_size": 8, "patch_size": 4, "width": 32, "layers": 1, "heads": 2, "output_dim": 32}
    },
}


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "full_size.py"
    spec = importlib.util.spec_from_file_location("full_size", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_has_keys_and_size_of_a_release(benchmark):
    shapes = benchmark.original_shapes(ModelConfig())
    # As counted in the released layout: 1938 tensors, 8.58 GB in fp32.
    assert len(shapes) == 1938
    assert sum(math.prod(shape) for shape in shapes.values()) == 2_145_886_546
    assert shapes["model.diffusion_model.input_blocks.0.0.weight"] == (320, 8, 3, 3)


@pytest.mark.parametrize(("dtype", "averages"), [(torch.float32, True), (torch.float16, False)])
def test_torch_and_we_read_the_checkpoint(benchmark, dtype, averages, tmp_path):
    path, config = tmp_path / "zero123.ckpt", parse_model_config(TINY)
    benchmark.write_checkpoint(path, dtype, averages, config)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert state["cc_projection.weight"].dtype == dtype
    model = load_zero123(path, config, dtype="fp32")
    assert model.info["weights"] == ("EMA" if averages else "raw")
    assert torch.equal(model.cc_projection.weight, state["cc_projection.weight"].float())
