"""Position encodings and small networks, configured in threestudio's words."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.errors import ConfigError
from zero123s.ops.activations import get_activation
from zero123s.ops.hash_grid import HashGrid, encode


@dataclass
class EncodingConfig:
    """A multiresolution hash grid."""

    otype: str = "HashGrid"
    """"HashGrid" or "ProgressiveBandHashGrid"."""
    n_levels: int = 16
    """Levels of detail."""
    n_features_per_level: int = 2
    """Features per level."""
    log2_hashmap_size: int = 19
    """Largest number of entries of a level, as a power of two."""
    base_resolution: int = 16
    """Cells per axis of the coarsest level."""
    per_level_scale: float = 1.447269237440378
    """Growth of the resolution from level to level."""
    start_level: int = 1
    """Progressive: levels that are on from the start."""
    start_step: int = 0
    """Progressive: step at which further levels begin to come in."""
    update_steps: int = 100
    """Progressive: steps between levels."""
    backend: str = "auto"
    """Hash grid backend: "auto", "reference" or "numba"."""


class HashEncoding(nn.Module):
    """A trainable hash grid over [0, 1]^3, all levels at once or coming in one by one.

    Args:
        cfg: sizes.
    """

    def __init__(self, cfg: EncodingConfig) -> None:
        super().__init__()
        if cfg.otype not in ("HashGrid", "ProgressiveBandHashGrid"):
            raise ConfigError(
                f"pos_encoding_config.otype: '{cfg.otype}' is neither HashGrid nor ProgressiveBandHashGrid."
            )
        self.cfg = cfg
        self.grid = HashGrid(
            cfg.n_levels, cfg.n_features_per_level, cfg.log2_hashmap_size, cfg.base_resolution, cfg.per_level_scale
        )
        self.table = nn.Parameter(torch.empty(self.grid.n_rows, cfg.n_features_per_level).uniform_(-1e-4, 1e-4))
        self.n_output_dims = self.grid.n_output_dims
        progressive = cfg.otype == "ProgressiveBandHashGrid"
        self.active_levels = cfg.start_level if progressive else cfg.n_levels

    def forward(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return features of positions in [0, 1]; levels that are still off give zeros."""
        features = encode(x, self.table, self.grid, self.cfg.backend)
        if self.active_levels >= self.cfg.n_levels:
            return features
        mask = torch.zeros(self.n_output_dims, dtype=features.dtype, device=features.device)
        mask[: self.active_levels * self.cfg.n_features_per_level] = 1
        return features * mask

    def on_step(self, step: int) -> None:
        """Switch levels on."""
        if self.cfg.otype == "ProgressiveBandHashGrid":
            extra = max(step - self.cfg.start_step, 0) // self.cfg.update_steps
            self.active_levels = min(self.cfg.start_level + extra, self.cfg.n_levels)


@dataclass
class NetworkConfig:
    """A small multilayer perceptron without biases."""

    otype: str = "VanillaMLP"
    """"VanillaMLP"."""
    activation: str = "ReLU"
    """Between the layers."""
    output_activation: str = "none"
    """After the last layer."""
    n_neurons: int = 64
    """Width."""
    n_hidden_layers: int = 2
    """Hidden layers."""


def build_mlp(n_in: int, n_out: int, cfg: NetworkConfig) -> nn.Module:
    """Return the network of a `NetworkConfig`; raises ConfigError for an unknown kind."""
    if cfg.otype != "VanillaMLP":
        raise ConfigError(f"mlp_network_config.otype: '{cfg.otype}' is not known; use VanillaMLP.")
    widths = [n_in, *[cfg.n_neurons] * cfg.n_hidden_layers, n_out]
    return MLP(widths, cfg.activation, cfg.output_activation)


class MLP(nn.Module):
    """Linear layers without biases, torch's default initialisation.

    Args:
        widths: input, hidden and output widths.
        activation: between the layers.
        output_activation: after the last.
    """

    def __init__(self, widths: list[int], activation: str, output_activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.activation = get_activation(activation)
        self.output_activation = get_activation(output_activation)

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Apply all layers."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.output_activation(self.layers[-1](x))
