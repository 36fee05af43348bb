"""What a result depends on besides its configuration: versions and the state of the source tree."""

import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from zero123s import __version__

PACKAGES = ("torch", "pytorch-lightning", "omegaconf", "diffusers", "transformers", "numpy", "numba", "trimesh")
MAX_DIFF = 1_000_000
"""Characters of the source diff that are kept with a run."""
SOURCE = Path(__file__).resolve().parents[2]


def environment() -> str:
    """Return the versions that a result depends on, one per line."""
    lines = [
        f"zero123s {__version__}",
        f"python {platform.python_version()}",
        f"system {platform.system()} {platform.machine()}",
    ]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} not installed")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class GitState:
    """The source tree's commit and its differences from it."""

    commit: str | None
    """None where the package is not a git checkout or git is missing."""
    note: str
    """A one-sentence description."""
    status: str = ""
    diff: str = ""


def git_state(folder: Path = SOURCE) -> GitState:
    """Return the state of the source tree; never raises, because a run does not depend on git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        status = _git(folder, "status", "--porcelain")
        diff = _git(folder, "diff", "HEAD")
    except FileNotFoundError:
        return GitState(None, "git is not installed")
    except (subprocess.SubprocessError, OSError, UnicodeDecodeError):
        return GitState(None, "the package is not in a git checkout")
    note = f"commit {commit}, " + ("with the changes below" if status else "unchanged")
    return GitState(commit, note, status, diff if len(diff) <= MAX_DIFF else diff[:MAX_DIFF] + "\n[cut here]\n")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20, errors="replace"
    )
    return done.stdout
