"""What watching a run costs: CPU milliseconds per step of the main recipe's `cpu` profile.

python benchmarks/health.py
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from zero123s.callbacks.health import Health, _state_is_finite
from zero123s.callbacks.health_checks import measure
from zero123s.config.load import load_config
from zero123s.run.plan import check_experiment
from zero123s.structures import StepDiagnostics

CONFIG = Path(__file__).parents[1] / "configs" / "stable-zero123.yaml"


def milliseconds(function: Callable[[], object], repeats: int = 50) -> float:
    """Return the median process time."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Print the parts and their sum."""
    torch.set_num_threads(1)
    plan = check_experiment(load_config(CONFIG, profile="cpu"))
    system = plan.build(prepare=False)
    for parameter in system.parameters():
        parameter.grad = torch.rand_like(parameter)
    health = Health(plan.experiment.health)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda finite: finite)
    trainer = SimpleNamespace(precision="32-true", world_size=1, strategy=strategy, global_step=1)
    optimizer = SimpleNamespace(param_groups=[{"params": list(system.parameters())}])
    mask, cells = torch.ones(1, 128, 128, 1), torch.rand(32, 32, 32) > 0.7
    gradients = milliseconds(lambda: health.on_before_optimizer_step(trainer, system, optimizer))  # type: ignore[arg-type]
    weights = milliseconds(lambda: _state_is_finite(system))
    diagnostics = StepDiagnostics(0, {}, mask, mask, cells, torch.tensor(1.0), 5.0)
    checks = milliseconds(lambda: measure(diagnostics))
    every = plan.experiment.health.every
    print(f"gradients {gradients:.2f} ms, weights {weights:.2f} ms, checks {checks:.2f} ms every {every} steps")
    print(f"together {gradients + weights + checks / every:.2f} ms a step")


if __name__ == "__main__":
    main()
