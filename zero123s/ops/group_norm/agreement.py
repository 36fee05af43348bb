"""Whether the Triton kernels of group norm and SiLU compute on this machine what plain torch does, tried once per device."""

import functools

import torch

from zero123s.ops.agreement import results_agree
from zero123s.ops.group_norm import reference, triton


@functools.cache
def kernels_agree(device: torch.device, dtype: torch.dtype) -> bool:
    """Compare result and gradient for random numbers, once per process, device and dtype.

    Args:
        device: where the kernels run.
        dtype: of the numbers.

    Returns:
        True where they agree; otherwise, or where they cannot be compiled, False after one warning.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 40, 60, generator=g).to(device, dtype)
    weight, bias, shift, by_result = (
        torch.randn(*shape, generator=g).to(device, dtype) for shape in ((8,), (8,), (2, 8), x.shape)
    )

    def results(backend) -> dict[str, torch.Tensor]:
        leaf = x.clone().requires_grad_()
        y = backend.group_norm_silu(leaf, weight, bias, 4, 1e-5, shift)
        return {"the result": y, "the gradient": torch.autograd.grad(y, leaf, by_result)[0]}

    name = f"The kernels of group norm and SiLU ({str(dtype).removeprefix('torch.')}) are"
    tolerance = 1e-3 if dtype == torch.float32 else 2e-2
    return results_agree(name, device, lambda: results(triton), lambda: results(reference), tolerance)
