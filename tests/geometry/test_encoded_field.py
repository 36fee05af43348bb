"""Encoding and networks evaluated together: when, and that it changes nothing."""

from dataclasses import replace

import pytest
import torch

from zero123s.geometry import scalar_field
from zero123s.geometry.encoding import EncodingConfig, HashEncoding
from zero123s.geometry.implicit_sdf import ImplicitSDF
from zero123s.geometry.implicit_volume import ImplicitVolume
from zero123s.geometry.scalar_field import EncodedFieldGeometry
from zero123s.ops import backends
from zero123s.ops.encoded_networks import agreement as field_agreement
from zero123s.ops.mlp import agreement
from zero123s.ops.networks import MLP, NetworkConfig

ENCODING = EncodingConfig(n_levels=4, log2_hashmap_size=10, base_resolution=4)
NETWORK = NetworkConfig(n_neurons=16, n_hidden_layers=1)
NEEDS = frozenset({"features", "normal", "normal_perturbed", "sdf"})


def build(kind: type[EncodedFieldGeometry], **changes) -> EncodedFieldGeometry:
    """Return a geometry with random weights."""
    settings = {"normal_type": "analytic", "pos_encoding_config": ENCODING, "mlp_network_config": NETWORK, **changes}
    torch.manual_seed(0)
    geometry = kind(replace(kind.Config(), **settings))
    with torch.no_grad():
        for parameter in geometry.parameters():
            parameter.uniform_(-0.5, 0.5)
    return geometry


def points(n: int = 200) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.fixture
def n_fused(monkeypatch):
    """Return a list that grows by one with each call of `evaluate_together`."""
    calls: list[None] = []

    def counted(*args):
        calls.append(None)
        return evaluate(*args)

    evaluate = scalar_field.evaluate_together
    monkeypatch.setattr(scalar_field, "evaluate_together", counted)
    return calls


