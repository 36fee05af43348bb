"""Common parts of geometries with one scalar field: features, and normals by four methods."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.geometry.base import BaseGeometry, GeometryOutput
from zero123s.geometry.encoding import EncodingConfig, HashEncoding
from zero123s.ops.encoded_networks import Cone, can_evaluate_together, evaluate_together
from zero123s.ops.networks import MLP, NetworkConfig, build_mlp
from zero123s.ops.sections import section
from zero123s.ops.vectors import unit
from zero123s.randomness import generator_on

NORMAL_TYPES = ("analytic", "finite_difference", "finite_difference_laplacian", "pred")
PERTURBATION = 0.01
"""Standard deviation of the step for "normal_perturbed", world units."""


class FieldValues(NamedTuple):
    """What `ScalarFieldGeometry.evaluate` returns: of the first N of M points, but gradients of all."""

    value: Float[Tensor, "N"]
    features: Float[Tensor, "N K"] | None
    gradient: Float[Tensor, "M 3"] | None
    predicted_normal: Float[Tensor, "N 3"] | None = None
    """Of unit length."""


class ScalarFieldGeometry(BaseGeometry):
    """A geometry whose surface is a level of one scalar: a density, which falls outwards, or a signed distance.

    A subclass defines `encode`, `value`, `features_of`, `predicted_normal` and, for a signed distance, `sigma_of`.
    """

    @dataclass
    class Config(BaseGeometry.Config):
        """Settings common to scalar fields."""

        n_feature_dims: int = option(3, low=0, high=1024)
        """Length of the feature vector for the material; 0 = none."""
        normal_type: str = "finite_difference"
        """"analytic", "finite_difference" (forward), "finite_difference_laplacian" (central) or "pred" (a network)."""
        finite_difference_normal_eps: Any = 0.01
        """Step of finite differences in world units, or "progressive": the finest cell that is switched on."""
        perturbed_share: float = option(1.0, above=0.0, high=1.0)
        """Share of the samples on which `lambda_3d_normal_smooth` is computed: 0.25 is every fourth along the rays,
        starting at a random one. The expected value of the term is the same; its cost is proportional to the share.
        """

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if cfg.normal_type not in NORMAL_TYPES:
            raise ConfigError(f"geometry.normal_type: '{cfg.normal_type}' is none of {', '.join(NORMAL_TYPES)}.")
        eps = cfg.finite_difference_normal_eps
        if eps != "progressive" and (isinstance(eps, bool) or not isinstance(eps, int | float) or not eps > 0):
            raise ConfigError(
                f"geometry.finite_difference_normal_eps: {eps!r} is not a length > 0 and not 'progressive'."
            )
        self.n_features = cfg.n_feature_dims

    # ------------------------------------------------------------ what a subclass defines

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return what value, features and predicted normals are computed from."""
        raise NotImplementedError(f"{type(self).__name__} must define encode().")

    def value(self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
        """Return the scalar: density, or signed distance where `has_sdf` says so."""
        raise NotImplementedError(f"{type(self).__name__} must define value().")

    def features_of(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Return the features; only called where `n_features` is above zero."""
        raise NotImplementedError(f"{type(self).__name__} must define features_of().")

    def predicted_normal(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        """Return normals of any length; only called for `normal_type: pred`."""
        raise NotImplementedError(f"{type(self).__name__} must define predicted_normal().")

    def sigma_of(self, value: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Return the density that belongs to a value."""
        return value

    def progressive_eps(self) -> float:
        """Return the present step of "progressive" finite differences, world units."""
        raise ConfigError("geometry.finite_difference_normal_eps: progressive needs a ProgressiveBandHashGrid.")

    # ------------------------------------------------------------ what follows from it

    def value_at(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the scalar alone, as cheaply as possible."""
        return self.value(x, self.encode(x))

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return density alone: one encoding, one network."""
        return self.sigma_of(self.value_at(x))

    def forward(
        self, x: Float[Tensor, "N 3"], needs: frozenset[str], generator: torch.Generator | None = None
    ) -> GeometryOutput:
        """Evaluate density and what `needs` names; analytic gradients share this forward pass."""
        predicts = "normal" in needs and self.cfg.normal_type == "pred"
        wants_gradient = ("normal" in needs and not predicts) or ("sdf" in needs and self.has_sdf)
        x = x.detach()
        near, at = self.points_near(x, generator) if "normal_perturbed" in needs else (None, None)
        shared = near is not None and wants_gradient and self._near_points_share_pass(x)
        points = x if near is None or not shared else torch.cat([x, near])
        value, features, gradient, normal = self.evaluate(
            points,
            len(x),
            features="features" in needs and self.n_features > 0,
            gradient=wants_gradient,
            predicted_normal=predicts,
        )
        perturbed = None
        if gradient is not None:
            gradient, gradient_near = gradient[: len(x)], gradient[len(x) :]
            normal = self._outwards(gradient) if "normal" in needs and not predicts else normal
            perturbed = self._outwards(gradient_near) if shared else None
        if near is not None and perturbed is None:
            perturbed = self.normal_at(near)
        sigma = self.sigma_of(value)
        if self.has_sdf:
            return GeometryOutput(sigma, features, normal, perturbed, sdf=value, sdf_grad=gradient, perturbed_at=at)
        return GeometryOutput(sigma, features, normal, perturbed, perturbed_at=at)

    def evaluate(
        self,
        points: Float[Tensor, "M 3"],
        n_values: int,
        *,
        features: bool = False,
        gradient: bool = False,
        predicted_normal: bool = False,
    ) -> FieldValues:
        """Return the scalar of points and what else is requested, from one encoding.

        Args:
            points: M 3, world units.
            n_values: the first N points get a value, features and a predicted normal.
            features: whether to return features.
            gradient: whether to return the gradient of all points by position, up to a factor >= 0.
            predicted_normal: whether to return the normal network's output.
        """
        encoded, gradients = self.encode(points), None
        if gradient and self.cfg.normal_type == "analytic":
            gradients = self.analytic_gradient(points, encoded)
        x, encoded = points[:n_values], encoded[:n_values]
        value = self.value(x, encoded)
        if gradient and gradients is None:
            gradients = self._gradient(x, encoded, value)
        normal = unit(self.predicted_normal(encoded)) if predicted_normal else None
        return FieldValues(value, self.features_of(encoded) if features else None, gradients, normal)

    def _near_points_share_pass(self, x: Float[Tensor, "N 3"]) -> bool:
        """Return whether points and those near them share one pass: half the launches on a GPU."""
        return self.cfg.normal_type == "analytic" and x.device.type != "cpu"

    def points_near(
        self, x: Float[Tensor, "N 3"], generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "K 3"], Int[Tensor, "K"] | None]:
        """Return points a small random step away from some of `x`, and from which; None = from all."""
        at = self._perturbed_at(len(x), generator, x.device)
        near = x if at is None else x.index_select(0, at)
        step = torch.randn(near.shape, generator=generator_on(x.device, generator), device=x.device)
        return near + PERTURBATION * step.to(x), at

    def _perturbed_at(
        self, n_points: int, generator: torch.Generator | None, device: torch.device
    ) -> Int[Tensor, "K"] | None:
        """Return every k-th point from a random one on, so that all rays have their share; None = all points."""
        every = round(1 / self.cfg.perturbed_share)
        if every == 1:
            return None
        first = int(torch.randint(every, (), generator=generator))
        return torch.arange(min(first, max(n_points - 1, 0)), n_points, every, device=device)

    def normal_at(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Return unit outward normals alone."""
        if self.cfg.normal_type == "pred":
            return unit(self.predicted_normal(self.encode(x)))
        gradient = self.evaluate(x, len(x), gradient=True).gradient
        assert gradient is not None
        return self._outwards(gradient)

    def _outwards(self, gradient: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        return unit(gradient if self.has_sdf else -gradient)

    def _gradient(
        self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"], value: Float[Tensor, "N"] | None
    ) -> Float[Tensor, "N 3"]:
        """Return the scalar's gradient at world positions; `value` is only needed by forward differences."""
        if self.cfg.normal_type == "analytic":
            return self.analytic_gradient(x, encoded)
        eps = self.cfg.finite_difference_normal_eps
        eps = self.progressive_eps() if eps == "progressive" else float(eps)
        steps = eps * torch.eye(3, dtype=x.dtype, device=x.device)
        ahead = self._values_around(x, steps)
        if self.cfg.normal_type == "finite_difference_laplacian":
            return (ahead - self._values_around(x, -steps)) / (2 * eps)
        assert value is not None
        return (ahead - value[:, None]) / eps

    def analytic_gradient(self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        """Return the scalar's gradient by position (of a density, up to a factor >= 0); found by autograd.

        `encoded` is there for subclasses that can reuse it.
        """
        keep_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.clone().detach().requires_grad_()
            return torch.autograd.grad(self.value_at(leaf).sum(), leaf, create_graph=keep_graph)[0]

    def _values_around(self, x: Float[Tensor, "N 3"], steps: Float[Tensor, "3 3"]) -> Float[Tensor, "N 3"]:
        limit = self.cfg.radius
        points = (x[:, None] + steps).clamp(-limit, limit).reshape(-1, 3)
        return self.value_at(points).reshape(-1, 3)


class EncodedFieldGeometry(ScalarFieldGeometry):
    """Holds the encoding and all networks but that of the scalar.

    A subclass names that one in `scalar_network` and defines `bias`; `cone`, where the bias is a linear function of the
    distance from the origin; and, where the scalar is not the sum of both, `activated_sum` or `activated`. All of them are
    evaluated together, on a GPU for gradients, unless it overrides what `_fuses` lists.
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
        """The network of the scalar, which has a name of its own in the state dict."""
        raise NotImplementedError(f"{type(self).__name__} must define scalar_network.")

    def bias(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return what is added to the network's output; has no parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define bias().")

    def cone(self) -> Cone | None:
        """Return the bias as a linear function of the distance from the origin; None where it is not one."""
        return None

    def activated_sum(self, total: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Return the scalar from the network's output plus the bias."""
        return total

    def activated(self, raw: Float[Tensor, "N"], x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the scalar from the network's output."""
        return self.activated_sum(raw + self.bias(x))

    def value(self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
        """Return the scalar from the encoding."""
        return self.activated(self.scalar_network(encoded)[:, 0], x)

    def value_at(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the scalar alone."""
        return self.evaluate(x, len(x)).value

    def evaluate(
        self,
        points: Float[Tensor, "M 3"],
        n_values: int,
        *,
        features: bool = False,
        gradient: bool = False,
        predicted_normal: bool = False,
    ) -> FieldValues:
        """Evaluate encoding and networks together where that is written, else one after the other; see the base class."""
        chained = gradient and self.cfg.normal_type != "analytic"
        if predicted_normal or chained or not self._fuses(points, gradient, n_values):
            return super().evaluate(
                points, n_values, features=features, gradient=gradient, predicted_normal=predicted_normal
            )
        assert self.feature_network is not None or not features
        cone = self.cone() if type(self).activated is EncodedFieldGeometry.activated else None
        with section("encode and networks"):
            found = evaluate_together(
                self._unit(points) if cone is None else points,
                self.encoding.table,
                self.encoding.grid,
                self.scalar_network.weights,
                self.feature_network.weights if features else (),  # type: ignore[union-attr]
                gradient,
                self.encoding.grad_buffer(),
                n_values,
                cone,
            )
        if cone is not None:
            return FieldValues(self.activated_sum(found.value), found.features, found.gradient)
        gradients = None
        if found.gradient is not None:
            gradients = found.gradient / (2 * self.cfg.radius) + self._bias_gradient(points)
        return FieldValues(self.activated(found.value, points[:n_values]), found.features, gradients)

    def _fuses(self, x: Float[Tensor, "N 3"], gradient: bool, n_values: int) -> bool:
        """Return whether `evaluate_together` computes the same: not where a subclass or a setting replaces a part."""
        networks = [n for n in (self.scalar_network, self.feature_network) if n is not None]
        parts = ("encode", "value", "features_of", "analytic_gradient")
        return (
            all(getattr(type(self), part) is getattr(EncodedFieldGeometry, part) for part in parts)
            and type(self.encoding) is HashEncoding
            and self.encoding.complete
            and all(type(n) is MLP and n.rectified for n in networks)
            and self.cfg.mlp_network_config.backend == self.cfg.pos_encoding_config.backend == "auto"
            and not (torch.is_grad_enabled() and x.requires_grad)
            and can_evaluate_together(
                x, self.encoding.table, [w for n in networks for w in n.weights], gradient, n_values
            )
        )

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
        by_feature = self.scalar_network.input_gradient(encoded)
        of_network = self.encoding.position_gradient(self._unit(x), by_feature)
        return of_network / (2 * self.cfg.radius) + self._bias_gradient(x)

    def _bias_gradient(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.clone().detach().requires_grad_()
            bias = self.bias(leaf)
            # A constant does not depend on the points.
            return torch.autograd.grad(bias.sum(), leaf)[0] if bias.requires_grad else torch.zeros_like(x)

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


def norm(x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """Return |x| with a finite gradient at the origin."""
    return (x.square().sum(-1) + 1e-12).sqrt()
