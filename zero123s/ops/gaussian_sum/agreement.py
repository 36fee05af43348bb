"""Whether the Triton kernel sums Gaussians on this machine as plain torch does, tried once per device."""

import functools

import torch

from zero123s.ops.agreement import results_agree
from zero123s.ops.gaussian_sum import reference, triton


@functools.cache
def kernels_agree(device: torch.device) -> bool:
    """Compare sums and gradients of random Gaussians at random points, once per process and device.

    Args:
        device: where the kernel runs.

    Returns:
        True where they agree; otherwise, or where it cannot be compiled, False after one warning.
    """
    g = torch.Generator().manual_seed(0)
    x, means, values = (torch.rand(*shape, generator=g).to(device) for shape in ((300, 3), (40, 3), (40, 4)))
    factors = 20 * (torch.rand(40, 3, 3, generator=g).to(device) - 0.5)
    precisions = (factors[..., None] * factors[..., None, :]).sum(1) + 10 * torch.eye(3, device=device)
    arguments = x, means, precisions, values

    def results(backend) -> dict[str, torch.Tensor]:
        return dict(zip(("the sum", "the gradient"), backend.gaussian_sum(*arguments), strict=True))

    name = "The kernel that sums Gaussians is"
    return results_agree(name, device, lambda: results(triton), lambda: results(reference), 1e-3)
