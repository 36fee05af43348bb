"""A stop signal counts whenever it comes; the stop itself is tried on whole runs in tests/run/test_runner.py."""

import signal
from types import SimpleNamespace

import pytest

from zero123s.callbacks.interrupt import GracefulInterrupt


class Agreement:
    """Stands for the processes' vote; a signal comes in the midst of the given one."""

    def __init__(self, signal_in_vote: int) -> None:
        self.signal_in_vote, self.votes = signal_in_vote, 0

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        self.votes += 1
        if self.votes == self.signal_in_vote:
            signal.raise_signal(signal.SIGTERM)
        return decision


@pytest.mark.parametrize(("signal_in_vote", "stops_after"), [(1, 2), (3, None)])
def test_a_signal_during_synchronisation_is_not_lost(signal_in_vote, stops_after):
    interrupt = GracefulInterrupt()
    trainer = SimpleNamespace(global_step=0, should_stop=False, strategy=Agreement(signal_in_vote))
    with interrupt.listening():
        interrupt.on_train_start(trainer, None)
        for step in (1, 2, 3):
            interrupt.on_train_batch_start(trainer, None, None, 0)
            trainer.global_step = step
            interrupt.on_train_batch_end(trainer, None)
            if trainer.should_stop:
                break
        assert (trainer.global_step if trainer.should_stop else None) == stops_after
        interrupt.on_train_end(trainer, None)
    assert interrupt.interrupted
