"""Which devices a run takes, of those available and those requested."""

import pytest
import torch

from zero123s.config.experiment import ExperimentConfig
from zero123s.errors import ConfigError
from zero123s.run.devices import choose_devices, first_device, set_tf32


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def test_of_several_gpus_one_is_taken_and_said(four_gpus, capsys):
    assert choose_devices(ExperimentConfig(), None) == ("gpu", [0])
    assert "of the 4 GPUs here, this run takes GPU 0" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["devices", "strategy"])
def test_several_gpus_are_taken_when_requested(four_gpus, key):
    experiment = ExperimentConfig()
    setattr(experiment.trainer, key, {"devices": 4, "strategy": "ddp"}[key])
    assert choose_devices(experiment, None) == ("auto", experiment.trainer.devices)
    assert choose_devices(experiment, "1,2") == ("gpu", [1, 2])


def test_processes_that_torchrun_started_keep_their_own(four_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_devices(ExperimentConfig(), None) == ("auto", "auto")


def test_the_first_device_is_the_first_named(four_gpus):
    assert first_device("gpu", [2, 3]) == torch.device("cuda", 2)
    assert first_device("auto", "auto") == torch.device("cuda", 0)
    assert first_device("cpu", "auto") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused(four_gpus):
    with pytest.raises(ConfigError, match="there are 4 GPUs"):
        choose_devices(ExperimentConfig(), "4")


@pytest.mark.parametrize(("allowed", "kind", "expected"), [
    (True, "cuda", "high"), (False, "cuda", "highest"), (True, "cpu", "highest"),
])  # fmt: skip
def test_products_are_rounded_to_tf32_on_cuda_alone(allowed, kind, expected):
    before = torch.backends.cudnn.allow_tf32
    try:
        set_tf32(allowed, torch.device(kind))
        assert torch.get_float32_matmul_precision() == expected
        assert torch.backends.cudnn.allow_tf32 == allowed
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = before
