"""Every test here runs on the pretended device; without it (`pytest -p pretend.plugin`) none is collected."""

from collections.abc import Iterator

import pytest

from pretend import hooks

if hooks.is_loaded():
    from pretend.counts import Counts
    from pretend.cuda import pretend_cuda
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def counts() -> Iterator["Counts"]:
    """What the test does on the device."""
    with pretend_cuda() as counted:
        yield counted
