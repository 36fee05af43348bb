"""Optimisers and schedulers of torch by name, with their arguments checked before training starts."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.registry import nearest
from zero123s.system.adan import Adan
from zero123s.system.muon import MuonAdamW

OWN = {"Adan": Adan, "MuonAdamW": MuonAdamW}


@dataclass
class OptimizerConfig:
    """Any optimiser of torch.optim with its arguments, or MuonAdamW or Adan."""

    name: str = "Adam"
    """Class name in torch.optim, or MuonAdamW (`zero123s/system/muon.py`), for networks of matrices and kernels, or
    Adan.
    """
    args: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments; checked against its signature."""
    params: dict[str, Any] = field(default_factory=dict)
    """Per-module arguments: `geometry.encoding: {lr: 0.01}`. Modules not named are left out, as in threestudio."""


@dataclass
class SchedulerConfig:
    """Any scheduler of torch.optim.lr_scheduler with its arguments."""

    name: str = ""
    """Class name in torch.optim.lr_scheduler; empty = constant rates."""
    interval: str = "step"
    """"step"; a run is one single epoch, so that "epoch" would never move."""
    args: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments."""
    milestones: list[int] = field(default_factory=list)
    """For SequentialLR: steps at which the next scheduler takes over."""
    warmup_steps: int = option(0, low=0)
    """Without effect by itself: a number for the `${system.scheduler.warmup_steps}` of other settings."""
    schedulers: list[Any] = field(default_factory=list)
    """For SequentialLR and ChainedScheduler: the inner schedulers, each with name and args."""


def _lookup(module: Any, base: type, name: str, key: str) -> type:
    known = [n for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base) and c is not base]
    if name not in known:
        known += OWN if base is Optimizer else []
        raise ConfigError(
            f"{key}.name: '{name}' is not in {module.__name__}.{nearest(name, known)} Known: {', '.join(sorted(known))}."
        )
    return getattr(module, name)


def _optimizer_class(name: str, key: str) -> type:
    return OWN.get(name) or _lookup(torch.optim, Optimizer, name, key)


def _check_args(cls: type, args: Any, key: str) -> dict[str, Any]:
    if not isinstance(args, Mapping):
        raise ConfigError(f"{key}: expected keyword arguments of {cls.__name__}, got {args!r}.")
    known = [p for p in inspect.signature(cls).parameters if p not in ("params", "optimizer")]
    for name in args:
        if name not in known:
            raise ConfigError(
                f"Unknown key '{key}.{name}' for {cls.__name__}.{nearest(str(name), known)} Known: {', '.join(known)}."
            )
    return dict(args)


def check_optimizer(cfg: OptimizerConfig, key: str = "system.optimizer") -> None:
    """Raise ConfigError for an unknown optimiser or argument; builds nothing."""
    cls = _optimizer_class(cfg.name, key)
    _check_args(cls, cfg.args, f"{key}.args")
    for module, args in cfg.params.items():
        _check_args(cls, args, f"{key}.params.{module}")


def may_fuse(trainer: Any) -> bool:
    """Tell whether a fused optimiser works with this trainer: it unscales gradients itself, too late for clipping.

    Lightning refuses the two together in any mixed precision.
    """
    return trainer.gradient_clip_val is None or "mixed" not in str(trainer.precision)


def build_optimizer(
    cfg: OptimizerConfig, model: nn.Module, key: str = "system.optimizer", fused: bool = True
) -> Optimizer:
    """Return the optimiser over the trainable parameters of `model`, in one group or in those of `params`.

    Adam and AdamW run fused by default: 9 times faster on a CPU for a hash table of this size.
    `fused=False` turns that default off.
    """
    cls = _optimizer_class(cfg.name, key)
    groups = [_group(cls, model, name, extra, key) for name, extra in cfg.params.items()]
    return build_optimizer_over(cfg, groups or [p for p in model.parameters() if p.requires_grad], key, fused)


def build_optimizer_over(
    cfg: OptimizerConfig, parameters: list[Any], key: str = "system.optimizer", fused: bool = True
) -> Optimizer:
    """Return the optimiser over the given parameters or groups; fused as `build_optimizer` says."""
    cls = _optimizer_class(cfg.name, key)
    args = _check_args(cls, cfg.args, f"{key}.args")
    if fused and cfg.name in ("Adam", "AdamW") and not {"fused", "foreach", "capturable", "differentiable"} & set(args):
        args["fused"] = True
    if "betas" in args:
        args["betas"] = tuple(args["betas"])
    return cls(parameters, **args)


def _group(cls: type, model: nn.Module, name: str, extra: Any, key: str) -> dict[str, Any]:
    names = [n for n, _ in model.named_modules() if n] + [n for n, _ in model.named_parameters()]
    if name not in names:
        raise ConfigError(f"{key}.params.{name}: the system has no such module.{nearest(name, names)}")
    target = dict(model.named_modules()).get(name)
    parameters = [dict(model.named_parameters())[name]] if target is None else list(target.parameters())
    return {
        "params": [p for p in parameters if p.requires_grad],
        "name": name,
        **_check_args(cls, extra, f"{key}.params.{name}"),
    }


def check_scheduler(cfg: SchedulerConfig, key: str = "system.scheduler") -> None:
    """Raise ConfigError for an unknown scheduler, argument or interval; builds nothing."""
    if not cfg.name:
        return
    if cfg.interval != "step":
        raise ConfigError(f"{key}.interval: '{cfg.interval}' is not known; a run is one epoch, so use step.")
    cls = _lookup(lr_scheduler, lr_scheduler.LRScheduler, cfg.name, key)
    if not cfg.schedulers:
        _check_args(cls, cfg.args, f"{key}.args")
    steps = list(cfg.milestones)
    if cfg.name == "SequentialLR" and (len(steps) != len(cfg.schedulers) - 1 or steps != sorted(set(steps))):
        raise ConfigError(
            f"{key}.milestones: {steps} for {len(cfg.schedulers)} schedulers; give the increasing steps at which the next "
            "one takes over, one fewer than schedulers."
        )
    for i, inner in enumerate(cfg.schedulers):
        if not isinstance(inner, Mapping) or set(inner) - {"name", "args"} or not inner.get("name"):
            raise ConfigError(f"{key}.schedulers.{i}: expected `name` and `args`, got {inner!r}.")
        check_scheduler(SchedulerConfig(name=inner["name"], args=inner.get("args", {})), f"{key}.schedulers.{i}")


def build_scheduler(cfg: SchedulerConfig, optimizer: Optimizer, key: str = "system.scheduler") -> Any:
    """Return a torch scheduler, with SequentialLR and ChainedScheduler built from their inner ones."""
    cls = _lookup(lr_scheduler, lr_scheduler.LRScheduler, cfg.name, key)
    if cfg.schedulers:
        inner = [
            build_scheduler(
                SchedulerConfig(name=s.get("name", ""), args=s.get("args", {})), optimizer, f"{key}.schedulers.{i}"
            )
            for i, s in enumerate(cfg.schedulers)
        ]
        if cfg.name == "ChainedScheduler":
            return lr_scheduler.ChainedScheduler(inner, optimizer=optimizer)
        return lr_scheduler.SequentialLR(optimizer, inner, milestones=cfg.milestones)
    return cls(optimizer, **_check_args(cls, cfg.args, f"{key}.args"))
