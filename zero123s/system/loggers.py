"""Loggers besides TensorBoard and CSV."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zero123s.errors import MissingDependencyError


@dataclass
class WandbConfig:
    """Weights & Biases."""

    enable: bool = False
    """Also log there; needs the wandb package."""
    project: str = "zero123s"
    """Project name."""


@dataclass
class LoggersConfig:
    """Loggers besides TensorBoard and CSV, which are always on."""

    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""


def check_loggers(cfg: LoggersConfig) -> None:
    """Raise MissingDependencyError when a logger that is switched on is not installed."""
    if cfg.wandb.enable and importlib.util.find_spec("wandb") is None:
        raise MissingDependencyError(
            "system.loggers.wandb.enable is true but the package wandb is not installed; run `pip install wandb` or "
            "leave it out: TensorBoard and CSV logs are always written."
        )


def build_loggers(cfg: LoggersConfig, out_dir: Path) -> list[Any]:
    """Return the Lightning loggers that are switched on; raises MissingDependencyError."""
    check_loggers(cfg)
    if not cfg.wandb.enable:
        return []
    from pytorch_lightning.loggers import WandbLogger

    return [WandbLogger(project=cfg.wandb.project, name=out_dir.name, save_dir=out_dir)]
