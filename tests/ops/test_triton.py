"""Triton kernels against their plain-torch twins: interpreted where there is no GPU, compiled where there is one."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton is not installed: it has wheels for Linux")

import triton
from triton import language as tl

from zero123s.diffusion.speed import FusedResnetBlock
from zero123s.errors import ConfigError
from zero123s.ops import agreement, backends
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.compositing import composite, composite_alpha, visible_samples
from zero123s.ops.encoded_networks import agreement as field_agreement
from zero123s.ops.encoded_networks import can_evaluate_together, evaluate_together
from zero123s.ops.gaussian_splatting import agreement as splat_agreement
from zero123s.ops.gaussian_splatting import blend, covariance_factors, project_gaussians
from zero123s.ops.gaussian_splatting import triton as splat_kernels
from zero123s.ops.gaussian_sum import agreement as sum_agreement
from zero123s.ops.gaussian_sum import gaussian_sum
from zero123s.ops.gaussian_sum import triton as sum_kernels
from zero123s.ops.gpu_kernels import launch
from zero123s.ops.group_norm import agreement as norm_agreement
from zero123s.ops.group_norm import group_norm_silu
from zero123s.ops.group_norm import triton as norm_kernels
from zero123s.ops.hash_grid import HashGrid, encode, position_gradient
from zero123s.ops.hash_grid import triton as hash_kernels
from zero123s.ops.mlp import agreement as mlp_agreement
from zero123s.ops.mlp import mlp_forward, mlp_input_gradient, plain_mlp
from zero123s.ops.mlp import triton as fused
from zero123s.ops.rasterization import pinhole, visible_faces
from zero123s.ops.ray_marching import march

INTERPRETED = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled where there is a GPU")
DEVICES = [pytest.param("cpu", marks=INTERPRETED), pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ("triton", "reference")
SMALL = HashGrid(n_levels=3, log2_hashmap_size=8, base_resolution=4, per_level_scale=2.0)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(found, expected, tolerance: float = 1e-5) -> None:
    """Compare tensors to a share of the largest number in each."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        largest = float(b.detach().abs().max()) if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * largest)


# ---------------------------------------------------------------- hash grid


def derivatives(x, table, grid, backend: str) -> list[torch.Tensor]:
    """Features, gradients by positions and table, and both gradients of the gradient by positions."""
    y = encode(x, table, grid, backend)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    second = torch.autograd.grad(first.square().sum(), (table, x), retain_graph=True)
    v = y.detach().cos().requires_grad_()
    chained = position_gradient(x, table, v, grid, backend)
    normals = torch.autograd.grad(chained.square().sum(), (table, v))
    return [y, first, *second, *torch.autograd.grad(y.square().sum(), table), chained, *normals]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["inside", "outside", "none"])
def test_hash_grid_and_its_derivatives_equal_the_reference(kind, device):
    assert [level.hashed for level in SMALL.levels] == [False, True, True]
    x = drawn({"inside": 200, "outside": 50, "none": 0}[kind], 3)
    x = (x * 4 - 2 if kind == "outside" else x).to(device).requires_grad_()
    table = (drawn(SMALL.n_rows, 2, seed=1) - 0.5).to(device).requires_grad_()
    assert_near(*(derivatives(x, table, SMALL, backend) for backend in BACKENDS))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_features", [1, 4])
def test_hash_grid_takes_power_of_two_features(n_features, device):
    grid = HashGrid(2, n_features, log2_hashmap_size=8, base_resolution=4)
    x, table = (
        drawn(100, 3).to(device).requires_grad_(),
        drawn(grid.n_rows, n_features, seed=1).to(device).requires_grad_(),
    )
    assert_near(*(derivatives(x, table, grid, backend) for backend in BACKENDS))


