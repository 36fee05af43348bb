"""Jobs of a web server: one process group each, a few at a time, the others queued; none outlives the server."""

import json
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zero123s.errors import ConfigError, OutputError, UserError
from zero123s.runtime.files import explain_os_error, write_text
from zero123s.runtime.job_runner import JobRunner, WorkerDiedError

logger = logging.getLogger(__name__)

JOB, OUTCOME, LOG = "job.json", "outcome.json", "log.txt"
ID = re.compile(r"[0-9a-f]{16}")
SECONDS_TO_STOP = 15.0
"""Time for a cancelled job to write its checkpoint before it is killed."""
SECONDS_OF_A_DAY = 86400
ENDED = frozenset({"finished", "failed", "cancelled"})


class BusyError(UserError):
    """The queue is full."""


@dataclass
class Job:
    """One run of one visitor."""

    id: str
    """Sixteen random hexadecimal digits; they grant access to the job."""
    kind: str
    """"mesh" or "draw"."""
    title: str
    task: dict[str, Any] = field(default_factory=dict)
    """Task of its process; see `job_process`."""
    state: str = "waiting"
    """"waiting", "running", "finished", "failed" or "cancelled"."""
    error: str = ""
    created: float = 0.0
    """Seconds since 1970."""
    started: float = 0.0
    ended: float = 0.0


