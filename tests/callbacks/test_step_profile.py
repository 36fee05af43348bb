"""The parts of a step, from a recorded profile."""

import torch
from torch.profiler import ProfilerActivity, profile

from zero123s.callbacks.step_profile import StepProfile, format_table, part_of, parts_of
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
    assert abs(sum(ms for ms, _ in parts.values()) - whole) < 1e-6 * whole
    assert 1.5 < parts["field"][1] < 1.7  # x + 1: 50000 x 8 floats are 1.53 MiB
    assert part_of("aten::mm") is None


def test_the_table_is_sorted_and_per_step():
    lines = format_table({"a": (2.0, 4.0), "b": (6.0, 0.0)}, 2).splitlines()
    assert [line.split()[0] for line in lines] == ["part", "b", "a", "all"]
    assert lines[1].split() == ["b", "3.00", "75.0%", "0.0"]
    assert lines[3].split() == ["all", "4.00", "100%", "2.0"]


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