@pytest.mark.parametrize("device", DEVICES)
def test_hash_grid_reads_a_half_precision_table(device):
    grid = HashGrid(2, 2, log2_hashmap_size=8, base_resolution=4)
    x, table = drawn(100, 3).to(device), (drawn(grid.n_rows, 2, seed=1) - 0.5).half().to(device)
    results = []
    for backend, used in (("triton", table), ("reference", table.float())):
        leaf = used.clone().requires_grad_()
        y = encode(x, leaf, grid, backend)
        results.append([y, *(g.float() for g in torch.autograd.grad(y.square().sum(), leaf))])
    assert results[0][0].dtype == torch.float32
    assert_near(*results, tolerance=2e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_hash_grid_adds_to_a_kept_buffer(device):
    x, table = drawn(60, 3).to(device), drawn(SMALL.n_rows, 2, seed=1).to(device).requires_grad_()
    buffer = torch.zeros_like(table)
    y = encode(x, table, SMALL, "triton", lambda: buffer)
    (y.sum() + position_gradient(x, table, y, SMALL, "triton", lambda: buffer).square().sum()).backward()
    assert table.grad is None
    y = encode(x, table, SMALL, "reference")
    (y.sum() + position_gradient(x, table, y, SMALL, "reference").square().sum()).backward()
    assert_near([buffer], [table.grad])


# ---------------------------------------------------------------- ray marching


def rays(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays at a box, three of them parallel to its faces and one that misses it."""
    o = 3 * F.normalize(drawn(n, 3) - 0.5, dim=-1)
    d = F.normalize(0.6 * (drawn(n, 3, seed=1) - 0.5) - o, dim=-1)
    o[:3], d[:3] = torch.tensor([3.0, 0.1, 0.2]), torch.tensor([-1.0, 0.0, 0.0])
    d[3] = -d[3]
    return o, d


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("far", [1e10, 2.9])
def test_the_march_finds_the_references_samples(far, device):
    n = 24 if device == "cpu" else 2000
    o, d = (t.to(device) for t in rays(n))
    grid, box = (drawn(15, 14, 13) < 0.2).to(device), torch.tensor([-1.0, -1, -1, 1, 1, 1], device=device)
    jitter = drawn(n, seed=2).to(device)
    a, b = (march(o, d, box, grid, 0.017, 0.1, far, jitter, backend) for backend in BACKENDS)
    assert len(a.t_starts) > 10 * n
    assert torch.equal(a.packed_info, b.packed_info)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_marching_takes_no_rays_and_no_hits(device):
    grid, box = torch.ones(4, 4, 4, device=device) > 0, torch.tensor([-1.0, -1, -1, 1, 1, 1], device=device)
    assert march(*(torch.zeros(0, 3, device=device),) * 2, box, grid, 0.1, backend="triton").t_starts.shape == (0,)
    away = march(
        torch.full((1, 3), 3.0, device=device),
        torch.tensor([[1.0, 0, 0]], device=device),
        box,
        grid,
        0.1,
        backend="triton",
    )
    assert away.packed_info.tolist() == [[0, 0]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("indexed", [False, True])
def test_positions_are_the_middles_of_the_samples(indexed, device):
    from zero123s.ops.ray_marching import triton

    o, d = (t.to(device) for t in rays(20))
    ray, t = torch.arange(300, device=device) // 15, drawn(300).to(device)
    index = torch.tensor([299, 5, 0], device=device) if indexed else None
    found = triton.positions(index, ray, t, t + 0.1, o, d)
    expected = o[ray] + (t + 0.05)[:, None] * d[ray]
    assert_near([found], [expected if index is None else expected[index]], 1e-6)


# ---------------------------------------------------------------- compositing


def samples(device: str) -> tuple[torch.Tensor, ...]:
    """Opacities from clear to opaque, along rays of no sample, one, a block, a block and one, and more."""
    counts = torch.tensor([0, 1, 32, 0, 33, 70])
    info, n = torch.stack([counts.cumsum(0) - counts, counts], dim=-1), int(counts.sum())
    alphas, t = drawn(n, seed=1).pow(3), drawn(n, seed=2)
    alphas[10] = 1.0
    return tuple(x.to(device) for x in (alphas, t, t + 0.1, info, drawn(n, 5, seed=3)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("function", [composite, composite_alpha])
@pytest.mark.parametrize("early_stop_eps", [0.0, 1e-2])
def test_composited_rays_and_gradients_equal_the_reference(function, early_stop_eps, device):
    alphas, *rest, values = samples(device)
    results = []
    for backend in BACKENDS:
        leaves = [
            (alphas if function is composite_alpha else 20 * alphas).clone().requires_grad_(),
            values.clone().requires_grad_(),
        ]
        out = function(leaves[0], *rest, leaves[1], early_stop_eps, backend)
        loss = sum((o.cos() * o).sum() for o in out)
        results.append([*out, *torch.autograd.grad(loss, leaves)])
    assert_near(*results)


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_values_are_composited_in_float32(device):
    alphas, *rest, values = samples(device)
    results = []
    for backend in BACKENDS:
        leaf = values.half().requires_grad_()
        summed = composite_alpha(alphas, *rest, leaf, 0.0, backend)[3]
        results.append([summed, *torch.autograd.grad(summed.square().sum(), leaf)])
    assert_near(*results, tolerance=2e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_compositing_nothing(device):
    none, info = torch.zeros(0, device=device), torch.zeros(3, 2, dtype=torch.long, device=device)
    for n_values in (0, 3):
        out = composite(none, none, none, info, torch.zeros(0, n_values, device=device), 0.0, "triton")
        assert_near(out, composite(none, none, none, info, torch.zeros(0, n_values, device=device), 0.0, "reference"))


@pytest.mark.parametrize("device", DEVICES)
def test_visible_samples_are_the_references(device):
    alphas, _, _, info, _ = samples(device)
    ray = torch.repeat_interleave(torch.arange(len(info), device=device), info[:, 1])
    found, expected = (visible_samples(lambda index: alphas[index], ray, info, 0.01, 1e-2, b) for b in BACKENDS)
    assert torch.equal(found, expected)
    assert 0 < int(found.sum()) < len(alphas)


# ---------------------------------------------------------------- small networks


def layers(*widths: int, device: str) -> list[torch.Tensor]:
    """Matrices of random numbers that keep the size of what goes through them."""
    pairs = enumerate(itertools.pairwise(widths))
    return [((drawn(b, a, seed=i) - 0.5) * 3.5 / a**0.5).to(device).requires_grad_() for i, (a, b) in pairs]


def by_feature(x: torch.Tensor) -> torch.Tensor:
    """Store a matrix column by column, as the hash grid's kernels do, among more rows than it has."""
    return torch.cat([x, x]).t().contiguous().t()[: len(x)]


def network_derivatives(x, weights, activation: str, backend: str) -> list[torch.Tensor]:
    """The output and the gradients of input and matrices, and of a function of the gradient by the input."""
    y = mlp_forward(x, weights, activation, backend=backend)
    first = torch.autograd.grad((y.cos() * y).sum(), (x, *weights))
    again = mlp_forward(x, weights, activation, backend=backend)
    (by_input,) = torch.autograd.grad(again.square().sum(), x, create_graph=True)
    return [y, *first, by_input, *torch.autograd.grad(by_input.square().sum(), (x, *weights))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("widths", [(32, 64, 64, 1), (32, 64, 3), (19, 20, 20, 40)])
def test_fused_networks_and_their_derivatives_equal_the_reference(widths, activation, device):
    weights, x = layers(*widths, device=device), (drawn(150, widths[0]) - 0.5).to(device)
    for points in (x, by_feature(x), x[:0]):
        leaf = points.detach().requires_grad_()
        assert_near(*(network_derivatives(leaf, weights, activation, b) for b in BACKENDS))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("widths", [(32, 64, 64, 1), (32, 64, 1), (19, 20, 20, 1)])
def test_fused_input_gradients_and_theirs_equal_the_reference(widths, device):
    weights, x = layers(*widths, device=device), (drawn(150, widths[0]) - 0.5).to(device)
    for points in (x, by_feature(x), x[:0]):
        results = []
        for backend in BACKENDS:
            gradient = mlp_input_gradient(points, weights, backend=backend)
            results.append([gradient, *torch.autograd.grad((gradient.cos() * gradient).sum(), weights)])
        assert_near(*results)


def away_from_kinks(x, weights) -> torch.Tensor:
    """Return points where no unit is so near its kink that shorter numbers would switch it."""
    first = x @ weights[0].detach().T
    second = first.relu() @ weights[1].detach().T
    return x[torch.minimum(first.abs().amin(1), second.abs().amin(1)) > 2e-3]


@pytest.fixture
def tf32():
    before = torch.get_float32_matmul_precision()
    yield lambda allowed: torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("half", "tolerance"), [(True, 2e-3), (False, 1e-2)], ids=["float16", "tf32"])
def test_fused_networks_compute_in_shorter_numbers(half, tolerance, device, tf32):
    weights = layers(32, 64, 64, 4, device=device)
    x = away_from_kinks((drawn(300, 32) - 0.5).to(device), weights).requires_grad_()
    assert len(x) > 60
    scalar, results = [*weights[:2], weights[2][:1]], []
    for backend in BACKENDS:
        tf32(backend == "triton" and not half)
        with torch.autocast(device, torch.float16, enabled=backend == "triton" and half):
            y = mlp_forward(x, weights, backend=backend)
            gradient = mlp_input_gradient(x.detach(), scalar, backend=backend)
        assert y.dtype == (torch.float16 if backend == "triton" and half else torch.float32)
        assert gradient.dtype == torch.float32
        loss = (y.float().cos() * y).sum() + gradient.square().sum()
        results.append([y.float(), gradient, *torch.autograd.grad(loss, (x, *weights))])
    assert_near(*results, tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_fused_gradients_of_matrices_repeat_to_the_bit(device):
    weights, x = layers(32, 64, 64, 1, device=device), (drawn(20000 if device == "cuda" else 300, 32) - 0.5).to(device)
    passes = [torch.autograd.grad(mlp_forward(x, weights, backend="triton").sum(), weights) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*passes, strict=True))


# ---------------------------------------------------------------- encoding and networks together


@pytest.fixture
def chosen(monkeypatch):
    """Let `auto` choose Triton on a CPU as it does on CUDA, with all products in full precision."""
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(backends, "_is_usable", lambda *_: True)
    monkeypatch.setattr(mlp_agreement, "kernels_agree", lambda *_: True)
    monkeypatch.setattr(field_agreement, "table_gradients_agree", lambda *_: True)
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def apart(x, table, value_net, feature_net, n_values) -> list[torch.Tensor]:
    """Return value, features and the value's gradient by position, from Triton's kernels one after the other."""
    encoded = encode(x, table, SMALL, "triton")
    value = mlp_forward(encoded[:n_values], value_net, backend="triton")[:, 0]
    features = mlp_forward(encoded[:n_values], feature_net, backend="triton")
    by_encoding = mlp_input_gradient(encoded, value_net, backend="triton")
    return [value, features, position_gradient(x, table, by_encoding, SMALL, "triton")]


def in_plain_torch(x, table, value_net, feature_net, n_values) -> list[torch.Tensor]:
    """Return the same from the definitions, by autograd."""
    leaf = x.clone().requires_grad_()
    encoded = encode(leaf, table, SMALL, "reference")
    value = plain_mlp(encoded, value_net, "relu")[:, 0]
    (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
    return [value[:n_values], plain_mlp(encoded[:n_values], feature_net, "relu"), slope]


def together(x, table, value_net, feature_net, n_values) -> list[torch.Tensor]:
    """Return the same from one function of autograd."""
    assert can_evaluate_together(x, table, [*value_net, *feature_net], True, n_values)
    return list(evaluate_together(x, table, SMALL, value_net, feature_net, True, None, n_values))


def with_gradients(outputs: list[torch.Tensor], leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    return [*outputs, *torch.autograd.grad(sum((o.cos() * o).sum() for o in outputs), leaves)]


def field(device: str, n: int = 150) -> tuple[torch.Tensor, ...]:
    """Return points, a table and two networks."""
    x, table = drawn(n, 3).to(device), (drawn(SMALL.n_rows, 2, seed=1) - 0.5).to(device).requires_grad_()
    return x, table, layers(6, 64, 64, 1, device=device), layers(6, 64, 64, 3, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("definition", "n_values"), [(apart, 75), (in_plain_torch, 150), (in_plain_torch, 0)])
def test_a_field_evaluated_together_equals_its_parts(definition, n_values, device, chosen):
    x, table, *networks = field(device)
    leaves = [table, *networks[0], *networks[1]]
    results = [with_gradients(f(x, table, *networks, n_values), leaves) for f in (together, definition)]
    assert_near(*results)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("used", [(True, False, False), (False, True, False), (False, False, True)])
def test_each_output_of_a_field_trains_alone(used, device, chosen):
    x, table, *networks = field(device)
    leaves = [table, *networks[0], *networks[1]]
    results = []
    for function in (together, in_plain_torch):
        outputs = itertools.compress(function(x, table, *networks, 75), used)
        loss = sum((o.cos() * o).sum() for o in outputs)
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
        results.append([torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)])
    assert_near(*results)


@pytest.mark.parametrize("device", DEVICES)
def test_field_gradients_add_in_one_launch(device, chosen, monkeypatch):
    x, table, *networks = field(device)
    calls, buffer = [], torch.zeros_like(table)
    monkeypatch.setattr(hash_kernels, "launch", lambda kernel, *a: calls.append(kernel) or launch(kernel, *a))
    loss = sum(o.sum() for o in evaluate_together(x, table, SMALL, *networks, True, lambda: buffer, 75))
    loss.backward()
    assert calls.count(hash_kernels._scatter) == 1
    assert table.grad is None
    assert buffer.abs().sum() > 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_field_keeps_no_more_than_its_parts(device, chosen):
    x, table, *networks = field(device)
    kept = []
    for function in (together, apart):
        storages = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=storages: s.setdefault(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) and t,
            lambda t: t,
        ):
            outputs = function(x, table, *networks, 75)
        kept.append(sum(storages.values()) - sum(w.nbytes for w in (table, *networks[0], *networks[1])))
        del outputs
    assert 0 < kept[0] <= kept[1]


@pytest.mark.parametrize("device", DEVICES)
def test_separate_evaluation_where_kernels_do_not_fit(device, chosen):
    x, table, *networks = field(device)
    weights = [*networks[0], *networks[1]]
    assert can_evaluate_together(x, table, weights, gradient=True)
    assert not can_evaluate_together(x, table, weights)  # without a gradient the table has one only
    assert not can_evaluate_together(x, table.half(), weights, gradient=True)
    assert not can_evaluate_together(x.double(), table, weights, gradient=True)
    with torch.autocast(device, torch.bfloat16):
        assert not can_evaluate_together(x, table, weights, gradient=True)
    if device == "cuda":
        torch.use_deterministic_algorithms(True)
        try:
            assert not can_evaluate_together(x, table, weights, gradient=True)
        finally:
            torch.use_deterministic_algorithms(False)


# ---------------------------------------------------------------- kernels that are wrong


@triton.jit
def no_activation(a, SOFTPLUS: tl.constexpr):
    return a


@triton.jit
def no_mask(g, h, SOFTPLUS: tl.constexpr):
    return g


@triton.jit
def nan(g, h, SOFTPLUS: tl.constexpr):
    return g * float("nan")


@pytest.fixture
def automatic(monkeypatch):
    """Let `auto` choose Triton on a CPU as it does on CUDA."""
    monkeypatch.setattr(agreement, "POINTS", 200)
    monkeypatch.setattr(splat_agreement, "N_GAUSSIANS", 20)
    monkeypatch.setattr(backends, "_is_usable", lambda *_: True)
    tried = [module.kernels_agree for module in (mlp_agreement, splat_agreement, sum_agreement, norm_agreement)]
    tried.append(field_agreement.table_gradients_agree)
    for function in tried:
        function.cache_clear()
    yield
    for function in tried:
        function.cache_clear()


@pytest.mark.parametrize(
    ("function", "broken", "message"),
    [
        ("_activate", no_activation, r"\(relu, widths 8 16 16 1, products in float32\).* cpu: the result differs"),
        ("_before", no_mask, "the gradient of the input differs"),
        ("_before", nan, "the gradient of the input differs from what it is by definition by nan"),
        ("_points", None, "they do not run"),
    ],
)
@INTERPRETED
def test_wrong_kernels_give_way_to_plain_torch(function, broken, message, automatic, monkeypatch, caplog):
    weights, x = layers(8, 16, 16, 1, device="cpu"), drawn(50, 8) - 0.5
    monkeypatch.setattr(fused, function, broken)
    for _ in range(2):
        found = mlp_forward(x, weights)
    assert torch.equal(found, mlp_forward(x, weights, backend="reference"))
    assert len(re.findall(message, caplog.text)) == 1
    caplog.clear()
    if function == "_before":
        assert torch.equal(mlp_input_gradient(x, weights), mlp_input_gradient(x, weights, backend="reference"))
        assert caplog.text.count("(input gradient, widths 8 16 16 1") == 1


@pytest.mark.parametrize("half", [None, torch.float16])  # the interpreter multiplies bfloat16 as whole numbers
@INTERPRETED
def test_right_kernels_are_chosen(half, automatic, monkeypatch, caplog, tf32):
    weights, x = layers(8, 16, 16, 1, device="cpu"), drawn(50, 8) - 0.5
    tf32(False)
    calls = []
    monkeypatch.setattr(fused, "launch", lambda kernel, *a, **b: calls.append(kernel) or launch(kernel, *a, **b))
    for points, activation in ((x, "relu"), (by_feature(x), "relu"), (x, "softplus")):
        with torch.autocast("cpu", half or torch.float16, enabled=half is not None):
            mlp_forward(points, weights, activation)
            mlp_input_gradient(points, weights)
    assert {fused._forward, fused._input_gradient} <= set(calls)
    assert "not used" not in caplog.text


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("MAX_ALPHA", 0.5, "The kernels that splat Gaussians are not used on cpu: the image differs"),
        ("launch", None, "The kernels that splat Gaussians are not used on cpu: they do not run"),
        (None, None, ""),
    ],
)
@INTERPRETED
def test_gaussians_are_splatted_by_right_kernels(name, broken, message, automatic, monkeypatch, caplog):
    if name:
        monkeypatch.setattr(splat_kernels, name, broken)
    found = splatted(cloud_of(10, "cpu"), "auto", 8, 8)
    if name:
        expected = splatted(cloud_of(10, "cpu"), "reference", 8, 8)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert caplog.text.count(message) == 1
    else:
        calls = []
        monkeypatch.setattr(
            splat_kernels, "launch", lambda kernel, *a, **b: calls.append(kernel) or launch(kernel, *a, **b)
        )
        splatted(cloud_of(10, "cpu"), "auto", 8, 8)
        assert calls == [splat_kernels._forward, splat_kernels._backward]
        assert "not used" not in caplog.text


