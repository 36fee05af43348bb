"""Position encodings, with threestudio's keys."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.ops.hash_grid import GradBuffer, HashGrid, encode, position_gradient
from zero123s.ops.sections import section

MAX_RESOLUTION = 2**20
"""Cells per axis of the finest level; single precision cannot resolve more."""


@dataclass
class EncodingConfig:
    """A multiresolution hash grid."""

    otype: str = "HashGrid"
    """"HashGrid" or "ProgressiveBandHashGrid"."""
    n_levels: int = option(16, low=1, high=32)
    """Levels of detail."""
    n_features_per_level: int = option(2, low=1, high=16)
    """Features per level."""
    log2_hashmap_size: int = option(19, low=1, high=24)
    """Largest number of entries of a level, as a power of two."""
    base_resolution: int = option(16, low=1, high=4096)
    """Cells per axis of the coarsest level."""
    per_level_scale: float = option(1.447269237440378, low=1.0, high=8.0)
    """Growth of the resolution from level to level."""
    start_level: int = 1
    """Progressive: levels that are on from the start."""
    start_step: int = 0
    """Progressive: step at which further levels begin to come in."""
    update_steps: int = 100
    """Progressive: steps between levels."""
    backend: str = "auto"
    """Hash grid backend: "auto", "reference", "numba", "triton" or "tinycudann"."""


class HashEncoding(nn.Module):
    """A trainable hash grid over [0, 1]^3, with all levels from the start or one by one.

    Args:
        cfg: sizes.
    """

    def __init__(self, cfg: EncodingConfig) -> None:
        super().__init__()
        if cfg.otype not in ("HashGrid", "ProgressiveBandHashGrid"):
            raise ConfigError(
                f"pos_encoding_config.otype: '{cfg.otype}' is neither HashGrid nor ProgressiveBandHashGrid."
            )
        finest = cfg.base_resolution * cfg.per_level_scale ** (cfg.n_levels - 1)
        if finest > MAX_RESOLUTION:
            raise ConfigError(
                f"pos_encoding_config: n_levels={cfg.n_levels} from base_resolution={cfg.base_resolution} by "
                f"per_level_scale={cfg.per_level_scale:g} end at {finest:.3g} cells per axis; at most {MAX_RESOLUTION:,}."
            )
        self.cfg = cfg
        self.grid = HashGrid(
            cfg.n_levels, cfg.n_features_per_level, cfg.log2_hashmap_size, cfg.base_resolution, cfg.per_level_scale
        )
        self.table = nn.Parameter(torch.empty(self.grid.n_rows, cfg.n_features_per_level).uniform_(-1e-4, 1e-4))
        self.n_output_dims = self.grid.n_output_dims
        self.progressive = cfg.otype == "ProgressiveBandHashGrid"
        if self.progressive and (not 1 <= cfg.start_level <= cfg.n_levels or cfg.update_steps < 1):
            raise ConfigError(
                f"pos_encoding_config: start_level {cfg.start_level} must lie in 1..n_levels ({cfg.n_levels}) and "
                f"update_steps {cfg.update_steps} be at least 1."
            )
        self.active_levels = cfg.start_level if self.progressive else cfg.n_levels

    @property
    def complete(self) -> bool:
        """Whether all levels are switched on."""
        return self.active_levels >= self.cfg.n_levels

    @property
    def active_resolution(self) -> float:
        """Cells per axis of the finest level that is switched on."""
        return self.cfg.base_resolution * self.cfg.per_level_scale ** (self.active_levels - 1)

    def forward(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return features of positions in [0, 1]; levels that are not active yet give zeros."""
        with section("encode"):
            return self._masked(encode(x, self.table, self.grid, self.cfg.backend, self.grad_buffer()))

    def position_gradient(self, x: Float[Tensor, "N 3"], grad: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        """Return the gradient of `grad . forward(x)` by `x`, differentiable in the table and `grad`."""
        grad, buffer = self._masked(grad), self.grad_buffer()
        with section("encode, by position"):
            return position_gradient(x, self.table, grad, self.grid, self.cfg.backend, buffer)

    def _masked(self, features: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if self.complete:
            return features
        mask = torch.zeros(self.n_output_dims, dtype=features.dtype, device=features.device)
        mask[: self.active_levels * self.cfg.n_features_per_level] = 1
        return features * mask

    def grad_buffer(self) -> GradBuffer | None:
        """Let kernels add to the table's gradient in place, which saves a table-sized buffer per call.

        None where gradients must pass through autograd: other processes wait for its hooks.
        """
        if not self.training or torch.distributed.is_initialized():
            return None
        return self._table_grad

    def _table_grad(self) -> Tensor:
        if self.table.grad is None:
            self.table.grad = torch.zeros_like(self.table)
        return self.table.grad

    def on_step(self, step: int) -> None:
        """Activate levels."""
        if self.progressive:
            extra = max(step - self.cfg.start_step, 0) // self.cfg.update_steps
            self.active_levels = min(self.cfg.start_level + extra, self.cfg.n_levels)
