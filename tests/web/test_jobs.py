"""Jobs as processes: in order, cancelled with all that they started, and never without their server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zero123s.errors import ConfigError
from zero123s.web.jobs import BusyError, Job, JobQueue

posix = pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are a matter of POSIX")

FINISHES = "import pathlib, sys; pathlib.Path(sys.argv[1], 'outcome.json').write_text('{\"state\": \"finished\"}')"
STAYS = """
import pathlib, subprocess, sys, threading, time
from zero123s.web.job_process import _end_with_starter
threading.Thread(target=_end_with_starter, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1], "pids").write_text(f"{child.pid} {__import__('os').getpid()}")
time.sleep(600)
"""


def script(code: str):
    return lambda folder: [sys.executable, "-c", code, str(folder)]


@pytest.fixture
def queue_of(tmp_path):
    made = []

    def make(code: str, **options) -> JobQueue:
        made.append(JobQueue(tmp_path / "jobs", command=script(code), **options))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pids(queue: JobQueue, job: Job) -> list[int]:
    path = queue.folder(job) / "pids"
    wait_for(lambda: path.exists() and len(path.read_text().split()) == 2)
    return [int(word) for word in path.read_text().split()]


def test_jobs_run_in_the_order_of_arrival(queue_of):
    queue = queue_of(STAYS)
    first, second, third = (queue.submit("mesh", f"p{i}", {}) for i in range(3))
    wait_for(lambda: first.state == "running")
    assert (second.state, third.state) == ("waiting", "waiting")
    assert (queue.position(second), queue.position(third)) == (0, 1)
    queue.cancel(first)
    wait_for(lambda: second.state == "running")
    assert (first.state, third.state) == ("cancelled", "waiting")


def test_finished_jobs_are_known_to_later_servers(queue_of):
    queue = queue_of(FINISHES)
    job = queue.submit("mesh", "duck", {"quality": "quick"}, lambda folder: {"filled": folder.name})
    wait_for(lambda: job.state == "finished")
    assert job.task == {"quality": "quick", "filled": job.id}
    queue.close()
    again = queue_of(FINISHES).get(job.id)
    assert (again.state, again.title, again.task) == ("finished", "duck", job.task)
    assert again.ended >= again.started >= again.created > 0


@posix
def test_cancelling_ends_a_job_and_its_children(queue_of):
    queue = queue_of(STAYS)
    job = queue.submit("mesh", "duck", {})
    child, process = pids(queue, job)
    assert is_alive(child)
    queue.cancel(job)
    wait_for(lambda: not is_alive(child) and not is_alive(process))
    assert job.state == "cancelled"
    assert json.loads((queue.folder(job) / "job.json").read_text())["state"] == "cancelled"


@posix
def test_a_job_that_ignores_the_signal_is_killed(queue_of, monkeypatch):
    monkeypatch.setattr("zero123s.web.jobs.SECONDS_TO_STOP", 0.2)
    stubborn = STAYS.replace("child =", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); child =")
    queue = queue_of(stubborn)
    job = queue.submit("mesh", "duck", {})
    _, process = pids(queue, job)
    queue.cancel(job)
    wait_for(lambda: not is_alive(process))


@posix
def test_no_job_outlives_a_server_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from zero123s.web.jobs import JobQueue\n"
        f"q = JobQueue(Path(sys.argv[1]), command=lambda folder: [sys.executable, '-c', {STAYS!r}, str(folder)])\n"
        "q.submit('mesh', 'duck', {}); time.sleep(600)"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    wait_for(lambda: list(tmp_path.glob("*/pids")) and len(next(tmp_path.glob("*/pids")).read_text().split()) == 2)
    child, process = (int(word) for word in next(tmp_path.glob("*/pids")).read_text().split())
    assert is_alive(child)
    assert is_alive(process)
    server.send_signal(signal.SIGKILL)
    server.wait()
    wait_for(lambda: not is_alive(child) and not is_alive(process))
    # The next server says what became of it.
    queue = JobQueue(tmp_path, command=script(FINISHES))
    (job,) = queue.known([path.parent.name for path in tmp_path.glob("*/job.json")])
    assert (job.state, job.error) == ("failed", "The server was started anew while this job waited or ran.")
    queue.close()


def test_a_silently_dying_process_is_reported_as_failed(queue_of):
    queue = queue_of("import sys; sys.exit(7)")
    job = queue.submit("mesh", "duck", {})
    wait_for(lambda: job.state == "failed")
    assert "exit code 7" in job.error


def test_an_unstartable_command_does_not_stop_the_queue(tmp_path):
    commands = iter([["/nowhere/python"], [sys.executable, "-c", "import sys; sys.exit(7)"]])
    queue = JobQueue(tmp_path, command=lambda folder: next(commands))
    first, second = queue.submit("mesh", "a", {}), queue.submit("mesh", "b", {})
    wait_for(lambda: first.state == "failed" and second.state == "failed")
    assert "cannot be started" in first.error
    queue.close()


def test_a_full_queue_is_reported(queue_of):
    queue = queue_of(STAYS, max_waiting=1)
    first = queue.submit("mesh", "a", {})
    wait_for(lambda: first.state == "running")
    waiting = queue.submit("mesh", "b", {})
    with pytest.raises(BusyError, match="1 jobs are waiting"):
        queue.submit("mesh", "c", {})
    queue.cancel(waiting)
    assert waiting.state == "cancelled"
    queue.submit("mesh", "d", {})


@pytest.mark.parametrize("job_id", ["", "..", "../x", "0" * 16, "0" * 15 + "/", None, 3, ["a"]])
def test_only_ids_of_jobs_are_jobs(queue_of, job_id):
    queue = queue_of(FINISHES)
    with pytest.raises(ConfigError, match="There is no such job"):
        queue.get(job_id)
    assert queue.known([job_id]) == []


def test_foreign_folders_are_left_alone(tmp_path):
    for name, text in {"a": "{", "b": '{"id": "b"}', "c": "[]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text(text)
    queue = JobQueue(tmp_path)
    assert queue.known(["a", "b", "c"]) == []
    queue.close()


def test_jobs_are_deleted_some_days_after_their_end(queue_of, tmp_path):
    queue = queue_of(FINISHES, keep_days=2.0)
    old, young = queue.submit("mesh", "old", {}), queue.submit("mesh", "young", {})
    wait_for(lambda: young.state == "finished")
    (tmp_path / "jobs" / "something_else").mkdir()
    old.ended -= 3 * 86400
    young.ended -= 86400
    new = queue.submit("mesh", "new", {})
    wait_for(lambda: new.state == "finished")
    assert {p.name for p in (tmp_path / "jobs").iterdir()} == {young.id, new.id, "something_else"}
    assert queue.known([old.id, young.id, new.id]) == [new, young]
    with pytest.raises(ConfigError, match="no such job"):
        queue.get(old.id)


def test_a_new_server_deletes_old_leftovers(queue_of):
    queue = queue_of(FINISHES)
    job = queue.submit("mesh", "old", {})
    wait_for(lambda: job.state == "finished")
    job.ended -= 3 * 86400
    queue._write(job)
    assert queue_of(FINISHES).get(job.id).id == job.id, "0 keeps every job"
    assert queue_of(FINISHES, keep_days=1.0).known([job.id]) == []
    assert not queue.folder(job).exists()
