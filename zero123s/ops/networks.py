"""Small networks in threestudio's words, shared by geometries, materials and backgrounds."""

from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from zero123s.errors import ConfigError
from zero123s.ops.activations import get_activation


@dataclass
class NetworkConfig:
    """A small multilayer perceptron without biases."""

    otype: str = "VanillaMLP"
    """"VanillaMLP"; tiny-cuda-nn's "FullyFusedMLP" and "CutlassMLP" name the same network and run as it."""
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
    if cfg.otype not in ("VanillaMLP", "FullyFusedMLP", "CutlassMLP"):
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