def outputs_and_gradients(
    geometry: EncodedFieldGeometry, n: int = 200
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    geometry.zero_grad()
    out = geometry(points(n), NEEDS, torch.Generator().manual_seed(0))
    outputs = [value for value in vars(out).values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    sum((torch.sin(torch.arange(o.numel()).view_as(o)) * o).sum() for o in outputs if o.requires_grad).backward()
    return outputs, [p.grad.clone() for p in geometry.parameters()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [ImplicitVolume, ImplicitSDF])
def test_outputs_and_gradients_are_those_of_the_parts(kind, training, n_fused, monkeypatch):
    geometry = build(kind).train(training)
    together = outputs_and_gradients(geometry)
    assert len(n_fused) == 2  # the points, and the normals near them
    monkeypatch.setattr(kind, "_fuses", lambda *_: False)
    apart = outputs_and_gradients(geometry)
    assert len(n_fused) == 2
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled where there is a GPU")
@pytest.mark.parametrize("kind", [ImplicitVolume, ImplicitSDF])
def test_near_points_share_one_triton_pass(kind, n_fused, monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed: it has wheels for Linux")
    monkeypatch.setattr(backends, "_is_usable", lambda *_: True)  # so that "auto" is Triton, as on CUDA
    monkeypatch.setattr(agreement, "kernels_agree", lambda *_: True)
    monkeypatch.setattr(field_agreement, "table_gradients_agree", lambda *_: True)
    monkeypatch.setattr(kind, "_near_points_share_pass", lambda *_: True)
    geometry = build(kind)
    together = outputs_and_gradients(geometry, n=40)  # few: the kernels are interpreted
    assert len(n_fused) == 1
    monkeypatch.setattr(kind, "_fuses", lambda *_: False)
    torch.testing.assert_close(together, outputs_and_gradients(geometry, n=40), rtol=1e-4, atol=1e-4)
    assert len(n_fused) == 1


class OwnValue(ImplicitVolume):
    """A plugin's geometry with another scalar."""

    def value(self, x, encoded):
        """Return half the density."""
        return 0.5 * super().value(x, encoded)


class OwnBias(ImplicitVolume):
    """A plugin's geometry that starts from a slope."""

    def bias(self, x):
        """Return the height."""
        return x[:, 2]


class OwnActivation(ImplicitVolume):
    """A plugin's geometry with another activation."""

    def activated(self, raw, x):
        """Return a square."""
        return (raw + x[:, 0]).square()


class OwnEncoding(HashEncoding):
    """A plugin's encoding."""

    def forward(self, x):
        """Return twice the features."""
        return 2 * super().forward(x)


class OwnNetwork(MLP):
    """A plugin's network."""

    def forward(self, x):
        """Return the output and one."""
        return super().forward(x) + 1


def test_an_overriding_subclass_is_not_bypassed(n_fused):
    own, plain = build(OwnValue), build(ImplicitVolume)
    torch.testing.assert_close(own.density(points()), 0.5 * plain.density(points()))
    assert len(n_fused) == 1  # the plain one


@pytest.mark.parametrize("kind", [OwnBias, OwnActivation])
def test_own_biases_and_activations_are_used(kind, n_fused, monkeypatch):
    together = outputs_and_gradients(build(kind))
    assert len(n_fused) == 2
    monkeypatch.setattr(kind, "_fuses", lambda *_: False)
    torch.testing.assert_close(together, outputs_and_gradients(build(kind)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (ImplicitVolume, {"density_bias": "blob_dreamfusion"}),
        (ImplicitVolume, {"density_bias": -1.5}),
        (ImplicitSDF, {"sdf_bias": "ellipsoid", "sdf_bias_params": [0.3, 0.4, 0.5]}),
        (ImplicitSDF, {"sdf_bias": 0.2}),
    ],
)
def test_every_bias_equals_that_of_the_parts(kind, changes, monkeypatch):
    together = outputs_and_gradients(build(kind, **changes))
    monkeypatch.setattr(kind, "_fuses", lambda *_: False)
    torch.testing.assert_close(together, outputs_and_gradients(build(kind, **changes)), rtol=1e-4, atol=1e-4)


def test_own_encodings_and_networks_are_called(n_fused):
    geometry = build(ImplicitVolume)
    before = geometry.density(points())
    geometry.encoding.__class__ = OwnEncoding
    assert not torch.allclose(geometry.density(points()), before)
    geometry.encoding.__class__ = HashEncoding
    geometry.density_network.__class__ = OwnNetwork
    assert not torch.allclose(geometry.density(points()), before)
    assert len(n_fused) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"normal_type": "pred"},
        {"mlp_network_config": replace(NETWORK, activation="softplus")},
        {"mlp_network_config": replace(NETWORK, output_activation="sigmoid")},
        {"mlp_network_config": replace(NETWORK, n_hidden_layers=0)},
        {"mlp_network_config": replace(NETWORK, backend="reference")},
        {"pos_encoding_config": replace(ENCODING, backend="reference")},
        {"pos_encoding_config": replace(ENCODING, otype="ProgressiveBandHashGrid")},
        {"pos_encoding_config": replace(ENCODING, n_features_per_level=1)},
    ],
)
def test_other_settings_take_the_parts(changes, n_fused):
    build(ImplicitVolume, **changes)(points(), frozenset({"features", "normal"}))
    assert not n_fused


def test_all_progressive_levels_together_again(n_fused):
    geometry = build(ImplicitVolume, pos_encoding_config=replace(ENCODING, otype="ProgressiveBandHashGrid"))
    geometry.encoding.on_step(100_000)
    geometry.density(points())
    assert len(n_fused) == 1


def test_derivatives_by_position_take_the_parts(n_fused):
    x = points().requires_grad_()
    geometry = build(ImplicitVolume)
    (gradient,) = torch.autograd.grad(geometry.density(x).sum(), x, create_graph=True)
    gradient.norm().backward()
    assert not n_fused
    with torch.no_grad():
        geometry.density(x)
    assert len(n_fused) == 1


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_double_precision_and_autocast_take_the_parts(kind, n_fused):
    geometry, x = build(ImplicitVolume), points()
    if kind == torch.float64:
        geometry, x = geometry.double(), x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        out = geometry(x, frozenset({"features", "normal"}))
    assert not n_fused
    assert out.features.dtype == kind


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_takes_points_of_any_layout(mode):
    geometry = build(ImplicitVolume)
    expected = geometry(points(), frozenset({"features", "normal"}))
    with mode():
        columns = points().t().contiguous().t()
        out = geometry(columns, frozenset({"features", "normal"}))
    torch.testing.assert_close(
        [out.sigma, out.features, out.normal], [expected.sigma, expected.features, expected.normal]
    )
