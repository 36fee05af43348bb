"""Workers on Ray: one process each, which keeps its networks between items; whoever dies is replaced."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from zero123s.cluster.items import Item
from zero123s.cluster.worker import Setup
from zero123s.errors import ConfigError, MissingDependencyError

try:
    import ray
    import ray.exceptions
except ImportError as missing:
    raise MissingDependencyError(
        "Batches run on Ray, which is not installed: pip install -e '.[cluster]'."
    ) from missing

OBJECT_STORE_BYTES = 100_000_000
"""Only small records travel through Ray; pictures and meshes go through the file system."""


@dataclass(frozen=True)
class Placement:
    """What each worker asks the cluster for."""

    cpus: float = 1.0
    gpus: float = 0.0
    """A share of a GPU lets several workers live on one."""
    workers: int = 0
    """0 = as many as there is room for."""
    address: str | None = None
    """Of a running cluster; None = this machine."""


@contextmanager
def cluster(placement: Placement) -> Iterator[int]:
    """Join or start a Ray cluster for the time of the block; yields how many workers it has room for.

    Raises:
        ConfigError: nothing answers at the address, or no worker fits.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would otherwise hide the GPUs from workers that ask for none, and say so in a warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    if placement.address is None:
        # Without "local" Ray would join whatever cluster it finds running here.
        options |= {"address": "local", "object_store_memory": OBJECT_STORE_BYTES}
    else:
        options = {"address": placement.address, "log_to_driver": False, "logging_level": "error"}
    joined = not ray.is_initialized()
    if joined:
        try:
            ray.init(**options)
        except (ConnectionError, ValueError, TimeoutError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"No Ray cluster can be used at {placement.address or 'this machine'}: {reason}"
            ) from error
    try:
        yield _room(placement)
    finally:
        if joined:
            ray.shutdown()


def _room(placement: Placement) -> int:
    total = ray.cluster_resources()
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    room = int(cpus / placement.cpus) if placement.cpus else 10**6
    if placement.gpus:
        room = min(room, int(gpus / placement.gpus))
    if room < 1:
        raise ConfigError(
            f"A worker asks for {placement.cpus:g} CPUs and {placement.gpus:g} GPUs, and the cluster has {cpus:g} and "
            f"{gpus:g}; ask for less with --cpus and --gpus."
        )
    return min(room, placement.workers) if placement.workers else room


class Board:
    """Where workers write how far they are, and the driver reads it."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def tell(self, name: str, words: dict[str, Any]) -> None:
        """Note an item's progress."""
        self.rows[name] = words

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the latest progress of every item."""
        return self.rows


class Worker:
    """Runs one item after another in its process."""

    def __init__(self, board: Any, threads: int) -> None:
        import torch

        from zero123s.diffusion.shared import sharing_networks
        from zero123s.run.console import set_up_logging

        self.board = board
        torch.set_num_threads(threads)
        set_up_logging(verbose=False)
        self._shared = sharing_networks()
        self._shared.__enter__()

    def where(self) -> tuple[str, int]:
        """Return node and process, as soon as this worker has a place."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(self, item: Item, setup: Setup, attempt: int) -> dict[str, Any]:
        """Run an item; returns its record."""
        from zero123s.cluster.worker import run_item

        tell = lambda words: self.board.tell.remote(item.name, {**words, "attempt": attempt})  # noqa: E731
        tell({"stage": "start", "step": 0, "max_steps": 0, "left": None})
        record = run_item(item, setup, attempt, tell)
        return {**record, "node": ray.get_runtime_context().get_node_id()}


@dataclass
class _Running:
    item: Item
    attempt: int
    worker: "_Place"
    since: float | None = None
    """When the worker was first seen at it."""


@dataclass
class _Place:
    """One worker's place, whoever holds it."""

    handle: Any = None
    process: int = 0
    node: str = ""


