"""Small networks in threestudio's words, shared by geometries, materials and backgrounds."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.ops.activations import get_activation
from zero123s.ops.mlp import CHUNKED_ACTIVATIONS, mlp_forward, mlp_input_gradient, plain_mlp
from zero123s.ops.sections import section
from zero123s.ops.spherical_harmonics import spherical_harmonics


@dataclass
class NetworkConfig:
    """A small multilayer perceptron without biases."""

    otype: str = "VanillaMLP"
    """"VanillaMLP"; tiny-cuda-nn's "FullyFusedMLP" and "CutlassMLP" name the same network and run as it."""
    activation: str = "ReLU"
    """Between the layers."""
    output_activation: str = "none"
    """After the last layer."""
    n_neurons: int = option(64, low=1, high=4096)
    """Width."""
    n_hidden_layers: int = option(2, low=0, high=32)
    """Hidden layers."""
    backend: str = "auto"
    """"auto", "reference" or "triton" (CUDA, one or two hidden layers of at most 64, ReLU or softplus)."""


def build_mlp(n_in: int, n_out: int, cfg: NetworkConfig) -> "MLP":
    """Return the network of a configuration.

    Args:
        n_in: input width.
        n_out: output width.
        cfg: kind, width, depth and activations.

    Returns:
        A network with random weights.

    Raises:
        ConfigError: an unknown kind.

    Example:
        >>> from zero123s.ops.networks import NetworkConfig, build_mlp
        >>> [tuple(w.shape) for w in build_mlp(32, 4, NetworkConfig(n_neurons=64, n_hidden_layers=1)).weights]
        [(64, 32), (4, 64)]
    """
    if cfg.otype not in ("VanillaMLP", "FullyFusedMLP", "CutlassMLP"):
        raise ConfigError(f"mlp_network_config.otype: '{cfg.otype}' is not known; use VanillaMLP.")
    widths = [n_in, *[cfg.n_neurons] * cfg.n_hidden_layers, n_out]
    return MLP(widths, cfg.activation, cfg.output_activation, cfg.backend)


