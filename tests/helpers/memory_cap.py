"""A cap on the memory of this process, by RLIMIT_DATA (Linux)."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def at_most_gb_more(gigabytes: float) -> Iterator[None]:
    """Let an allocation fail that takes this process more than `gigabytes` above what it uses now."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the cap needs Linux")
    kilobytes = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.endswith(" kB"):
            kilobytes[line.split(":")[0]] = int(line.split()[1])
    # What threads and libraries have reserved without using it counts for the limit.
    limit = 1024 * kilobytes["VmData"] + int(gigabytes * 1e9)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
