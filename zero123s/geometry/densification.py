"""Adaptive density control of 3D Gaussians (Kerbl et al. 2023, section 5.2), exact on resume.

Steps are global steps. The optimiser's moments follow their Gaussians: kept rows keep theirs, new rows start at zero.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from zero123s.config.options import option
from zero123s.ops.gaussian_splatting import rotation_matrices

SPLIT_SHRINK = 1.6
"""Factor by which the scales of a split Gaussian shrink (3DGS)."""
RESET_OPACITY = 0.01
"""Opacity down to which a reset brings every Gaussian (3DGS)."""


@dataclass
class DensificationConfig:
    """Settings of cloning, splitting and pruning Gaussians."""

    start_step: int = option(100, low=0)
    """First step."""
    end_step: int = option(3000, low=0)
    """Last step."""
    interval: int = option(100, low=1)
    """Steps between rounds."""
    grad_threshold: float = option(0.5, above=0.0)
    """Mean norm of the screen-space gradient (per half image) above which a Gaussian is cloned or split; it scales with the
    loss weights: 0.0002 suits 3DGS's losses, 0.5 those of DreamGaussian."""
    split_scale: float = option(0.1, above=0.0)
    """Largest scale, as a share of the geometry's radius, up to which a Gaussian is cloned; larger ones are split."""
    min_opacity: float = option(0.01, low=0.0, high=1.0)
    """Gaussians below this opacity are pruned."""
    max_scale: float = option(0.5, above=0.0)
    """Gaussians larger than this share of the radius are pruned."""
    opacity_reset_interval: int = option(700, low=0)
    """Steps between resets of all opacities to 0.01; 0 = never."""
    max_gaussians: int = option(100_000, low=1)
    """Largest number of Gaussians; none are cloned or split beyond it."""


@runtime_checkable
class GaussianModule(Protocol):
    """What densification requires of a geometry: parameters with a row for every Gaussian, and their meaning."""

    cfg: Any
    means: nn.Parameter
    log_scales: nn.Parameter
    quaternions: nn.Parameter
    opacity_logits: nn.Parameter

    @property
    def scales(self) -> Float[Tensor, "N 3"]: ...
    @property
    def opacities(self) -> Float[Tensor, "N"]: ...
    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, nn.Parameter]]: ...


class Densification(nn.Module):
    """Statistics of the screen-space gradients and the rounds that use them.

    Args:
        cfg: the schedule.
        n: number of Gaussians at the start.
    """

    grad_sum: Float[Tensor, "N"]
    n_seen: Float[Tensor, "N"]

    def __init__(self, cfg: DensificationConfig, n: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("grad_sum", torch.zeros(n))
        self.register_buffer("n_seen", torch.zeros(n))

    def resize(self, n: int) -> None:
        """Clear all statistics, for n Gaussians."""
        self.grad_sum, self.n_seen = self.grad_sum.new_zeros(n), self.n_seen.new_zeros(n)

    @torch.no_grad()
    def record(self, gradients: Float[Tensor, "B N 2"], visible: Bool[Tensor, "B N"]) -> None:
        """Add the norms of the gradients in the views in which a Gaussian is visible."""
        # The loss is a mean over views: times their number, a threshold means the same for any batch.
        self.grad_sum += len(gradients) * (gradients.norm(dim=-1) * visible).sum(0)
        self.n_seen += visible.sum(0)

    @torch.no_grad()
    def apply(self, geometry: GaussianModule, optimizer: Optimizer, step: int, generator: torch.Generator) -> None:
        """Clone, split, prune or reset at global step `step`, if it is due."""
        cfg = self.cfg
        if step and cfg.start_step <= step <= cfg.end_step and step % cfg.interval == 0:
            self._densify(geometry, optimizer, generator)
        if step and step <= cfg.end_step and cfg.opacity_reset_interval and step % cfg.opacity_reset_interval == 0:
            ceiling = math.log(RESET_OPACITY / (1 - RESET_OPACITY))
            geometry.opacity_logits.data.clamp_max_(ceiling)
            _zero_moments(optimizer, geometry.opacity_logits)

    def _densify(self, geometry: GaussianModule, optimizer: Optimizer, generator: torch.Generator) -> None:
        cfg, radius = self.cfg, geometry.cfg.radius
        largest = geometry.scales.amax(-1)
        pulled = self.grad_sum / self.n_seen.clamp_min(1) >= cfg.grad_threshold
        pulled &= len(largest) < cfg.max_gaussians
        large = largest > cfg.split_scale * radius
        split, clone = (pulled & large).nonzero()[:, 0], (pulled & ~large).nonzero()[:, 0]
        dropped = (geometry.opacities < cfg.min_opacity) | (largest > cfg.max_scale * radius)
        if dropped.all():  # an empty scene could never learn again
            dropped = torch.zeros_like(dropped)
        kept = (~dropped & ~(pulled & large)).nonzero()[:, 0]
        twice = split.repeat(2)
        sources = torch.cat([clone, twice])
        added = {name: p.data[sources] for name, p in geometry.named_parameters(recurse=False)}
        shifts = _draw_within(geometry, twice, generator)
        added["means"][len(clone) :] += shifts
        added["log_scales"][len(clone) :] -= math.log(SPLIT_SHRINK)
        for name, parameter in geometry.named_parameters(recurse=False):
            _replace_rows(optimizer, parameter, kept, added[name])
        self.resize(len(geometry.means))


def _draw_within(geometry: GaussianModule, index: Int[Tensor, "K"], generator: torch.Generator) -> Float[Tensor, "K 3"]:
    """Sample offsets from the Gaussians themselves."""
    noise = torch.randn(len(index), 3, generator=generator).to(geometry.means)
    local = noise * geometry.scales[index]
    return (rotation_matrices(geometry.quaternions[index]) * local[:, None]).sum(-1)


def _moments(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return the optimiser's state tensors that have a row for every row of the parameter."""
    state = optimizer.state.get(parameter, {})
    return {name: v for name, v in state.items() if isinstance(v, Tensor) and v.shape == parameter.shape}


def _replace_rows(
    optimizer: Optimizer, parameter: nn.Parameter, kept: Int[Tensor, "K"], added: Float[Tensor, "A ..."]
) -> None:
    """Keep some rows of a parameter and of its moments, and append new ones, whose moments are zero."""
    for name, value in _moments(optimizer, parameter).items():
        optimizer.state[parameter][name] = torch.cat([value[kept], torch.zeros_like(added)])
    parameter.data = torch.cat([parameter.data[kept], added])
    parameter.grad = None


def _zero_moments(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    for value in _moments(optimizer, parameter).values():
        value.zero_()
