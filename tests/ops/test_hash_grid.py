"""The hash encoding: layout, gradients of the reference, kernels against the reference."""

import pytest
import torch

from zero123s.ops.hash_grid import HashGrid, encode

SMALL = HashGrid(n_levels=4, log2_hashmap_size=12, base_resolution=4)


def test_the_default_layout_is_tiny_cuda_nns():
    grid = HashGrid()
    assert grid.n_rows == 6299960
    assert grid.offsets[:3] == (0, 16**3, 16**3 + 24**3)
    assert [level.hashed for level in grid.levels] == [False] * 5 + [True] * 11


def test_the_middle_of_a_cell_is_the_mean_of_its_corners():
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


def _points(kind: str) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    count = {"empty": 0, "one": 1}.get(kind, 3000)
    x = torch.rand(count, 3, generator=g)
    if kind == "outside":
        x = x * 4 - 2
    if kind == "rays":
        x = (x[::100, None] * 0.3 + torch.linspace(0, 0.6, 100)[None, :, None]).reshape(-1, 3)
    return x.requires_grad_()


def _derivatives(x: torch.Tensor, backend: str, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    table = torch.randn(SMALL.n_rows, 2, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    y = encode(x, table, SMALL, backend=backend)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    second = torch.autograd.grad(first.square().sum(), (table, x), retain_graph=True)
    return [y, first, *second, *torch.autograd.grad(y.square().sum(), table)]


@pytest.mark.parametrize("kind", ["random", "rays", "outside", "empty", "one"])
def test_kernels_equal_the_reference(kind):
    pytest.importorskip("numba")
    x = _points(kind)
    for a, b in zip(_derivatives(x, "numba"), _derivatives(x, "reference"), strict=True):
        scale = b.abs().max().item() if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * max(scale, 1e-3))
