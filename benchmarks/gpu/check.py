"""Check this project on a CUDA GPU in one command: what fails, what differs from the CPU, what a step costs.

    python benchmarks/gpu/check.py --out DIR [--minutes 9] [PART...]

Parts run in order of worth, each in a process of its own with its own limit, so that a crash or a hang leaves the others;
DIR/gpu_check.json is written after each. Needs a GPU of 8 GB, no network, and neither tiny-cuda-nn, nerfacc, nvdiffrast
nor a video encoder; what is there of these is measured too. `--device cpu --small` runs the check itself without a GPU;
give a busy machine more minutes, by which the parts' limits grow. See README.md beside this file.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from prepare import missing_packages

REPOSITORY = Path(__file__).resolve().parents[2]
LIMITS = {
    "backends": 60,
    "tests": 240,
    "recipe": 240,
    "resume": 60,
    "recipes": 200,
    "parity": 90,
    "vendors": 180,
    "field": 60,
    "full_size": 120,
    "finetune": 90,
    "mixed": 60,
    "profile": 60,
}
"""Seconds that each part of parts.py may take within MINUTES, most worth first."""
MINUTES = 9.0


def run_part(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run a part in a process of its own; return its result, or under "failed" why there is none."""
    words = [sys.executable, str(Path(__file__).with_name("parts.py")), name, "--device", args.device]
    words += ["--out", str(args.out.resolve()), *(["--small"] if args.small else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    log = args.out / f"{name}.log"
    started = time.perf_counter()
    with log.open("w") as file:
        # A session of its own, so that the processes that a part starts end with it.
        process = subprocess.Popen(
            words, stdout=file, stderr=file, cwd=REPOSITORY, env=environment, start_new_session=True
        )
        try:
            process.wait(limit)
            failed = None if process.returncode == 0 else f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            failed = f"not done after {limit:.0f} s"
    text = log.read_text(errors="replace")
    results = [line.removeprefix("RESULT ") for line in text.splitlines() if line.startswith("RESULT ")]
    result: dict[str, Any] = json.loads(results[-1]) if results else {}
    if failed or not results:
        result |= {"failed": failed or "no result", "log": text[-1500:]}
    return {"seconds": round(time.perf_counter() - started, 1), **result}


def main() -> int:
    """Run the parts that fit into the time; return 0 when none failed, 2 when packages are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(LIMITS))
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu_check.json and the parts' logs")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for all parts together")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="the sizes of a dry run")
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in LIMITS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; choose from {', '.join(LIMITS)}")
    if missing := missing_packages():
        print(
            f"not installed here: {', '.join(missing)}; where there is a network, `python benchmarks/gpu/prepare.py --out "
            f"gpu_wheels {' '.join(missing)}`, then here `pip install --no-index --no-deps gpu_wheels/*.whl`.",
            file=sys.stderr,
        )
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    end, results = time.perf_counter() + 60 * args.minutes, {}
    for name in args.parts or LIMITS:
        left = end - time.perf_counter()
        if left < 10:
            results[name] = {"failed": f"not started: the {args.minutes:g} minutes are over"}
        else:
            results[name] = run_part(name, args, min(left, LIMITS[name] * max(1.0, args.minutes / MINUTES)))
        print(f"== {name}\n{json.dumps(results[name], indent=1)}", flush=True)
        (args.out / "gpu_check.json").write_text(json.dumps(results, indent=1))
    return int(any("failed" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
