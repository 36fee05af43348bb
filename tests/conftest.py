"""Loads the shared fixtures of tests/helpers where tests run."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, except in the process that only hands tests to others: torch takes seconds to import."""
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("shared_fixtures")
