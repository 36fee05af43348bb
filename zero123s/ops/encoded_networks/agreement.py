"""Whether the kernel that adds both table gradients does so on this machine as two do, tried once per device."""

import functools

import torch
from torch import Tensor

from zero123s.ops import agreement
from zero123s.ops.hash_grid import HashGrid, kernels_of

GRID = HashGrid(n_levels=4, log2_hashmap_size=12, base_resolution=8, per_level_scale=2.0)


@functools.cache
def table_gradients_agree(device: torch.device, n_features: int) -> bool:
    """Compare the sum of both table gradients, by one kernel, with that of the encoding's and the normals', one by one.

    Args:
        device: where the kernels run.
        n_features: of the table's rows.

    Returns:
        True where they agree; otherwise, or where they cannot be compiled, False after one warning.
    """
    g, n = torch.Generator().manual_seed(0), agreement.POINTS
    rows = len(GRID.levels) * n_features
    x, along, factor, by_value, grad = (
        torch.rand(*shape, generator=g).to(device) for shape in ((3, n), (3, n), (n // 2,), (rows, n), (rows, n // 2))
    )

    def together() -> dict[str, Tensor]:
        table = x.new_zeros(GRID.n_rows, n_features)
        kernels_of("triton").add_all_to_table(x, along, factor, by_value, grad, GRID.levels, table)
        return {"the gradient": table}

    def apart() -> dict[str, Tensor]:
        kernels, table, valued = kernels_of("triton"), x.new_zeros(GRID.n_rows, n_features), n // 2
        of_values = factor * by_value[:, :valued] + grad
        kernels.add_to_table(x[:, :valued].contiguous(), None, of_values.contiguous(), GRID.levels, table)
        kernels.add_to_table(x, along, by_value, GRID.levels, table)
        return {"the gradient": table}

    return agreement.results_agree("The kernel of both table gradients is", device, together, apart, 1e-3)
