"""Messages at the start and at the end of a run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zero123s.run.resume import newest_checkpoint
from zero123s.runtime.processes import print_rank_zero

BUNDLED = (
    "the bundled small model, a stand-in that runs anywhere: expect soft shapes and colours on unseen sides; "
    "`zero123s download stable-zero123` gets the real one"
)


def describe_model(model: Mapping[str, Any]) -> str:
    """Describe the guiding model; empty if there is none."""
    if not model.get("path"):
        return ""
    return BUNDLED if model.get("bundled") else f"{model['path']} ({model.get('family') or 'Zero123'})"


def print_summary(record: Mapping[str, Any], out_dir: Path, state: str, mode: str) -> None:
    """Print paths, times and the guiding model; and how to resume if the run was interrupted."""
    print(f"{state}: step {record['step']}, {record['seconds']:.0f} s, {record['peak_memory_gb']:.1f} GB")
    print(f"  folder: {out_dir}")
    guided = describe_model(record.get("model", {}))
    if guided:
        print(f"  guided by: {guided}")
    for name, value in record.get("metrics", {}).items():
        print(f"  {name}: {value:.3f}")
    for kind, path in {**record.get("pictures", {}), **record.get("files", {})}.items():
        print(f"  {kind}: {path}")
    if state == "interrupted":
        again = "the same command; there is no checkpoint yet"
        if newest_checkpoint(out_dir) is not None:
            again = shlex.join(
                ["python", "launch.py", "--config", str(out_dir / "config.yaml"), f"--{mode}", f"resume={out_dir}"]
            )
        print_rank_zero(f"Stopped at step {record['step']}. Go on with: {again}")
