import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.ops.hash_grid import HashGrid, encode
from zero123s.ops.hash_grid.layout import PRIMES
from zero123s.ops.hash_grid.reference import corner_indices

SMALL = HashGrid(n_levels=4, log2_hashmap_size=9, base_resolution=3, per_level_scale=2.0)


def random_table(grid: HashGrid, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(grid.n_entries, grid.n_features_per_level, generator=generator, dtype=dtype)


def test_the_recipes_grid_has_the_published_number_of_parameters():
    grid = HashGrid()
    assert grid.n_params == 12_599_920
    assert sum(grid.dense) == 5
    assert (grid.resolutions[0], grid.resolutions[-1]) == (16, 4096)


def test_levels_are_aligned_and_capped():
    assert all(size % 8 == 0 for size in SMALL.sizes)
    assert max(SMALL.sizes) == 512
    assert SMALL.resolutions == (3, 6, 12, 24)
    assert SMALL.dense == (True, True, False, False)


def test_a_hashed_corner_is_the_xor_of_primes():
    cell = torch.tensor([[20, 7, 11]])
    rows = corner_indices(cell, SMALL, 3)[0]
    expected = [
        ((20 + (k & 1)) * PRIMES[0] ^ (7 + (k >> 1 & 1)) * PRIMES[1] ^ (11 + (k >> 2)) * PRIMES[2]) % 2**32 % 512
        for k in range(8)
    ]
    assert (rows - SMALL.offsets[3]).tolist() == expected


def test_grid_points_return_their_own_features():
    grid = HashGrid(n_levels=1, n_features_per_level=3, log2_hashmap_size=9, base_resolution=4)
    table = random_table(grid)
    # position = x * scale + 0.5: x = (i - 0.5) / scale lies on grid point i
    x = (torch.tensor([[1.0, 2.0, 3.0]]) - 0.5) / grid.scales[0]
    torch.testing.assert_close(encode(x, table, grid)[0], table[1 + 4 * (2 + 4 * 3)], atol=1e-5, rtol=0)


def test_trilinear_in_between():
    grid = HashGrid(n_levels=1, n_features_per_level=1, log2_hashmap_size=9, base_resolution=4)
    points = torch.cartesian_prod(*[torch.arange(4.0)] * 3)
    linear = 2 * points[:, 2] - 3 * points[:, 1] + 0.5 * points[:, 0]  # cartesian_prod: last axis fastest
    table = torch.zeros(grid.n_entries, 1)
    index = (points[:, 2] + 4 * (points[:, 1] + 4 * points[:, 0])).long()
    table[index, 0] = linear
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 0.8
    p = x * grid.scales[0] + 0.5
    expected = 2 * p[:, 0] - 3 * p[:, 1] + 0.5 * p[:, 2]
    torch.testing.assert_close(encode(x, table, grid)[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_gradients_first_and_second_order():
    # One dense and one hashed level; gradcheck perturbs every table entry, so the table is tiny.
    grid = HashGrid(n_levels=2, n_features_per_level=1, log2_hashmap_size=5, base_resolution=2, per_level_scale=3.0)
    assert grid.dense == (True, False)
    table = random_table(grid, torch.float64).requires_grad_()
    x = (0.1 + 0.8 * torch.rand(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).requires_grad_()
    f = lambda x, table: encode(x, table, grid)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x, table), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradgradcheck(f, (x, table), eps=1e-7, atol=1e-5)


def test_empty_and_outside():
    table = random_table(SMALL).requires_grad_()
    empty = encode(torch.zeros(0, 3), table, SMALL)
    assert empty.shape == (0, 8)
    empty.sum().backward()
    outside, border = torch.tensor([[-1.0, 0.5, 2.0]]), torch.tensor([[0.0, 0.5, 1.0]])
    torch.testing.assert_close(encode(outside, table, SMALL), encode(border, table, SMALL))


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="must have shape"):
        encode(torch.zeros(1, 3), torch.zeros(5, 2), SMALL)
    with pytest.raises(ConfigError, match="backend 'cuds'"):
        encode(torch.zeros(1, 3), random_table(SMALL), SMALL, backend="cuds")
    with pytest.raises(ConfigError, match="per_level_scale"):
        HashGrid(per_level_scale=0.5)
