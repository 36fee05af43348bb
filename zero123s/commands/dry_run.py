"""`--dry-run`: prints the complete plan of a run; nothing is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zero123s.ops.backends import IMPLEMENTED, resolve
from zero123s.run.devices import choose_devices, choose_precision, first_device
from zero123s.run.folder import check_writable, resolved_yaml
from zero123s.run.resume import refuse_other_run, run_dir_of
from zero123s.run.summary import describe_model
from zero123s.system.base import Plan


def print_dry_run(
    plan: Plan,
    mode: str,
    gpu: str | None,
    profile: str | None,
    checkpoint: Path | None,
    requirements: Mapping[str, Any],
) -> None:
    """Print the resolved configuration as YAML and, as comments below it, what would run and what would be written.

    Raises:
        UserError: what the run itself would have complained about before its first step.
    """
    experiment = plan.experiment
    out_dir = run_dir_of(checkpoint, experiment)
    if checkpoint is None:
        refuse_other_run(out_dir, experiment.overwrite)
    check_writable(out_dir)
    system = plan.build(prepare=False)
    system.data_source.check_files()
    device = first_device(*choose_devices(experiment, gpu))
    on_gpu = device.type == "cuda"
    precision = choose_precision(experiment.trainer.precision, on_gpu)
    backends = ", ".join(f"{op} {resolve(op, named, device)}" for op, named in _backends(system).items())
    parameters = sum(p.numel() for p in system.parameters() if p.requires_grad)
    lines = [
        f"profile: {profile or 'none'}",
        f"device: {device.type}, precision {precision}, {torch.get_num_threads()} threads",
        f"backends: {backends}",
        f"parameters: {parameters:,}",
        *(f"{name}: {_words(value)}" for name, value in requirements.items() if name != "model"),
        f"guided by: {describe_model(requirements.get('model', {})) or 'no model'}",
        f"goes on from: {checkpoint or 'the start'}",
        f"would write to: {out_dir}",
        *(f"  {name}" for name in _files(mode, experiment)),
    ]
    print(resolved_yaml(experiment), end="")
    print("\n".join(f"# {line}" for line in lines))


def _backends(system: torch.nn.Module) -> dict[str, str]:
    """Map each operation to the backend that the configuration names, or "auto"."""
    modules = dict(system.named_modules())
    named = {"hash_grid": "geometry.encoding", getattr(modules.get("renderer"), "backend_of", None): "renderer"}
    return {op: getattr(getattr(modules.get(named.get(op, "")), "cfg", None), "backend", "auto") for op in IMPLEMENTED}


def _words(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _files(mode: str, experiment: Any) -> list[str]:
    step = f"it{experiment.trainer.max_steps}" if mode == "train" else "it*"
    every = experiment.trainer.val_check_interval
    files = ["cmd.txt", "run.json", "log.txt"]
    if mode == "train":
        files += ["config.yaml", "env.txt", "git.txt", "tb_logs/", "csv_logs/"]
        files += [f"ckpts/ (every {experiment.checkpoint.every_n_train_steps} steps)"]
        files += [f"save/it*-val.png (every {every} steps)"] if every else []
    if mode == "validate":
        files += [f"save/{step}-val.png"]
    if mode in ("train", "test"):
        files += [f"save/{step}-test.mp4"]
    if mode == "export" or (mode == "train" and experiment.export_after_train):
        files += ["export/"]
    return files
