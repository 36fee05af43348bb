"""The hash encoding: layout, gradients of the reference, kernels against the reference."""

import pytest
import torch

from zero123s.ops.hash_grid import HashGrid, encode, position_gradient

SMALL = HashGrid(n_levels=4, log2_hashmap_size=12, base_resolution=4)


def test_the_default_layout_is_tiny_cuda_nns():
    grid = HashGrid()
    assert grid.n_rows == 6299960
    assert grid.offsets[:3] == (0, 16**3, 16**3 + 24**3)
    assert [level.hashed for level in grid.levels] == [False] * 5 + [True] * 11


def test_a_cell_centre_averages_its_corners():
    grid = HashGrid(n_levels=1, base_resolution=4, n_features_per_level=1)
    table = torch.arange(64.0)[:, None]
    # scale 3: x = 1/3 is position 1.5, the middle between grid points 1 and 2
    y = encode(torch.full((1, 3), 1 / 3), table, grid, backend="reference")
    assert y.item() == pytest.approx(1.5 * (1 + 4 + 16), rel=1e-5)


def test_the_reference_is_twice_differentiable():
    g = torch.Generator().manual_seed(0)
    table = torch.randn(SMALL.n_rows, 2, generator=g, dtype=torch.float64)
    x = torch.rand(2, 3, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: encode(x, table, SMALL), (x,))
    assert torch.autograd.gradgradcheck(lambda x: encode(x, table, SMALL), (x,))


@pytest.mark.parametrize("n_features", [1, 2, 4])
def test_the_table_gradient_of_the_reference(n_features):
    grid = HashGrid(n_levels=2, n_features_per_level=n_features, log2_hashmap_size=4, base_resolution=2)
    g = torch.Generator().manual_seed(0)
    table = torch.randn(grid.n_rows, n_features, generator=g, dtype=torch.float64, requires_grad=True)
    x = torch.rand(3, 3, generator=g, dtype=torch.float64)
    v = torch.randn(3, grid.n_output_dims, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: encode(x, t, grid), (table,))
    assert torch.autograd.gradcheck(lambda t, v: position_gradient(x, t, v, grid), (table, v))


def _points(kind: str, count: int = 3000) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    count = {"empty": 0, "one": 1}.get(kind, count)
    x = torch.rand(count, 3, generator=g)
    if kind == "outside":
        x = x * 4 - 2
    if kind == "rays":
        x = (x[::100, None] * 0.3 + torch.linspace(0, 0.6, 100)[None, :, None]).reshape(-1, 3)
    return x.requires_grad_()


def _table(grid: HashGrid = SMALL) -> torch.Tensor:
    g = torch.Generator().manual_seed(2)
    return torch.randn(grid.n_rows, grid.n_features_per_level, generator=g).requires_grad_()


def _derivatives(x: torch.Tensor, backend: str, grid: HashGrid = SMALL) -> list[torch.Tensor]:
    table = _table(grid)
    y = encode(x, table, grid, backend=backend)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    second = torch.autograd.grad(first.square().sum(), (table, x), retain_graph=True)
    v = y.detach().cos().requires_grad_()
    chained = position_gradient(x, table, v, grid, backend=backend)
    normals = torch.autograd.grad(chained.square().sum(), (table, v))
    return [y, first, *second, *torch.autograd.grad(y.square().sum(), table), chained, *normals]


def _assert_equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for one, other in zip(a, b, strict=True):
        scale = other.abs().max().item() if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(scale, 1e-3))


@pytest.mark.parametrize("kind", ["random", "rays", "outside", "empty", "one"])
def test_kernels_equal_the_reference(kind):
    x = _points(kind)
    _assert_equal(_derivatives(x, "numba"), _derivatives(x, "reference"))


def test_kernels_handle_any_even_number_of_features():
    four, one = (HashGrid(3, n, log2_hashmap_size=8, base_resolution=4) for n in (4, 1))
    x = _points("random", 500)
    _assert_equal(_derivatives(x, "numba", four), _derivatives(x, "reference", four))
    assert torch.equal(encode(x, _table(one), one), encode(x, _table(one), one, backend="reference"))


def test_threads_change_nothing():
    x, before, results = _points("rays"), torch.get_num_threads(), []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            results.append(_derivatives(x, "numba"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_kept_buffer_gets_the_same_table_gradient():
    x, table, buffer = _points("random").detach(), _table(), torch.zeros(SMALL.n_rows, 2)
    y = encode(x, table, SMALL, "numba", lambda: buffer)
    normal = position_gradient(x, table, y, SMALL, "numba", lambda: buffer)
    (y.sum() + normal.square().sum()).backward()
    assert table.grad is None
    y = encode(x, table, SMALL, "reference")
    (y.sum() + position_gradient(x, table, y, SMALL, "reference").square().sum()).backward()
    _assert_equal([buffer], [table.grad])


@pytest.mark.slow
def test_ten_million_points():
    x = torch.rand(10_000_000, 3, generator=torch.Generator().manual_seed(0))
    y = encode(x, _table(), SMALL, backend="numba")
    some = slice(None, None, 1001)
    torch.testing.assert_close(y[some], encode(x[some], _table(), SMALL, backend="reference"), rtol=0, atol=1e-5)
