"""The check for a machine with a GPU, run without one: parts end by themselves or at their limit, and results are kept."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "check.py"


def check(out: Path, *words: str) -> tuple[int, dict]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", out, *words], capture_output=True, text=True, check=False, timeout=300
    )
    assert (out / "gpu_check.json").is_file(), done.stderr
    return done.returncode, json.loads((out / "gpu_check.json").read_text())


def test_a_part_states_its_result_and_one_without_a_gpu_fails_alone(tmp_path):
    code, results = check(tmp_path, "--device", "cpu", "--small", "resume", "backends")
    assert code == 1
    assert "no such checkpoint" in results["resume"]["log"], "there was no recipe before"
    assert results["backends"]["auto"]["hash_grid"] == "numba"
    assert "needs a CUDA device" in results["backends"]["vendors"]["hash_grid"]


def test_a_part_that_hangs_ends_with_the_time_that_is_left(tmp_path):
    code, results = check(tmp_path, "--device", "cpu", "--minutes", "0.17", "recipe", "backends")
    assert code == 1
    assert "not done after 10 s" in results["recipe"]["failed"]
    assert "not started" in results["backends"]["failed"]
