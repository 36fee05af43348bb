"""The job queue of the web page and of batches: in order of submission, one thread per worker."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar("Job")


class WorkerDiedError(Exception):
    """The process that ran a job is gone; another attempt may succeed."""


class WorkerTimeoutError(WorkerDiedError):
    """A worker was ended because its job took too long; it is not retried."""


class JobRunner(Generic[Job]):
    """Runs jobs on a fixed number of workers and replaces workers that die.

    Args:
        open_worker: starts a worker and returns a function that runs a job on it, given the number of the attempt from
            1; both may raise WorkerDiedError. Called in the worker's own thread, before a job is taken from the queue.
        n_workers: number of jobs that run at the same time.
        on_lost: called with a job, its last attempt and the error when the job's last worker has died.
        retries: further attempts at a job whose worker died; they go before all other jobs.
    """

    def __init__(
        self,
        open_worker: Callable[[], Callable[[Job, int], None]],
        n_workers: int,
        on_lost: Callable[[Job, int, WorkerDiedError], None],
        retries: int = 0,
    ) -> None:
        self.open_worker, self.on_lost, self.retries = open_worker, on_lost, retries
        self.running: list[Job] = []
        self.deaths = 0
        self._waiting: list[tuple[Job, int]] = []
        self._error: BaseException | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(n_workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, attempt: int = 1) -> None:
        """Put a job at the end of the queue."""
        with self._changed:
            self._waiting.append((job, attempt))
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of all jobs, at most for a time; returns whether they ended. Re-raises a thread's error."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._error or not (self._waiting or self.running), seconds)
            if self._error is not None:
                raise self._error
            return bool(done)

    def close(self, end_workers: Callable[[], object]) -> None:
        """Start no more jobs, call `end_workers`, and wait for the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end_workers()
        for thread in self._threads:
            thread.join(10)

    def _work(self) -> None:
        try:
            while not self._closing:
                try:
                    self._use(self.open_worker())
                except WorkerDiedError:
                    self.deaths += 1
                    if self.deaths > 10 * (1 + self.retries):
                        raise  # they die as soon as they start
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _use(self, run: Callable[[Job, int], None]) -> None:
        """Run one job after another on a worker until it dies."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                job, attempt = self._waiting.pop(0)
                self.running.append(job)
            try:
                run(job, attempt)
            except WorkerDiedError as error:
                self.deaths += 1
                if attempt > self.retries or isinstance(error, WorkerTimeoutError):
                    self.on_lost(job, attempt, error)
                else:
                    self._waiting.insert(0, (job, attempt + 1))
                return
            finally:
                with self._changed:
                    self.running.remove(job)
                    self._changed.notify_all()
