"""Commands in processes of their own, forked from one that has imported everything: a start costs no seconds."""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["zero123s.commands.launch", "zero123s.run.runner", "zero123s.system"])


def start(
    argv: Sequence[str],
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    imports: Sequence[str] = (),
) -> BaseProcess:
    """Start `launch.py` with these words; `exitcode` is None while it runs.

    Args:
        argv: words of the command line.
        log: file for what it prints; None: nowhere.
        environment: variables to set in it.
        imports: helper modules that it imports first, to register what they define.
    """
    process = _context.Process(target=_run, args=(list(argv), log, dict(environment or {}), list(imports)), daemon=True)
    process.start()
    return process


def _run(argv: list[str], log: Path | None, environment: dict[str, str], imports: list[str]) -> None:
    os.environ.update(environment)
    file = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["launch.py", *argv]
    for module in imports:
        importlib.import_module(module)
    from zero123s.commands.launch import main

    sys.exit(main(argv))