class MLP(nn.Module):
    """Linear layers without biases, torch's default initialisation.

    Args:
        widths: input, hidden and output widths.
        activation: between the layers.
        output_activation: after the last.
        backend: of `mlp.mlp_forward`.
    """

    def __init__(self, widths: list[int], activation: str, output_activation: str, backend: str = "auto") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.activation = activation.lower()
        get_activation(self.activation)
        self.output_activation = get_activation(output_activation)
        self.backend = backend

    @property
    def weights(self) -> list[Tensor]:
        """The layers' matrices, first to last."""
        return [layer.weight for layer in self.layers]  # type: ignore[misc]

    @property
    def rectified(self) -> bool:
        """Whether there is a hidden layer, ReLU follows each of them, and the output is not activated."""
        return len(self.layers) > 1 and self.activation == "relu" and self.output_activation is get_activation("none")

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Apply all layers, in chunks that stay in the cache and are recomputed for the gradients.

        Args:
            x: N C, the input.

        Returns:
            N K, after the output activation.
        """
        with section("networks"):
            return self.output_activation(self._raw(x))

    def _raw(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        if x.dim() == 2 and self.activation in CHUNKED_ACTIVATIONS:
            return mlp_forward(x, self.weights, self.activation, backend=self.backend)
        return plain_mlp(x, self.weights, self.activation)

    def input_gradient(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        """Return the gradient of the only output with respect to the input, before the output activation.

        Args:
            x: N C, the input.

        Returns:
            N C, differentiable in the weights.
        """
        with section("networks, by input"):
            return mlp_input_gradient(x, self.weights, self.activation, backend=self.backend)


@dataclass
class DirectionEncodingConfig:
    """An encoding of unit directions."""

    otype: str = "SphericalHarmonics"
    """"SphericalHarmonics", or "ProgressiveBandFrequency": sines and cosines of (direction + 1) / 2."""
    degree: int = 3
    """Spherical harmonics: bands, 1 to 4; the encoding has degree^2 values."""
    n_frequencies: int = option(6, low=1, high=16)
    """Frequencies: octaves."""
    n_masking_step: int = option(0, low=0)
    """Frequencies: steps over which the octaves come in, low ones first; 0 = all from the start."""


def small_network() -> NetworkConfig:
    """Return threestudio's configuration of the network after encoded directions.

    Returns:
        Two hidden layers of 16 neurons.
    """
    return NetworkConfig(n_neurons=16, n_hidden_layers=2)


class DirectionNetwork(nn.Module):
    """A network of features and encoded unit directions.

    Args:
        n_features: length of the features before the direction; 0 = directions alone.
        n_out: values per point.
        encoding: of the directions.
        network: the network after the encoding.

    Raises:
        ConfigError: an unknown encoding or degree, or kind of network.

    Example:
        >>> import torch
        >>> from zero123s.ops.networks import DirectionEncodingConfig, DirectionNetwork, small_network
        >>> network = DirectionNetwork(2, 3, DirectionEncodingConfig(degree=2), small_network())
        >>> network(torch.rand(5, 2), torch.tensor([0.0, 0, 1]).expand(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(self, n_features: int, n_out: int, encoding: DirectionEncodingConfig, network: NetworkConfig) -> None:
        super().__init__()
        known = ("SphericalHarmonics", "ProgressiveBandFrequency")
        if encoding.otype not in known:
            raise ConfigError(f"dir_encoding_config.otype: '{encoding.otype}' is neither {known[0]} nor {known[1]}.")
        self.encoding = encoding
        self.octave_weights = octave_weights(encoding, 0)
        # Raises for a degree that does not exist, before anything is sized by it.
        self.network = build_mlp(n_features + self.encode(torch.zeros(1, 3)).shape[-1], n_out, network)

    def on_step(self, step: int) -> None:
        """Update the weights of the octaves.

        Args:
            step: the global step.
        """
        self.octave_weights = octave_weights(self.encoding, step)

    def encode(self, dirs: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Encode directions.

        Args:
            dirs: N 3, unit vectors.

        Returns:
            N C, spherical harmonics, or weighted sines and cosines of each octave.
        """
        if self.encoding.otype == "SphericalHarmonics":
            return spherical_harmonics(dirs, self.encoding.degree)
        x = (dirs + 1) / 2
        waves = [w * f(2**k * x) for k, w in enumerate(self.octave_weights) for f in (torch.sin, torch.cos)]
        return torch.cat(waves, dim=-1)

    def forward(self, features: Float[Tensor, "N F"], dirs: Float[Tensor, "N 3"]) -> Float[Tensor, "N O"]:
        """Return the network's output.

        Args:
            features: N F, features of the points.
            dirs: N 3, unit directions.

        Returns:
            N O.
        """
        return self.network(torch.cat([features, self.encode(dirs).to(features)], dim=-1))


def octave_weights(cfg: DirectionEncodingConfig, step: int) -> list[float]:
    """Return the weight of every octave, (1 - cos(pi clamp(K step / n_masking_step - k, 0, 1))) / 2 (BARF, eq. 14).

    Args:
        cfg: the encoding, with K = n_frequencies octaves.
        step: the global step.

    Returns:
        K weights in [0, 1], low octaves first; all 1 where n_masking_step is 0.

    Example:
        >>> from zero123s.ops.networks import DirectionEncodingConfig, octave_weights
        >>> octave_weights(DirectionEncodingConfig(n_frequencies=2, n_masking_step=100), 50)
        [1.0, 0.0]
    """
    if not cfg.n_masking_step:
        return [1.0] * cfg.n_frequencies
    reached = step / cfg.n_masking_step * cfg.n_frequencies
    return [(1 - math.cos(math.pi * min(max(reached - k, 0.0), 1.0))) / 2 for k in range(cfg.n_frequencies)]
