"""The vendors' CUDA backends against the plain-torch references on a GPU, and their wiring against stand-ins on the CPU."""

import contextlib
import importlib
import sys
import types

import pytest
import torch
from torch import nn

from zero123s.errors import MissingDependencyError
from zero123s.ops import backends, compositing, hash_grid
from zero123s.ops.compositing import reference as compositing_reference
from zero123s.ops.hash_grid import HashGrid
from zero123s.ops.hash_grid import reference as hash_reference
from zero123s.ops.ray_marching import Samples, march, pack_info
from zero123s.ops.ray_marching import reference as march_reference

GRID = HashGrid(n_levels=4, log2_hashmap_size=10, base_resolution=4)


def random_field(device="cpu", n=100):
    g = torch.Generator().manual_seed(0)
    table = torch.randn(GRID.n_rows, 2, generator=g).to(device).requires_grad_()
    return torch.rand(n, 3, generator=g).to(device).requires_grad_(), table


def random_rays(device="cpu", n=64):
    g = torch.Generator().manual_seed(0)
    rays_d = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    rays_o = -2 * rays_d + 0.3 * torch.randn(n, 3, generator=g)
    binaries = torch.rand(8, 8, 8, generator=g) < 0.4
    aabb, jitter = torch.tensor([-1.0, -1, -1, 1, 1, 1]), torch.rand(n, generator=g)
    return [t.to(device) for t in (rays_o, rays_d, aabb, binaries, jitter)]


def random_samples(device="cpu", n_rays=20):
    g = torch.Generator().manual_seed(0)
    rays = torch.randint(n_rays, (150,), generator=g).sort().values
    t_starts = torch.rand(150, generator=g)
    tensors = [torch.rand(150, generator=g), t_starts, t_starts + 0.1, pack_info(rays, n_rays)]
    return [t.to(device) for t in (*tensors, torch.rand(150, 3, generator=g))]


# ---------------------------------------------------------------- wiring, on the CPU


class StandInEncoding(nn.Module):
    """tinycudann.Encoding as far as it is used: flat parameters, positions in, features out."""

    extra = 0

    def __init__(self, n_input_dims, encoding_config, dtype):
        super().__init__()
        assert (n_input_dims, encoding_config.pop("otype"), dtype) == (3, "HashGrid", torch.float32)
        self.grid = HashGrid(**encoding_config)
        self.params = nn.Parameter(torch.zeros(self.grid.n_params + self.extra))

    def forward(self, x):
        return hash_reference.encode(x, self.params.view(-1, self.grid.n_features_per_level), self.grid.levels)


@pytest.fixture
def tcnn(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", types.SimpleNamespace(Encoding=StandInEncoding))
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    monkeypatch.delitem(sys.modules, "zero123s.ops.hash_grid.tcnn", raising=False)
    yield importlib.import_module("zero123s.ops.hash_grid.tcnn")
    sys.modules.pop("zero123s.ops.hash_grid.tcnn", None)


def test_tiny_cuda_nn_reads_and_trains_our_table(tcnn):
    x, table = random_field()
    out = tcnn.encode(x, table, GRID.sizes)
    expected = hash_reference.encode(x, table, GRID.levels)
    torch.testing.assert_close(out, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), (x, table)) for y in (out, expected))
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn(100, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        tcnn.position_gradient(x, table, grad, GRID.sizes),
        hash_reference.position_gradient(x, table, grad, GRID.levels),
    )
    empty = tcnn.encode(x[:0], table, GRID.sizes)
    assert empty.shape == (0, 8)
    assert torch.autograd.grad(empty.sum(), table)[0].abs().sum() == 0


def test_another_tiny_cuda_nn_layout_is_an_error(tcnn, monkeypatch):
    monkeypatch.setattr(StandInEncoding, "extra", 8)
    x, table = random_field()
    with pytest.raises(MissingDependencyError, match="parameters instead of"):
        tcnn.encode(x, table, GRID.sizes)


@pytest.fixture
def nerfacc(monkeypatch):
    """Stand-ins with nerfacc 0.5.3's signatures, made of our references."""

    def traverse_grids(rays_o, rays_d, binaries, aabbs, near_planes, far_planes, step_size, cone_angle):
        assert (binaries.dim(), aabbs.dim(), cone_angle) == (4, 2, 0.0)
        far = float(far_planes[0])
        rays, starts = march_reference.march(rays_o, rays_d, aabbs[0], binaries[0], step_size, near_planes, far)
        vals = torch.stack([starts, starts + step_size], dim=1).flatten()
        is_left = torch.tensor([True, False]).repeat(len(starts))
        return types.SimpleNamespace(vals=vals, is_left=is_left), types.SimpleNamespace(ray_indices=rays), None

    def from_density(t_starts, t_ends, sigmas, packed_info=None):
        return compositing_reference.from_density(sigmas * (t_ends - t_starts), packed_info)

    def along_rays(weights, values=None, ray_indices=None, n_rays=None):
        assert values is None or values.dim() == 2
        source = weights[:, None] if values is None else weights[:, None] * values
        return torch.zeros(n_rays, source.shape[-1]).index_add(0, ray_indices, source)

    volrend = types.SimpleNamespace(
        accumulate_along_rays=along_rays,
        render_transmittance_from_alpha=lambda alphas, packed_info=None: compositing_reference.from_alpha(
            alphas, packed_info
        ),
        render_transmittance_from_density=from_density,
    )
    monkeypatch.setitem(sys.modules, "nerfacc", types.ModuleType("nerfacc"))
    monkeypatch.setitem(sys.modules, "nerfacc.grid", types.SimpleNamespace(traverse_grids=traverse_grids))
    monkeypatch.setitem(sys.modules, "nerfacc.volrend", volrend)
    names = ("zero123s.ops.ray_marching.nerfacc", "zero123s.ops.compositing.nerfacc")
    yield [importlib.import_module(name) for name in names]
    for name in names:
        sys.modules.pop(name, None)


