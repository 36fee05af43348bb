"""Workers on Ray: one process each, which keeps its networks between items; a worker that dies is replaced."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from zero123s.cluster.items import Item
from zero123s.cluster.worker import Placement, Setup
from zero123s.errors import ConfigError, MissingDependencyError
from zero123s.runtime.job_runner import WorkerDiedError, WorkerTimeoutError

try:
    import ray
    import ray.exceptions
except ImportError as missing:
    raise MissingDependencyError(
        "Batches run on Ray, which is not installed: pip install -e '.[cluster]'."
    ) from missing

OBJECT_STORE_BYTES = 100_000_000
"""Only small records travel through Ray; images and meshes go through the file system."""


@contextmanager
def cluster(placement: Placement) -> Iterator[int]:
    """Join or start a Ray cluster for the duration of the block; yields the number of workers that fit.

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
        yield _workers_that_fit(placement)
    finally:
        if joined:
            ray.shutdown()


def _workers_that_fit(placement: Placement) -> int:
    total = ray.cluster_resources()
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    n_workers = int(cpus / placement.cpus) if placement.cpus else 10**6
    if placement.gpus:
        n_workers = min(n_workers, int(gpus / placement.gpus))
    if n_workers < 1:
        raise ConfigError(
            f"A worker needs {placement.cpus:g} CPUs and {placement.gpus:g} GPUs, and the cluster has {cpus:g} and "
            f"{gpus:g}; ask for less with --cpus and --gpus."
        )
    return min(n_workers, placement.workers) if placement.workers else n_workers


class ProgressBoard:
    """Ray actor to which workers write their progress and from which the driver reads it."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def report(self, name: str, progress: dict[str, Any]) -> None:
        """Set an item's progress."""
        self.rows[name] = progress

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the latest progress of every item."""
        return self.rows


class Worker:
    """Runs one item after another in its process."""

    def __init__(self, board: Any, threads: int) -> None:
        import torch

        from zero123s.cluster.worker import run_item
        from zero123s.diffusion.shared import sharing_networks
        from zero123s.run.console import set_up_logging

        self.board = board
        self._run_item = run_item
        torch.set_num_threads(threads)
        set_up_logging(verbose=False)
        self._shared = sharing_networks()
        self._shared.__enter__()

    def run(self, item: Item, setup: Setup, attempt: int) -> dict[str, Any]:
        """Run an item; returns its record."""
        report = lambda progress: self.board.report.remote(item.name, {**progress, "attempt": attempt})  # noqa: E731
        report({"stage": "start"})
        record = self._run_item(item, setup, attempt, report)
        return {**record, "node": ray.get_runtime_context().get_node_id()}


class RayWorkers:
    """Actors on a Ray cluster, for a `JobRunner`.

    Args:
        setup: what the items have in common.
        placement: resources of a worker.
        timeout: seconds that one attempt may take; 0 = any.
        on_record: called with the item, the attempt and the record of every attempt that came to its end.
    """

    def __init__(
        self,
        setup: Setup,
        placement: Placement,
        timeout: float,
        on_record: Callable[[Item, int, dict[str, Any]], None],
    ) -> None:
        self.setup, self.placement, self.timeout, self.on_record = setup, placement, timeout, on_record
        self.board = ray.remote(num_cpus=0)(ProgressBoard).remote()
        self._actors: list[Any] = []

    def open(self) -> Callable[[Item, int], None]:
        """Start an actor, wait for its placement, and return a function that runs an item; raises WorkerDiedError."""
        cpus = self.placement.cpus
        place = ray.remote(num_cpus=cpus, num_gpus=self.placement.gpus, scheduling_strategy="SPREAD")
        actor: Any = place(Worker).remote(self.board, max(1, int(cpus)))  # ray adds __ray_ready__ to every actor
        self._actors.append(actor)
        _get(actor.__ray_ready__.remote())
        return partial(self._run, actor)

    def _run(self, actor: Any, item: Item, attempt: int) -> None:
        record = _get(actor.run.remote(item, self.setup, attempt), self.timeout or None)
        if record is None:
            ray.kill(actor)
            message = f"took longer than {self.timeout:g} s; the same command resumes it from its checkpoint"
            raise WorkerTimeoutError(message)
        self.on_record(item, attempt, record)

    def progress(self) -> dict[str, dict[str, Any]]:
        """Return the latest progress of every item."""
        return ray.get(self.board.read.remote())

    def kill(self) -> None:
        """Kill all actors, including those that are not placed yet."""
        for actor in self._actors:
            ray.kill(actor)


def _get(ref: Any, timeout: float | None = None) -> Any:
    """Return the result of an actor, or None after the timeout; raises WorkerDiedError."""
    try:
        return ray.get(ref, timeout=timeout)
    except ray.exceptions.GetTimeoutError:
        return None
    except ray.exceptions.RayTaskError:
        raise  # a bug of ours: `run_item` returns whatever goes wrong with an item
    except ray.exceptions.RayError as error:  # killed, out of memory, its node gone
        raise WorkerDiedError(" ".join(str(error).split())[:300]) from error
