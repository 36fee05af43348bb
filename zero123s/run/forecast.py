"""What a run will need, told before it runs: time and memory, from the config and a short measurement of the machine.

Fitted to short runs of the main recipe on one thread; docs/reliability.md says how far off it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zero123s.ops.threads import sample_seconds
from zero123s.system.base import BaseSystem, Plan

SAMPLES_PER_PIXEL = 7.1
"""Of an object that fills the frame as usual, at steps of REFERENCE_STEP: the mean over a run of the main recipe."""
REFERENCE_STEP = 0.0189
PROBES_PER_SAMPLE = 1.4e-4
"""Time of a sample, there and back with 8 levels of the hash grid, in units of `sample_seconds()`."""
PROBES_PER_VIEW = 2.4
"""Time of a view through the bundled model, there and back through its encoder."""
VSD_FACTOR = 2.1
"""Time of that with `variant: vsd`, which asks and teaches a second denoiser (`benchmarks/distillation.py`)."""
EVAL_SHARE = 0.43
"""Of a sample that is only looked at."""
PROBES_PER_EXPORT = 700.0
"""Of a mesh of 20,000 faces."""
BASE_GB = 0.60
"""Python, torch, Lightning and the compiled kernels."""
BYTES_PER_SAMPLE = 1500.0
BYTES_PER_WEIGHT = 16
"""The weight, its gradient and two moments of Adam."""


@dataclass(frozen=True)
class Forecast:
    """What is expected of a run."""

    peak_gb: float
    seconds: float | None
    """None where the guiding network is not the one that was measured, or the run computes on a GPU."""

    def __str__(self) -> str:
        time = "time: known after its first steps" if self.seconds is None else f"about {duration(self.seconds)}"
        return f"{time}, {self.peak_gb:.1f} GB of memory"


def duration(seconds: float) -> str:
    """Return "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def forecast(plan: Plan, system: BaseSystem, model: Mapping[str, Any], on_gpu: bool = False) -> Forecast | None:
    """Return what training will need; None for a system or data source whose work the config does not tell.

    Args:
        system: built from the plan; its data need not have been read.
        model: what `requirements()` says of the guiding model.
    """
    t, data = plan.experiment.trainer, system.data_source
    steps = [data.sizes_at(step) for step in range(t.max_steps)]
    first = steps[0]
    renderer: Any = getattr(system, "renderer", None)
    if first is None or not hasattr(renderer, "step_size"):
        return None
    guided = bool(model.get("path"))
    per_pixel = SAMPLES_PER_PIXEL * REFERENCE_STEP / renderer.step_size
    levels = getattr(getattr(system.geometry, "encoding", None), "cfg", None)
    cost = getattr(levels, "n_levels", 8) / 8
    samples, views = [], []
    for s in steps:
        assert s is not None
        pixels = s.supervised_pixels + (s.novel_pixels if guided else 0)
        samples.append(per_pixel * pixels * t.accumulate_grad_batches)
        views.append(s.novel_views * t.accumulate_grad_batches if guided else 0)
    weights = sum(p.numel() for p in system.parameters() if p.requires_grad)
    peak = BASE_GB * 1e9 + BYTES_PER_WEIGHT * weights + _model_bytes(model)
    at_once = max(samples) * BYTES_PER_SAMPLE * cost
    peak += at_once / t.accumulate_grad_batches
    if on_gpu or (guided and not model.get("bundled")):
        return Forecast(peak / 1e9, None)
    camera: Any = getattr(data.cfg, "random_camera", None)
    previews = t.max_steps // t.val_check_interval if t.val_check_interval else 0
    seen = (previews + 1) * camera.n_val_views + camera.n_test_views if camera else 0
    looked = seen * per_pixel * (camera.eval_height * camera.eval_width if camera else 0)
    vsd = getattr(getattr(plan.experiment.system, "guidance", None), "variant", "sds") == "vsd"
    per_view = PROBES_PER_VIEW * (VSD_FACTOR if vsd else 1.0)
    probes = PROBES_PER_SAMPLE * cost * (sum(samples) + EVAL_SHARE * looked) + per_view * sum(views)
    if plan.experiment.export_after_train:
        probes += PROBES_PER_EXPORT
    return Forecast(peak / 1e9, probes * min(sample_seconds() for _ in range(3)))


def _model_bytes(model: Mapping[str, Any]) -> float:
    """Return what the guiding networks take in fp32, of which a stored half precision file has half."""
    path = Path(str(model.get("path") or ""))
    if not path.is_file():
        return 0.0
    return path.stat().st_size * (2.0 if model.get("bundled") or torch.cuda.is_available() else 1.0)
