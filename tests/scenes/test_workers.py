"""Jobs in processes of their own: all done, an error carried over, a kill at any moment noticed, no process left behind."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from zero123s.scenes.workers import WorkerKilledError, map_processes


def touch(path: Path) -> None:
    path.touch()


def fail(path: Path) -> None:
    raise ValueError(f"no {path}")


def end(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def children() -> list[int]:
    found = " ".join(p.read_text() for p in Path("/proc/self/task").glob("*/children")).split()
    return [int(c) for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


@pytest.mark.parametrize(("jobs", "processes"), [(0, 2), (1, 4), (7, 2)])
def test_every_job_is_done_once(tmp_path, jobs, processes):
    paths = [(tmp_path / str(i),) for i in range(jobs)]
    assert sorted(map_processes(touch, paths, processes)) == list(range(jobs))
    assert len(list(tmp_path.iterdir())) == jobs


def test_an_error_arrives_with_where_it_came_from():
    with pytest.raises(ValueError, match="no x") as caught:
        list(map_processes(fail, [("x",)], 2))
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_dying_process_ends_the_others(tmp_path):
    with pytest.raises(WorkerKilledError):
        list(map_processes(end, [(tmp_path,)] * 4, 2))
    assert children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("delay_s", [0, 0.02, 0.1, 0.4])
def test_a_kill_while_the_processes_start_is_noticed(delay_s):
    def kill() -> None:
        while not (found := children()):
            time.sleep(0.001)
        time.sleep(delay_s)
        os.kill(found[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(WorkerKilledError):
        list(map_processes(time.sleep, [(60,)] * 4, 2))
    assert time.monotonic() - started < 50
    assert children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_no_process_outlives_a_caller_that_stops(tmp_path):
    iteration = map_processes(touch, [(tmp_path / str(i),) for i in range(9)], 2)
    next(iteration)
    iteration.close()
    assert children() == []
