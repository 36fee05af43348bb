"""`trainer.precision=64`: the field trains in double precision, and computes the same."""

import pytest
import torch
from tiny_run import SMALL

from zero123s.run.plan import plan_run
from zero123s.run.runner import Runner

WORDS = [
    *SMALL,
    "system.loss.lambda_sds=0",
    "trainer.max_steps=1",
    "trainer.val_check_interval=0",
    "use_timestamp=false",
    "threads=1",
]


@pytest.fixture
def fitted(tmp_path):
    def fit(precision: str) -> Runner:
        _, plan = plan_run("configs/stable-zero123.yaml", [*WORDS, f"trainer.precision={precision}"], "none")
        runner = Runner(plan, tmp_path / precision, None)
        runner.trainer = runner._trainer()
        runner.system.load_networks(runner.device)
        runner._fit()
        return runner

    return fit


def test_losses_are_those_of_single_precision(fitted):
    single, double = (fitted(precision).system for precision in ("32", "64"))
    assert {p.dtype for p in double.parameters()} == {torch.float64}
    for name, loss in double.diagnostics.losses.items():
        assert loss.dtype == torch.float64, name
        torch.testing.assert_close(loss, single.diagnostics.losses[name].double(), rtol=1e-3, atol=1e-5)


def test_previews_are_rendered_in_it(fitted, tmp_path):
    runner = fitted("64")
    assert runner.system.preview(tmp_path, 1)["psnr"] > 0
    assert (tmp_path / "save" / "it1-val.png").is_file()
