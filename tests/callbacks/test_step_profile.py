"""The parts of a step, from a recorded profile."""

from types import SimpleNamespace

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from zero123s.callbacks.step_profile import Part, StepProfile, format_table, part_of, parts_of
from zero123s.ops.mlp import mlp_forward
from zero123s.ops.sections import section


def _record():
    x, weights = torch.rand(50_000, 8), [torch.rand(8, 8, requires_grad=True), torch.rand(1, 8, requires_grad=True)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        with section("field"):
            y = x + 1
            with section("networks"):
                y = mlp_forward(y, weights)
        y.sum().backward()
    return recorded


def test_every_moment_counts_once_in_the_innermost_part():
    recorded = _record()
    parts = parts_of(recorded.events())
    assert {"field", "networks", "networks, backward"} <= set(parts)
    whole = sum(e.self_cpu_time_total for e in recorded.events()) / 1e3
    assert abs(sum(part.cpu_ms for part in parts.values()) - whole) < 1e-6 * whole
    assert 1.5 < parts["field"].mib < 1.7  # x + 1: 50000 x 8 floats are 1.53 MiB
    assert part_of("aten::mm") is None


def test_the_table_is_sorted_and_per_step():
    lines = format_table({"a": Part(2.0, 0.0, 4.0), "b": Part(6.0, 0.0, 0.0)}, 2).splitlines()
    assert [line.split()[0] for line in lines] == ["part", "b", "a", "all"]
    assert lines[1].split() == ["b", "3.00", "75.0%", "0.0"]
    assert lines[3].split() == ["all", "4.00", "100.0%", "2.0"]


def _event(name, device, cpu_us, device_us, parent=None):
    return SimpleNamespace(
        name=name,
        device_type=device,
        cpu_parent=parent,
        self_cpu_time_total=cpu_us,
        self_device_time_total=device_us,
        self_cpu_memory_usage=0,
        self_device_memory_usage=0,
    )


def test_kernels_count_once_where_launched():
    step = _event("Optimizer.step#Adam.step", DeviceType.CPU, 1000, 0)
    launch = _event("_EncodeBackward", DeviceType.CPU, 1000, 4000, step)
    launch.cpu_parent = _event("autograd::engine::evaluate_function: _EncodeBackward", DeviceType.CPU, 0, 0)
    kernel = _event("_scatter", DeviceType.CUDA, 0, 4000)
    span = _event("Optimizer.step#Adam.step", DeviceType.CUDA, 0, 90_000)  # from its first kernel to its last
    parts = parts_of([step, launch, kernel, span])
    assert parts == {"optimiser": Part(1.0, 0.0, 0.0), "encode, backward": Part(1.0, 4.0, 0.0)}
    lines = format_table(parts, 1).splitlines()
    assert lines[1].split() == ["encode,", "backward", "1.00", "4.00", "100.0%", "0.0"]
    assert lines[3].split() == ["all", "2.00", "4.00", "100.0%", "0.0"]


def test_some_steps_are_recorded_and_written(tmp_path, capsys):
    callback = StepProfile(tmp_path, max_steps=6)
    for _ in range(6):
        callback.on_train_batch_start(None)
        with section("march"):
            torch.rand(1000).sum()
        callback.on_train_batch_end(None)
    assert "march" in (tmp_path / "profile" / "parts.txt").read_text()
    assert (tmp_path / "profile" / "trace.json").stat().st_size > 1000
    assert "trace:" in capsys.readouterr().err