@pytest.mark.parametrize("half", [False, True])
@INTERPRETED
def test_gaussians_are_summed_by_right_kernels(half, automatic, monkeypatch, caplog):
    means, scales, quaternions, _, colors = cloud_of(10, "cpu")
    arguments = drawn(20, 3, seed=5) - 0.5, means, covariance_factors(scales, quaternions), colors
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        gaussian_sum(*arguments)
    assert "not used" not in caplog.text
    sum_agreement.kernels_agree.cache_clear()
    monkeypatch.setattr(sum_kernels, "MAX_POWER", 0.1)
    for _ in range(2):
        found = gaussian_sum(*arguments)
    assert torch.equal(found[0], gaussian_sum(*arguments, backend="reference")[0])
    assert caplog.text.count("The kernel that sums Gaussians is not used on cpu: the sum differs") == 1


@INTERPRETED
def test_table_gradients_are_added_by_right_kernels(automatic, monkeypatch, caplog):
    x, table, *networks = field("cpu", 10)
    weights = [*networks[0], *networks[1]]
    assert can_evaluate_together(x, table, weights, gradient=True)
    assert "not used" not in caplog.text
    field_agreement.table_gradients_agree.cache_clear()
    monkeypatch.setattr(hash_kernels.TritonKernels, "add_all_to_table", lambda *_: None)
    for _ in range(2):
        assert not can_evaluate_together(x, table, weights, gradient=True)
    assert caplog.text.count("The kernel of both table gradients is not used on cpu: the gradient differs") == 1


