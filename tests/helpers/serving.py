"""`zero123s web` in a process of its own, as an operator starts it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.request import urlopen


@contextlib.contextmanager
def serving(out: Path, qualities: Path, words: Sequence[str] = ()) -> Iterator[tuple[str, Path]]:
    """Start the server and yield its address and its folder.

    Args:
        out: its folder.
        qualities: file of the qualities that it offers.
        words: further words of its command line.
    """
    command = [sys.executable, "-m", "zero123s", "web", "--port", "0", "--out", str(out), "--qualities", str(qualities)]
    command += ["--profile", "cpu", "--max-megabytes", "2", "--max-megapixels", "4", *words]
    # Many machines have a proxy that leads nowhere for 127.0.0.1; the page needs no other server.
    environment = os.environ | {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    with open(out / "server.log", "w+", encoding="utf-8") as log:
        # A shell that runs the tests in its background hands Ctrl-C down as ignored.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=heard,  # noqa: PLW1509
        )
        try:
            address = wait_for_address(process, out / "server.log")
            urlopen(address, timeout=180).close()  # the first answer takes longest; tests have shorter limits
            yield address, out
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            printed = (out / "server.log").read_text(encoding="utf-8")
            assert printed.endswith("interrupted\n"), printed


def wait_for_address(process: subprocess.Popen, log: Path) -> str:
    """Return the address that a server prints."""
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8")):
            return found.group()
        time.sleep(0.1)
    raise AssertionError(f"no server:\n{log.read_text(encoding='utf-8')}")
