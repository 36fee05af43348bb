"""Jobs spread over processes, each with a pipe of its own: a killed one can leave no other waiting.

`concurrent.futures.ProcessPoolExecutor` starts its processes while jobs come in; one that is killed in that moment can
leave another, started a moment later, that is never ended (measured: 1 of 8 tries on a busy machine waited for ever).
"""

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any


class WorkerKilledError(Exception):
    """A process ended before its job was done."""


def map_processes(work: Callable[..., object], jobs: Sequence[tuple[Any, ...]], processes: int) -> Iterator[int]:
    """Call `work(*job)` for every job in up to `processes` processes; yield the index of each job that is done.

    Every process is ended when the iteration ends, however it ends, or when the calling process does.

    Raises:
        WorkerKilledError: a process was killed.
        Exception: whatever `work` raised, with the process's traceback as its cause.
    """
    # spawn: a forked child would inherit torch's and numba's thread pools in an unknown state
    context = get_context("spawn")
    workers, doing = [], {}
    waiting = iter(enumerate(jobs))
    try:
        for index, job in waiting:
            here, there = context.Pipe()
            worker = context.Process(target=_serve, args=(there, work), daemon=True)
            workers.append(worker)
            worker.start()
            there.close()  # or its end would never be noticed
            here.send(job)
            doing[here] = index
            if len(workers) == processes:
                break
        while doing:
            for connection in wait(list(doing)):
                assert isinstance(connection, Connection)
                failure = connection.recv()
                if failure is not None:
                    error, text = failure
                    raise error from RuntimeError(f"in a process of its own:\n{text}")
                yield doing.pop(connection)
                for index, job in waiting:
                    connection.send(job)
                    doing[connection] = index
                    break
    except (EOFError, ConnectionError) as error:
        raise WorkerKilledError from error
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.kill()
                worker.join()


def _serve(connection: Connection, work: Callable[..., object]) -> None:
    """Run the jobs received through `connection`, one at a time, and answer each with None or its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller ends its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):
        while True:
            job = connection.recv()
            try:
                work(*job)
                failure = None
            except Exception as error:  # carried to the caller, who raises it
                failure = (error, traceback.format_exc())
            connection.send(failure)


def _end_with_parent() -> None:
    """End this process, even in the middle of a job, when its parent is gone."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