def test_nerfacc_is_called_as_the_references_are(nerfacc):
    marching, compositing_by_nerfacc = nerfacc
    rays_o, rays_d, aabb, binaries, jitter = random_rays()
    arguments = (rays_o, rays_d, aabb, binaries, 0.05, 0.05 * jitter, 1e10)
    for ours, theirs in zip(marching.march(*arguments), march_reference.march(*arguments), strict=True):
        assert torch.equal(ours, theirs)
    a, t_starts, t_ends, packed_info, values = random_samples()
    rest = (t_starts, t_ends, packed_info, values, 0.2)
    torch.testing.assert_close(
        compositing_by_nerfacc.composite(8 * a, *rest),
        compositing.composite(8 * a, *rest, backend="reference"),
    )
    torch.testing.assert_close(
        compositing_by_nerfacc.composite_alpha(a, *rest),
        compositing.composite_alpha(a, *rest, backend="reference"),
    )


@pytest.mark.parametrize(("op", "package"), backends.VENDORS.items())
def test_a_vendors_backend_needs_its_device_and_package(op, package, monkeypatch):
    for name in (package, "cuda"):  # "cuda" is the older word
        with pytest.raises(MissingDependencyError, match=f"'{package}' of {op} cannot be used: it needs a CUDA device"):
            backends.resolve(op, name, "cpu")
    monkeypatch.setattr(backends, "_why_not", lambda package: None)
    assert backends.resolve(op, "cuda", "cuda") == package


def test_a_broken_package_costs_one_sentence(monkeypatch):
    backends._why_not.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"it is not installed; see docs/install.md"):
        backends.resolve("hash_grid", "tinycudann", "cuda")
    backends._why_not.cache_clear()
    built = []

    def build(name):
        built.append(name)
        raise OSError("no libcuda\nand 300 lines of a compiler")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(importlib, "import_module", build)
    for _ in range(2):
        with pytest.raises(MissingDependencyError, match=r"cannot be used: no libcuda; see docs/install.md"):
            backends.resolve("hash_grid", "tinycudann", "cuda")
    assert built == ["tinycudann"], "tried once per process"
    monkeypatch.setattr(importlib, "import_module", lambda name: types.SimpleNamespace(_C=None))
    assert backends._why_not("nerfacc") == "its CUDA kernels are not built"
    backends._why_not.cache_clear()


def test_auto_on_cuda_is_triton(monkeypatch, caplog):
    monkeypatch.setattr(backends, "_why_not", lambda package: pytest.fail("looked for a vendor's library"))
    monkeypatch.setattr(backends, "_triton_works", lambda: True)
    found = {op: backends.resolve(op, "auto", "cuda") for op in backends.IMPLEMENTED}
    assert {op for op, backend in found.items() if backend == "triton"} == {
        *backends.VENDORS,
        "mlp",
        "gaussian_sum",
        "group_norm",
        "unit_vectors",
    }
    monkeypatch.undo()
    backends._triton_works.cache_clear()
    assert {backends.resolve(op, "auto", "cuda") for op in backends.IMPLEMENTED} == {"reference"}
    assert caplog.text.count("Triton cannot be used") == 1
    assert "docs/install.md" in caplog.text
    backends._triton_works.cache_clear()


# ---------------------------------------------------------------- the kernels themselves


@pytest.mark.gpu
def test_tiny_cuda_nn_equals_the_reference():
    pytest.importorskip("tinycudann", reason="tiny-cuda-nn is not installed")
    x, table = random_field("cuda", 1000)
    ours = hash_grid.encode(x, table, GRID, backend="tinycudann")
    theirs = hash_grid.encode(x, table, GRID, backend="reference")
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), (x, table)) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
def test_tiny_cuda_nn_differentiates_positions_twice():
    pytest.importorskip("tinycudann", reason="tiny-cuda-nn is not installed")
    x, table = random_field("cuda", 1000)
    grad = torch.randn(1000, 8, device="cuda")
    results = [hash_grid.position_gradient(x, table, grad, GRID, backend=b) for b in ("tinycudann", "reference")]
    torch.testing.assert_close(*results, atol=1e-3, rtol=1e-3)
    gradients = [torch.autograd.grad(r.square().sum(), table)[0] for r in results]
    torch.testing.assert_close(*gradients, atol=1e-2, rtol=1e-3)


@pytest.mark.gpu
def test_nerfacc_marches_and_composites_as_the_references():
    pytest.importorskip("nerfacc", reason="nerfacc is not installed: pip install -e '.[cuda]'")
    rays_o, rays_d, aabb, binaries, jitter = random_rays("cuda")
    found: list[Samples] = [
        march(rays_o, rays_d, aabb, binaries, 0.05, jitter=jitter, backend=b) for b in ("nerfacc", "reference")
    ]
    assert torch.equal(found[0].ray_indices, found[1].ray_indices)
    torch.testing.assert_close(found[0].t_starts, found[1].t_starts, atol=1e-5, rtol=0)
    a, *rest = random_samples("cuda")
    for function, opacity in ((compositing.composite, 8 * a), (compositing.composite_alpha, a)):
        inputs = opacity.detach().requires_grad_()
        outs = [function(inputs, *rest, backend=b) for b in ("nerfacc", "reference")]
        torch.testing.assert_close(*outs, atol=1e-5, rtol=1e-4)
        gradients = [torch.autograd.grad(out[3].square().sum(), inputs)[0] for out in outs]
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)
