"""Check this project on a CUDA GPU in one command: what fails, what differs from the CPU, what a step costs.

    python benchmarks/gpu/check.py --out DIR [--minutes 9] [PART...]

Parts run in order of worth, each in a fork with its own limit, so that a crash or a hang leaves the others;
DIR/gpu_check.json is written after each. Needs a GPU of 8 GB, no network, and neither tiny-cuda-nn, nerfacc, nvdiffrast
nor a video encoder; what is there of these is measured too. `--device cpu --small` runs the check itself without a GPU;
give a busy machine more minutes, by which the parts' limits grow. See README.md in this folder.
"""

import argparse
import contextlib
import faulthandler
import json
import multiprocessing
import os
import signal
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
    """Run a part in a fork of this process; return its result, or under "failed" why there is none.

    Importing torch and the project takes up to half a minute on a fresh machine: it happens once, before the first fork.
    No part may have used CUDA in this process.
    """
    from parts import PARTS, Check

    def part() -> None:
        os.setsid()  # so that the processes that a part starts end with it
        for stream in (1, 2):  # of what the part starts
            os.dup2(file.fileno(), stream)
        sys.stdout = sys.stderr = file
        os.chdir(REPOSITORY)
        faulthandler.dump_traceback_later(20, repeat=True)  # shows in the log where a part hangs
        sender.send(PARTS[name](Check(args.out.resolve(), args.device, args.small)))

    fork, started = multiprocessing.get_context("fork"), time.perf_counter()
    receiver, sender = fork.Pipe(duplex=False)
    log = args.out / f"{name}.log"
    with log.open("w") as file:
        process = fork.Process(target=part)
        process.start()
        sender.close()
        process.join(limit)
    failed = f"exit code {process.exitcode}" if process.exitcode else None
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):  # not yet a session of its own
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
        failed = f"not done after {limit:.0f} s"
    try:
        result = json.loads(json.dumps(receiver.recv(), default=str))
    except EOFError:
        result = {}
        failed = failed or "no result"
    if failed:
        result |= {"failed": failed, "log": log.read_text(errors="replace")[-1500:]}
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
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    )  # for what parts start
    sys.path.insert(0, str(REPOSITORY))
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
