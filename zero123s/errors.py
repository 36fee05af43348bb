"""Errors that a user can mend: one clear sentence each, shown without a traceback and with exit code 2.

Anything that is not a `UserError` is a bug of ours and keeps its traceback.
"""

import sys


class UserError(Exception):
    """A mistake outside the program, reported in one sentence: what is wrong, where, and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration that cannot mean anything: unknown key, wrong type, value out of range."""


class ImageError(UserError):
    """An image that cannot be read or cannot be used as it is."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, unsafe or of another kind."""


class MeshError(UserError):
    """A surface or mesh file that is empty, damaged or cannot be written."""


class OutputError(UserError):
    """A file or folder that cannot be written: no permission, no space."""


class OutOfMemoryError(UserError):
    """Memory that runs out although everything that can be done in parts is."""


class PeerLostError(UserError):
    """Another of the processes that train together has ended, and said why."""


class RunLostError(UserError):
    """Training that cannot end well any more and was stopped."""

    exit_code = 3


class MissingDependencyError(UserError):
    """An optional package that the chosen option needs and this environment lacks."""


def explain_missing_package(error: ModuleNotFoundError) -> str:
    """Return the sentence for an import that failed; raises the error again if the module is one of ours."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "zero123s"):
        raise error
    return (
        f"the package '{package}' is not installed for {sys.executable}; activate the environment that this project was "
        "installed into, or install it: pip install -e ."
    )