@dataclass
class Batch:
    """Items on workers until all are done.

    Args:
        setup: what the items have in common.
        placement: what a worker asks for.
        retries: further attempts after a worker died or an item failed by a bug; mistakes are final.
        timeout: seconds that one attempt may take; 0 = any.
        on_change: called with the whole batch whenever something has changed, and about twice a second.
    """

    setup: Setup
    placement: Placement
    retries: int
    timeout: float
    on_change: Callable[["Batch", bool], None]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Finished and failed items by name."""
    progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: dict[Any, _Running] = field(default_factory=dict)
    deaths: int = 0
    """Workers lost so far, those killed for time included."""

    def run(self, todo: list[Item], room: int) -> None:
        """Run the items; returns when each has a record."""
        self._queue = [(item, 1) for item in todo]
        self._board = ray.remote(num_cpus=0)(Board).remote()
        self._starting: dict[Any, _Place] = {}
        self._idle: list[_Place] = []
        for _ in range(min(room, len(todo))):
            self._start(_Place())
        while self._queue or self.running:
            while self._idle and self._queue:
                self._assign(self._idle.pop())
            waiting = [*self._starting, *self.running]
            done, _ = ray.wait(waiting, num_returns=1, timeout=0.5)
            for ref in done:
                self._collect(ref)
            self.progress = ray.get(self._board.read.remote())
            self._check_times()
            self.on_change(self, bool(done))
        for place in [*self._idle, *self._starting.values()]:
            ray.kill(place.handle)

    def _start(self, place: _Place) -> None:
        cpus = self.placement.cpus
        actor = ray.remote(num_cpus=cpus, num_gpus=self.placement.gpus, scheduling_strategy="SPREAD")(Worker)
        place.handle = actor.remote(self._board, max(1, int(cpus)))
        self._starting[place.handle.where.remote()] = place

    def _assign(self, place: _Place) -> None:
        item, attempt = self._queue.pop(0)
        ref = place.handle.run.remote(item, self.setup, attempt)
        self.running[ref] = _Running(item, attempt, place)

    def _collect(self, ref: Any) -> None:
        place = self._starting.pop(ref, None)
        try:
            value: Any = ray.get(ref)
        except ray.exceptions.RayTaskError:
            raise  # a bug of ours: `run_item` returns whatever goes wrong with an item
        except ray.exceptions.RayError as error:  # killed, out of memory, its node gone
            self._bury(ref, place, error)
            return
        if place is not None:
            place.node, place.process = value
            self._idle.append(place)
            return
        job = self.running.pop(ref)
        self._idle.append(job.worker)
        if value["state"] == "failed" and not value.pop("final") and job.attempt <= self.retries:
            self._queue.append((job.item, job.attempt + 1))
        else:
            self.records[job.item.name] = value

    def _bury(self, ref: Any, place: _Place | None, error: Exception) -> None:
        """Replace a worker that died; its item goes on from its checkpoint, before all others."""
        self.deaths += 1
        if place is not None:
            if self.deaths > 10 * (1 + self.retries):
                raise ConfigError(f"Workers die as soon as they start: {' '.join(str(error).split())[:300]}")
            self._start(place)
            return
        job = self.running.pop(ref)
        self._start(job.worker)
        if job.attempt <= self.retries:
            self._queue.insert(0, (job.item, job.attempt + 1))
        else:
            words = f"its worker died {job.attempt} times, perhaps for lack of memory"
            self.records[job.item.name] = self._unrecorded(job, "failed", words)

    def _check_times(self) -> None:
        for ref, job in list(self.running.items()):
            seen = self.progress.get(job.item.name, {}).get("attempt") == job.attempt
            if job.since is None:
                job.since = time.monotonic() if seen else None
            elif self.timeout and time.monotonic() - job.since > self.timeout:
                del self.running[ref]
                ray.kill(job.worker.handle)
                self.deaths += 1
                words = f"took longer than {self.timeout:g} s; the same command goes on from its checkpoint"
                self.records[job.item.name] = self._unrecorded(job, "timed out", words)
                self._start(job.worker)

    def _unrecorded(self, job: _Running, state: str, error: str) -> dict[str, Any]:
        item = job.item
        return {
            "name": item.name,
            "image": str(item.image),
            "overrides": list(item.words),
            "fingerprint": item.fingerprint(self.setup.fingerprint),
            "attempts": job.attempt,
            "state": state,
            "error": error,
        }
