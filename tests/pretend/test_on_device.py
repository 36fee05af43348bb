"""Runs the tests of on_device/ on the pretended CUDA device, in a process of their own: its hooks precede torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pretend import hooks

ON_DEVICE = Path(__file__).parent / "on_device"
REPOSITORY = Path(__file__).parents[2]
FILES = sorted(path.name for path in ON_DEVICE.glob("test_*.py"))
pytestmark = pytest.mark.skipif(bool(hooks.why_not()), reason=f"no pretended device: {hooks.why_not()}")


def run_on_device(names: list[str], marker: str) -> None:
    search = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    overrides = ["-m", "pytest", "-p", "pretend.plugin", "-p", "no:cacheprovider", "-n0", "-q", "-m", marker]
    done = subprocess.run(
        [sys.executable, *overrides, *[str(ON_DEVICE / name) for name in names]],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    nothing_marked = 5  # pytest's exit code when it ran no test
    assert done.returncode in (0, nothing_marked), done.stdout[-8000:] + done.stderr[-2000:]


def test_every_file_passes_on_the_pretended_device():
    run_on_device(FILES, "not slow")  # in one process: importing torch and Lightning takes longer than most files


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_rest_of_the_file_passes(name):
    run_on_device([name], "slow")


GAUSSIANS = [
    "--config=dreamgaussian.yaml", "--profile=none", "data.height=8", "data.width=8", "data.random_camera.height=8",
    "data.random_camera.width=8", "data.random_camera.batch_size=1", "system.geometry.n_points=60",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], GAUSSIANS], ids=["field", "gaussians"])
def test_a_triton_step_takes_few_launches(words):
    script = REPOSITORY / "benchmarks" / "gpu" / "step_counts.py"
    done = subprocess.run([sys.executable, script, "--triton", *words], capture_output=True, text=True, check=True)
    found = re.search(r"^(\d+) launches, .* (\d+) waits of the host$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    launches, waits = map(int, found.groups())
    assert launches <= 1500
    assert waits <= 10
