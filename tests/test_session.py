"""A session knows its system only by the hooks of `BaseSystem`."""

import json
from dataclasses import dataclass

import pytest
import torch

from zero123s.data.base import DATA, BaseData
from zero123s.experiment import ExperimentConfig
from zero123s.run_dir import run_path
from zero123s.session import Session
from zero123s.system.base import SYSTEMS, BaseSystem, plan_experiment


@DATA.register("test-numbers")
class Numbers(BaseData):
    """Offers nothing but a batch per step."""

    def prepare(self) -> None:
        """Nothing to read."""

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> torch.Tensor:
        """The step itself."""
        return torch.tensor([float(step)])


@SYSTEMS.register("test-silent-system")
class Silent(BaseSystem):
    """Fits one number; has no pictures, scores or files."""

    @dataclass
    class Config(BaseSystem.Config):
        """Nothing to set."""

    def __init__(self, cfg, data, seed=0):
        super().__init__(cfg, data, seed)
        self.guess = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(int(batch))
        return (self.guess - 1).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def experiment(tmp_path):
    e = ExperimentConfig(data_type="test-numbers", system_type="test-silent-system", exp_root_dir=str(tmp_path))
    e.trainer.max_steps, e.trainer.val_check_interval, e.trainer.enable_progress_bar = 5, 2, False
    return e


def test_a_system_without_pictures_or_export_trains_and_ends_well(experiment):
    session = Session(plan_experiment(experiment), run_path(experiment), None)
    assert session.run("train") == 0
    assert session.system.seen == [0, 1, 2, 3, 4]
    record = json.loads((session.out_dir / "run.json").read_text())
    assert (record["state"], record["step"], record["files"], record["metrics"]) == ("finished", 5, {}, {})
    assert (session.out_dir / "ckpts" / "last.ckpt").is_file()
