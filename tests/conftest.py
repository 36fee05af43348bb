"""Loads the shared fixtures of tests/helpers where tests run."""

import os
from pathlib import Path

import pytest

# Before conftest files of folders import triton by way of other libraries: then it is decided whether it interprets.
if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, except in the process that only hands tests to others: torch takes seconds to import."""
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("shared_fixtures")
