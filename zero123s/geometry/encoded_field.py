"""A scalar field on a hash encoding: a bias plus a small network, and one each for features and predicted normals."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.geometry.encoding import EncodingConfig, HashEncoding
from zero123s.geometry.scalar_field import ScalarFieldGeometry
from zero123s.ops.networks import MLP, NetworkConfig, build_mlp


class EncodedFieldGeometry(ScalarFieldGeometry):
    """The encoding and all networks except that of the scalar.

    A subclass names that one in `scalar_network`, and defines `bias` and `value`.
    """

    @dataclass
    class Config(ScalarFieldGeometry.Config):
        """Settings common to encoded fields."""

        pos_encoding_config: EncodingConfig = field(default_factory=EncodingConfig)
        """Position encoding."""
        mlp_network_config: NetworkConfig = field(default_factory=NetworkConfig)
        """Network after the encoding."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.encoding = HashEncoding(cfg.pos_encoding_config)
        if cfg.finite_difference_normal_eps == "progressive" and not self.encoding.progressive:
            super().progressive_eps()
        n = self.encoding.n_output_dims
        self.feature_network = build_mlp(n, self.n_features, cfg.mlp_network_config) if self.n_features else None
        self.normal_network = build_mlp(n, 3, cfg.mlp_network_config) if cfg.normal_type == "pred" else None

    @property
    def scalar_network(self) -> MLP:
        """The network of the scalar; subclasses name it in the state dict."""
        raise NotImplementedError(f"{type(self).__name__} must define scalar_network.")

    def bias(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return what is added to the network's output; has no parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define bias().")

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return the encoding of world positions."""
        return self.encoding(self._unit(x))

    def _unit(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Return positions in the unit cube."""
        return x / (2 * self.cfg.radius) + 0.5

    def analytic_gradient(self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        """Return the gradient of network plus bias: of a signed distance itself, of a density up to a factor >= 0.

        Chained by hand, because autograd would differentiate everything by the positions once more when the normals
        are trained.
        """
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.clone().detach().requires_grad_()
            (of_bias,) = torch.autograd.grad(self.bias(leaf).sum(), leaf)
        by_feature = self.scalar_network.input_gradient(encoded)
        of_network = self.encoding.position_gradient(self._unit(x), by_feature)
        return of_network / (2 * self.cfg.radius) + of_bias

    def features_of(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Return the feature network's output."""
        assert self.feature_network is not None
        return self.feature_network(encoded)

    def predicted_normal(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        """Return the normal network's output."""
        assert self.normal_network is not None
        return self.normal_network(encoded)

    def progressive_eps(self) -> float:
        """Return the edge of the finest cell that is switched on (Neuralangelo)."""
        return 2 * self.cfg.radius / self.encoding.active_resolution
