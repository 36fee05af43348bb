"""The queue behind the web page and the batch, with workers that answer as a table says."""

import threading

import pytest

from zero123s.runtime.job_runner import JobRunner, WorkerDiedError, WorkerTimeoutError


def run_all(jobs, answers, n_workers=1, retries=0):
    """Run jobs; `answers` gives the error of an attempt at a job. Returns attempts in order, lost jobs, the runner."""
    started, lost, done = [], {}, threading.Event()

    def open_worker():
        done.wait(10)  # until all jobs are in the queue
        return run

    def run(job, attempt):
        started.append((job, attempt))
        if (job, attempt) in answers:
            raise answers[job, attempt]

    runner = JobRunner(
        open_worker, n_workers, lambda job, attempt, error: lost.update({job: (attempt, error)}), retries
    )
    for job in jobs:
        runner.submit(job)
    done.set()
    try:
        assert runner.wait(10)
    finally:
        runner.close(lambda: None)
    return started, lost, runner


def test_jobs_run_in_the_order_of_submission():
    assert run_all("abc", {})[0] == [("a", 1), ("b", 1), ("c", 1)]


def test_a_job_whose_worker_died_runs_next():
    started, lost, runner = run_all("ab", {("a", 1): WorkerDiedError("gone")}, retries=1)
    assert started == [("a", 1), ("a", 2), ("b", 1)]
    assert (lost, runner.deaths) == ({}, 1)


def test_a_job_that_kills_every_worker_is_lost():
    deaths = {("a", n): WorkerDiedError(f"death {n}") for n in (1, 2)}
    started, lost, runner = run_all("ab", deaths, retries=1)
    assert started[-1] == ("b", 1)
    assert lost == {"a": (2, deaths["a", 2])}
    assert runner.deaths == 2


def test_a_timed_out_job_is_not_repeated():
    _, lost, _ = run_all("ab", {("a", 1): WorkerTimeoutError("slow")}, retries=5)
    assert lost["a"][0] == 1


def test_workers_run_side_by_side():
    both = threading.Barrier(2, timeout=10)
    runner = JobRunner(lambda: lambda job, attempt: both.wait(), 2, lambda *lost: None)
    runner.submit("a")
    runner.submit("b")
    assert runner.wait(10)
    runner.close(lambda: None)


def test_workers_that_cannot_start_end_the_wait():
    def open_worker():
        raise WorkerDiedError("no room")

    runner = JobRunner(open_worker, 1, lambda *lost: None)
    runner.submit("a")
    with pytest.raises(WorkerDiedError, match="no room"):
        runner.wait(10)


def test_a_bug_in_a_worker_reaches_who_waits():
    with pytest.raises(ZeroDivisionError):
        run_all("a", {("a", 1): ZeroDivisionError()})


def test_nothing_starts_after_the_close():
    started = []
    block = threading.Event()
    runner = JobRunner(lambda: lambda job, attempt: (started.append(job), block.wait(10)), 1, lambda *lost: None)
    runner.submit("a")
    runner.submit("b")
    assert not runner.wait(0.2)
    runner.close(block.set)
    assert started == ["a"]