def test_networks_without_fused_kernels_are_refused():
    for widths in ((32, 65, 1), (8, 8, 8, 8, 1), (8, 16, 8, 1)):
        weights = layers(*widths, device="cpu")
        with pytest.raises(ConfigError, match="two or three layers of at most 64"):
            mlp_forward(drawn(5, widths[0]), weights, backend="triton")
        assert mlp_forward(drawn(5, widths[0]), weights).shape == (5, 1)


# ---------------------------------------------------------------- group norm and activation


def normalized(backend: str, device: str, dtype=torch.float32, height: int = 40, shifted: bool = True, mean: float = 0):
    """Activated images of a group norm, and their gradient by its input."""
    x = (torch.randn(2, 6, height, 43, generator=torch.Generator().manual_seed(4)) + mean).to(device, dtype)
    parameters = [(drawn(6, seed=i) - 0.3).to(device, dtype) for i in (1, 2)]
    shift = (drawn(2, 6, seed=3) - 0.5).to(device, dtype) if shifted else None
    y = group_norm_silu(x.requires_grad_(), *parameters, n_groups=3, eps=1e-6, shift=shift, backend=backend)
    return [y, *torch.autograd.grad((y.float().cos() * y.float()).sum(), x)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("height", [1, 40, 100])  # less than the kernel reads at once, and with a rest
@pytest.mark.parametrize("shifted", [False, True])
def test_group_norms_and_gradients_equal_the_reference(shifted, height, device):
    assert_near(*(normalized(b, device, height=height, shifted=shifted) for b in BACKENDS))


@pytest.mark.parametrize("device", DEVICES)
def test_group_norms_of_half_precision(device):
    found, exact = normalized("triton", device, torch.float16), normalized("reference", device, torch.float32)
    assert_near([t.float() for t in found], exact, tolerance=2e-3)
    assert {t.dtype for t in found} == {torch.float16}


@pytest.mark.parametrize("device", DEVICES)
def test_group_norms_are_exact_far_from_zero(device):
    found, exact = (
        normalized(b, device, n, mean=3000.0) for b, n in (("triton", torch.float32), ("reference", torch.float64))
    )
    assert_near([t.double() for t in found], exact, tolerance=1e-3)  # a float32 near 3000 is 2e-4 apart from the next


@INTERPRETED
def test_group_norms_are_computed_by_right_kernels(automatic, monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(norm_kernels, "launch", lambda kernel, *a, **b: calls.append(kernel) or launch(kernel, *a, **b))
    found = normalized("auto", "cpu")
    assert {norm_kernels._normalize, norm_kernels._input_gradient} == set(calls)
    assert "not used" not in caplog.text
    norm_agreement.kernels_agree.cache_clear()
    monkeypatch.setattr(norm_kernels, "_normalize", norm_kernels._input_gradient)
    for _ in range(2):
        found = normalized("auto", "cpu")
    assert all(torch.equal(a, b) for a, b in zip(found, normalized("reference", "cpu"), strict=True))
    assert caplog.text.count("The kernels of group norm and SiLU (float32) are not used on cpu: they do not run") == 1


def kept_bytes(function) -> tuple[int, torch.Tensor]:
    """Return the bytes that a function keeps for its gradient, and its result."""
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function()
    return sum(storage.nbytes() for storage in storages.values()), result


@pytest.mark.parametrize("device", DEVICES)
def test_a_fused_residual_block_keeps_less(device, automatic):
    torch.manual_seed(0)
    block = (
        ResnetBlock2D(in_channels=8, out_channels=8, temb_channels=6, groups=4).eval().requires_grad_(False).to(device)
    )
    x, temb = drawn(2, 8, 40, 40).to(device).requires_grad_(), drawn(2, 6, seed=1).to(device)
    results = []
    for kind in (ResnetBlock2D, FusedResnetBlock):
        block.__class__ = kind
        block(x, temb)  # at their first use the kernels are compared with plain torch
        kept, y = kept_bytes(lambda: block(x, temb))
        results.append((kept, [y, *torch.autograd.grad(y.square().sum(), x)]))
    (before, expected), (after, found) = results
    assert_near(found, expected)
    assert after < 0.7 * before


@INTERPRETED
def test_group_norms_with_trained_weights_are_plain_torch(automatic, monkeypatch):
    monkeypatch.setattr(norm_kernels, "launch", None)
    x, weight = drawn(1, 4, 3, 3), torch.ones(4, requires_grad=True)
    group_norm_silu(x, weight, torch.zeros(4), 2).sum().backward()
    assert weight.grad.abs().sum() > 0
    turned = x.to(memory_format=torch.channels_last)
    assert group_norm_silu(turned, weight.detach(), torch.zeros(4), 2).is_contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- rasterisation


@pytest.mark.parametrize("device", DEVICES)
def test_rasterised_faces_are_the_references(device):
    screen = drawn(14, 3) * torch.tensor([30.0, 20, 2]) - torch.tensor([3.0, 3, -0.1])
    screen[0, 2], screen[1, 0] = -1.0, 1e12  # behind the camera; far outside the image
    faces = torch.cat(
        [torch.randint(14, (20, 3), generator=torch.Generator().manual_seed(1)), torch.tensor([[2, 2, 5]])]
    )
    faces = torch.cat([faces, faces[:4]])  # of faces in one place the first is seen
    found, expected = (visible_faces(screen[None].to(device), faces.to(device), 16, 24, b) for b in BACKENDS)
    assert torch.equal(found, expected)
    assert 0.2 < float((found >= 0).float().mean()) < 1
    assert (visible_faces(screen[None].to(device), faces[:0].to(device), 4, 4, "triton") == -1).all()


# ---------------------------------------------------------------- 3D Gaussians


def splatted(cloud, backend: str, height: int = 12, width: int = 20) -> list[torch.Tensor]:
    """Two views of Gaussians with colours and depths, and the gradients of everything that the Gaussians are made of."""
    device = cloud[0].device
    views = orbit_cameras(torch.tensor([10.0, 30.0]), torch.tensor([0.0, 130.0]), height=height, width=width)
    cameras = [t.to(device) for t in pinhole(generate_rays(views))]
    leaves = [t.clone().requires_grad_() for t in cloud]
    means, scales, quaternions, opacities, colors = leaves
    screen = project_gaussians(means, scales, quaternions, opacities, *cameras, height, width)
    values = torch.cat([colors.expand(2, -1, -1), screen.depths[..., None]], dim=-1)
    image, covered = blend(screen, opacities, values, height, width, backend)
    loss = (image.cos() * image).sum() + covered.square().sum()
    return [image, covered, *torch.autograd.grad(loss, leaves)]


def cloud_of(n: int, device: str) -> list[torch.Tensor]:
    scales, opacities = 0.03 + 0.1 * drawn(n, 3, seed=1), drawn(n, seed=3)
    opacities[: n // 3] = 1.0  # above the largest opacity at a pixel; behind some of them no light is left
    return [
        t.to(device) for t in (drawn(n, 3) - 0.5, scales, drawn(n, 4, seed=2) - 0.5, opacities, drawn(n, 3, seed=4))
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_splatted_gaussians_and_gradients_equal_the_reference(device):
    cloud = cloud_of(30 if device == "cpu" else 5000, device)
    found, expected = (splatted(cloud, backend) for backend in BACKENDS)
    assert float(expected[1].detach().max()) > 0.999
    assert_near(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(splatted(cloud, "triton"), found, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [0, 5])
def test_gaussians_that_do_not_show_add_nothing(n, device):
    cloud = cloud_of(n, device)
    cloud[0] = cloud[0] + torch.tensor(
        [8.0, 0.0, 0.0], device=device
    )  # behind the first camera, outside the second's image
    assert all(not t.any() for t in splatted(cloud, "triton"))


@pytest.mark.parametrize("device", DEVICES)
def test_sums_of_gaussians_equal_the_reference(device):
    means, scales, quaternions, _, colors = cloud_of(30, device)
    x = 1.2 * drawn(150, 3, seed=5).to(device) - 0.6
    factors = covariance_factors(scales, quaternions)
    assert_near(*(gaussian_sum(x, means, factors, colors, b) for b in BACKENDS))
    for points, n in ((0, 30), (5, 0)):
        sums, gradients = gaussian_sum(x[:points], means[:n], factors[:n], colors[:n], "triton")
        assert sums.shape == (points, 3)
        assert not sums.any()
        assert not gradients.any()


# ---------------------------------------------------------------- without a GPU


@pytest.mark.parametrize(
    ("words", "architectures"),
    [(["--quick"], {89, 90, 100}), pytest.param([], {80, 86, 89, 90, 100}, marks=pytest.mark.slow)],
)
def test_kernels_compile_without_spilling(words, architectures):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parents[2] / "benchmarks" / "triton_kernels.py"
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["arch"] for row in rows} == architectures
    assert all(row["spilled_bytes"] == 0 and row["registers"] <= 128 for row in rows if row["kernel"][:3] != "mlp")
    # Layers of 64 in registers; 99 KiB is what a block may have on 8.6 and 8.9.
    assert all(row["spilled_bytes"] <= 128 and row["shared_bytes"] <= 99 << 10 for row in rows)
    modules = (Path(__file__).parents[2] / "zero123s" / "ops").glob("*/triton.py")
    launched = {
        f"{path.parent.name}{name.split(',')[0]}" for path in modules for name in path.read_text().split("launch(")[1:]
    }
    assert launched == {row["kernel"] for row in rows}, "every kernel that is launched is compiled here"
