"""The measured number of threads."""

import pytest
import torch

from zero123s.ops import threads


@pytest.mark.parametrize(("slow_with", "expected"), [(1, 3), (3, 1)])
def test_the_faster_number_of_threads_is_chosen(monkeypatch, slow_with, expected):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "sample_seconds", lambda: 2.0 if torch.get_num_threads() == slow_with else 1.0)
    try:
        torch.set_num_threads(3)
        assert threads.measured_threads() == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
