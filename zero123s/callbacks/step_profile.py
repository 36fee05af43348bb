"""`--profile-run`: time and memory of a few training steps, as a table and as a trace."""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from zero123s.ops.sections import PREFIX

N_STEPS = 5
FIRST_STEP = 20
"""Steps of warm-up: kernels are loaded, and the occupancy grid has adapted to the scene."""
_BACKWARD = "autograd::engine::evaluate_function: "
_GRADIENTS = {
    "_EvaluateTogetherBackward": "encode and networks, backward",
    "_EncodeBackward": "encode, backward",
    "_PositionGradientBackward": "encode, second derivative",
    "_ChunkedMLPBackward": "networks, backward",
    "_ReluInputGradientBackward": "networks, second derivative",
    "_CompositeBackward": "composite, backward",
}


class StepProfile(pl.Callback):
    """Profiles some steps, prints the table and writes `profile/trace.json`, for chrome://tracing or Perfetto.

    Args:
        out_dir: the run folder.
        max_steps: of the training, in case it is shorter than the usual warm-up.
    """

    def __init__(self, out_dir: Path, max_steps: int) -> None:
        self.out_dir = out_dir
        self.first = min(FIRST_STEP, max(0, max_steps - N_STEPS))
        self._profile: Any = None
        self._seen = 0

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start profiling after the warm-up."""
        self._seen += 1
        if self._seen == self.first + 1:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._profile = profile(activities=activities, profile_memory=True)
            self._profile.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop after N_STEPS steps and print the table."""
        if self._profile is None or self._seen < self.first + N_STEPS:
            return
        recorded, self._profile = self._profile, None
        recorded.stop()
        folder = self.out_dir / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(folder / "trace.json"))
        table = format_table(parts_of(recorded.events()), N_STEPS)
        (folder / "parts.txt").write_text(table + "\n", encoding="utf-8")
        print(f"\n{table}\ntrace: {folder / 'trace.json'}", file=sys.stderr)


def part_of(event: str) -> str | None:
    """Return the part of a step that an event belongs to; None if the enclosing events decide."""
    if event.startswith(PREFIX):
        return event.removeprefix(PREFIX)
    if event.startswith("Optimizer.step"):
        return "optimiser"
    if event.startswith(_BACKWARD):
        return _GRADIENTS.get(event.removeprefix(_BACKWARD), "other gradients")
    return None


class Part(NamedTuple):
    """What a part of the recorded steps cost."""

    cpu_ms: float
    """Time on the host, waits for the GPU included."""
    gpu_ms: float
    """Time of the kernels that were launched there."""
    mib: float
    """Memory allocated, on either device."""


def parts_of(events: Any) -> dict[str, Part]:
    """Return the cost of each part; nested events count for the innermost one only."""
    parts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue  # kernels count where they were launched; a span over them would count a second time
        at = event
        while at is not None and part_of(at.name) is None:
            at = at.cpu_parent
        part = parts["other" if at is None else str(part_of(at.name))]
        part[0] += event.self_cpu_time_total / 1e3
        part[1] += event.self_device_time_total / 1e3
        part[2] += max(0, event.self_cpu_memory_usage + event.self_device_memory_usage) / 2**20
    return {name: Part(*costs) for name, costs in parts.items()}


def format_table(parts: dict[str, Part], n_steps: int) -> str:
    """Format the parts as a table per step, longest first: on the GPU where there is one, else on the CPU."""
    on_gpu = any(part.gpu_ms > 0 for part in parts.values())
    time_of = (lambda part: part.gpu_ms) if on_gpu else (lambda part: part.cpu_ms)
    rows = sorted(parts.items(), key=lambda item: -time_of(item[1]))
    rows.append(("all", Part(*(sum(column) for column in zip(*parts.values(), strict=True)))))
    total = max(time_of(rows[-1][1]), 1e-9)
    lines = [f"{'part of a step':<32}{'CPU ms':>9}{'GPU ms' if on_gpu else '':>9}{'share':>8}{'MiB allocated':>16}"]
    for name, part in rows:
        gpu = f"{part.gpu_ms / n_steps:.2f}" if on_gpu else ""
        share = time_of(part) / total
        lines.append(f"{name:<32}{part.cpu_ms / n_steps:>9.2f}{gpu:>9}{share:>8.1%}{part.mib / n_steps:>16.1f}")
    if on_gpu:
        lines.append("share: of the kernels' time. Where the CPU's sum is the larger, the step waits for the host.")
    return "\n".join(lines)
