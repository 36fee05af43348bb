"""The algorithms that the benchmarks compare with, in plain torch."""

import torch
from torch import Tensor

from zero123s.ops.hash_grid import HashGrid

_PRIMES = torch.tensor([1, 2654435761, 805459861])


def nerfstudio_table(grid: HashGrid) -> Tensor:
    """Return a random table for `nerfstudio_encode`: every level has all rows."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(grid.n_levels * 2**grid.log2_hashmap_size, grid.n_features_per_level, generator=g)


def nerfstudio_encode(x: Tensor, table: Tensor, grid: HashGrid) -> Tensor:
    """Encode as a torch encoding of nerfstudio's kind: every level hashed, all levels at once, seven interpolations."""
    n_rows = 2**grid.log2_hashmap_size
    scales = grid.base_resolution * grid.per_level_scale ** torch.arange(grid.n_levels)
    scaled = x[:, None] * scales.floor()[:, None]
    low, high = scaled.floor().int(), scaled.ceil().int()
    fraction = scaled - low

    def gather(bits: tuple[int, int, int]) -> Tensor:
        corner = torch.stack([(high if bit else low)[..., axis] for axis, bit in enumerate(bits)], dim=-1)
        product = corner * _PRIMES
        row = (product[..., 0] ^ product[..., 1] ^ product[..., 2]) % n_rows
        return table[row + torch.arange(grid.n_levels) * n_rows]

    features = [gather((c & 1, c >> 1 & 1, c >> 2)) for c in range(8)]
    for axis in range(3):
        f = fraction[..., axis : axis + 1]
        features = [a * (1 - f) + b * f for a, b in zip(features[::2], features[1::2], strict=True)]
    return features[0].flatten(1)


def dense_march(rays_o: Tensor, rays_d: Tensor, binaries: Tensor, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """March the unit cube around the origin as a dense tensor program does: every interval of every ray is tested.

    Returns t_starts R K, their mask, and positions R K 3.
    """
    t0, t1 = (-0.5 - rays_o) / rays_d, (0.5 - rays_o) / rays_d
    enter = torch.minimum(t0, t1).amax(-1).clamp_min(0)
    leave = torch.maximum(t0, t1).amin(-1)
    n_steps = int(((leave - enter).max() / step).ceil()) + 1
    first = torch.ceil(enter / step - 0.5)
    t = (first[:, None] + torch.arange(n_steps)) * step
    middle = t + 0.5 * step
    x = rays_o[:, None] + middle[..., None] * rays_d[:, None]
    cell = ((x + 0.5) * binaries.shape[0]).long().clamp(0, binaries.shape[0] - 1)
    inside = (middle >= enter[:, None]) & (middle < leave[:, None])
    return t, inside & binaries[cell[..., 0], cell[..., 1], cell[..., 2]], x


def padded(values: Tensor, packed_info: Tensor) -> Tensor:
    """Return packed samples S ... as R K ..., zero behind each ray's last."""
    rays = torch.repeat_interleave(torch.arange(len(packed_info)), packed_info[:, 1])
    column = torch.arange(len(values)) - packed_info[rays, 0]
    out = values.new_zeros(len(packed_info), int(packed_info[:, 1].max()), *values.shape[1:])
    return out.index_put((rays, column), values)
