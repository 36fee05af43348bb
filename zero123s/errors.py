"""Errors that a user can mend: one clear sentence each, shown without a traceback and with exit code 2.

Anything that is not a `UserError` is a bug of ours and keeps its traceback.
"""

import sys


class UserError(Exception):
    """An error that the user can correct, reported in one sentence: what is wrong, where, and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """An invalid configuration: unknown key, wrong type, value out of range."""


class ImageError(UserError):
    """An image that cannot be read or used."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, unsafe or of another model."""


class MeshError(UserError):
    """A surface or mesh file that is empty, damaged or cannot be written."""


class OutputError(UserError):
    """A file or folder that cannot be written: no permission, no space."""


class OutOfMemoryError(UserError):
    """The memory is too small, even with the work split into the smallest parts."""


class PeerLostError(UserError):
    """Another process of a distributed run has ended and reported why."""


class RunLostError(UserError):
    """Training cannot recover and was stopped."""

    exit_code = 3


class MissingDependencyError(UserError):
    """An optional package that a chosen option needs is not installed."""


def explain_missing_package(error: ModuleNotFoundError) -> str:
    """Return the message for a failed import.

    Args:
        error: of a module that was not found; one of this package itself is raised again.

    Returns:
        The package's name and how to install it.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "zero123s"):
        raise error
    return (
        f"the package '{package}' is not installed for {sys.executable}; activate the environment that this project was "
        "installed into, or install it: pip install -e ."
    )