class JobQueue:
    """Runs jobs in order of submission.

    Args:
        out: folder; every job has one of its own below, named by its id.
        at_once: jobs that run side by side.
        max_waiting: jobs that may wait.
        keep_days: how long a job's folder is kept after its end, at least; 0 = for ever.
        command: what does a job, given its folder.
    """

    def __init__(
        self,
        out: Path,
        at_once: int = 1,
        max_waiting: int = 20,
        keep_days: float = 0.0,
        command: Callable[[Path], list[str]] | None = None,
    ) -> None:
        self.out = out
        self.command = command or (lambda folder: [sys.executable, "-m", "zero123s.web.job_process", str(folder)])
        self.max_waiting = max_waiting
        self.keep_days = keep_days
        self._jobs: dict[str, Job] = {}
        self._processes: dict[str, subprocess.Popen] = {}
        self._lock = threading.RLock()
        self._closing = False
        self._read_earlier()
        self._delete_old()
        self._runner = JobRunner(lambda: self._run, at_once, self._lost)

    def folder(self, job: Job) -> Path:
        """Return a job's folder."""
        return self.out / job.id

    def get(self, job_id: object) -> Job:
        """Return a job; raises ConfigError for an unknown id."""
        if not isinstance(job_id, str) or not ID.fullmatch(job_id) or job_id not in self._jobs:
            raise ConfigError("There is no such job.")
        return self._jobs[job_id]

    def known(self, ids: object) -> list[Job]:
        """Return the jobs among some ids, newest first."""
        found = (
            {i: self._jobs[i] for i in ids if isinstance(i, str) and i in self._jobs} if isinstance(ids, list) else {}
        )
        return sorted(found.values(), key=lambda job: -job.created)

    def submit(
        self, kind: str, title: str, task: Mapping[str, Any], fill: Callable[[Path], Mapping[str, Any]] | None = None
    ) -> Job:
        """Put a job at the end of the queue.

        Args:
            task: what its process does.
            fill: writes what the job needs into its folder; what it returns is added to the task.

        Raises:
            BusyError: too many wait already.
        """
        if len(self._waiting()) >= self.max_waiting:
            raise BusyError(f"{self.max_waiting} jobs are waiting already; try again later.")
        self._delete_old()
        job = Job(secrets.token_hex(8), kind, title, dict(task), created=time.time())
        self.folder(job).mkdir(parents=True)
        if fill is not None:
            job.task |= fill(self.folder(job))
        with self._lock:
            self._write(job)
            self._jobs[job.id] = job
        self._runner.submit(job)
        return job

    def position(self, job: Job) -> int:
        """Return the number of jobs that will start before this one; 0 = it is next, or already started."""
        waiting = self._waiting()
        return waiting.index(job) if job in waiting else 0

    def _waiting(self) -> list[Job]:
        with self._lock:
            return [job for job in self._jobs.values() if job.state == "waiting"]

    def cancel(self, job: Job) -> None:
        """Stop a job: it writes a checkpoint and ends, or is killed with all its processes after a while."""
        with self._lock:
            if job.state in ENDED:
                return
            self._end(job, "cancelled")  # written at once: a server that dies now must not say it failed
            process = self._processes.get(job.id)
        if process is not None:
            _send(process, signal.SIGTERM)
            threading.Timer(SECONDS_TO_STOP, _kill, [process]).start()

    def close(self) -> None:
        """Kill all running jobs and start no more."""
        with self._lock:
            self._closing = True
        self._runner.close(lambda: [_kill(process) for process in list(self._processes.values())])

    # ------------------------------------------------------------ in the runner's threads

    def _run(self, job: Job, attempt: int) -> None:
        with self._lock:
            if job.state in ENDED or self._closing:
                return
            job.state, job.started = "running", time.time()
            self._write(job)
            process = self._processes[job.id] = self._start(job)
        process.wait()
        _kill(process)  # whatever it has started and left behind
        with self._lock:
            del self._processes[job.id]
            if job.state != "cancelled":
                self._end(job, *self._outcome(job, process.returncode))

    def _lost(self, job: Job, attempt: int, error: WorkerDiedError) -> None:
        with self._lock:
            self._end(job, "failed", str(error))

    def _start(self, job: Job) -> subprocess.Popen:
        # The process ends itself, with all that it started, when the other end of its stdin is gone: so it cannot
        # outlive this server, however that dies.
        try:
            with open(self.folder(job) / LOG, "ab") as log:
                return subprocess.Popen(
                    self.command(self.folder(job)),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            reason = explain_os_error(error)
            raise WorkerDiedError(f"The job's process cannot be started: {reason}.") from error

    def _outcome(self, job: Job, returncode: int) -> tuple[str, str]:
        outcome = read_json(self.folder(job) / OUTCOME)
        if outcome.get("state") in ENDED:
            return str(outcome["state"]), str(outcome.get("error", ""))
        if self._closing:
            raise WorkerDiedError("The server was shut down.")
        raise WorkerDiedError(f"The job's process ended without a result (exit code {returncode}); its log says more.")

    def _end(self, job: Job, state: str, error: str = "") -> None:
        job.state, job.error, job.ended = state, error, time.time()
        self._write(job)

    def _write(self, job: Job) -> None:
        try:
            write_text(self.folder(job) / JOB, json.dumps(asdict(job), indent=1) + "\n")
        except OutputError as error:  # the job continues and the page still lists it; only a new server would not
            logger.warning("warning: %s", error)

    def _read_earlier(self) -> None:
        """Restore the jobs of an earlier server; those that were running are marked as failed."""
        for path in sorted(self.out.glob(f"*/{JOB}")):
            fields = read_json(path)
            if set(fields) != set(Job.__dataclass_fields__) or fields["id"] != path.parent.name:
                continue  # a folder of something else
            job = Job(**fields)
            self._jobs[job.id] = job
            if job.state not in ENDED:
                self._end(job, "failed", "The server was started anew while this job waited or ran.")

    def _delete_old(self) -> None:
        """Delete the folders of jobs that ended more than `keep_days` ago."""
        if not self.keep_days:
            return
        before = time.time() - self.keep_days * SECONDS_OF_A_DAY
        with self._lock:
            old = [job for job in self._jobs.values() if job.state in ENDED and job.ended < before]
            for job in old:
                del self._jobs[job.id]
        for job in old:
            shutil.rmtree(self.folder(job), ignore_errors=True)  # what is left is taken up and deleted next time


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _send(process: subprocess.Popen, signum: int) -> None:
    """Send a signal to a process and its children, as far as they still run."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signum)  # its group has its own number
        elif process.poll() is None:
            process.terminate()
    except ProcessLookupError:
        return
    except PermissionError:  # macOS says so of a group of zombies
        return


def _kill(process: subprocess.Popen) -> None:
    _send(process, getattr(signal, "SIGKILL", signal.SIGTERM))
