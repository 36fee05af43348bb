"""Whether the Triton kernels blend on this machine as plain torch does, tried once per device."""

import functools

import torch
from torch import Tensor

from zero123s.ops.agreement import results_agree
from zero123s.ops.gaussian_splatting import reference, triton
from zero123s.ops.gaussian_splatting.projection import project_gaussians

HEIGHT, WIDTH, N_GAUSSIANS = 20, 28, 60
"""Several tiles, some of them cut by the frame, with lists longer than the kernel reads without looking at the light."""


@functools.cache
def kernels_agree(device: torch.device) -> bool:
    """Compare image, opacity and all gradients of random Gaussians in two views, once per process and device.

    Args:
        device: where the kernels run.

    Returns:
        True where they agree; otherwise, or where they cannot be compiled, False after one warning.
    """
    name = "The kernels that splat Gaussians are"
    return results_agree(name, device, lambda: _results(triton, device), lambda: _results(reference, device), 1e-3)


def _results(backend, device: torch.device) -> dict[str, Tensor]:
    """Return what a module's `blend` makes of the Gaussians."""
    g = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g).to(device)

    means, scales, quaternions = drawn(N_GAUSSIANS, 3) - 0.5, 0.02 + 0.1 * drawn(N_GAUSSIANS, 3), drawn(N_GAUSSIANS, 4)
    opacities, values = (1.2 * drawn(N_GAUSSIANS)).clamp_max(1), drawn(2, N_GAUSSIANS, 4)
    centers = torch.tensor([[0.0, 0.0, -4.0], [0.2, 0.1, -3.0]], device=device)
    matrix = torch.tensor([[80.0, 0.0, 0.5 * WIDTH], [0.0, 80.0, 0.5 * HEIGHT], [0.0, 0.0, 1.0]], device=device)
    leaves = [t.requires_grad_() for t in (means, scales, quaternions, opacities, values)]
    cameras = centers, matrix.expand(2, 3, 3)
    screen = project_gaussians(means, scales, quaternions, opacities, *cameras, HEIGHT, WIDTH)
    image, covered = backend.blend(screen, opacities, values, HEIGHT, WIDTH)
    gradients = torch.autograd.grad((image.cos() * image).sum() + covered.square().sum(), leaves)
    names = (f"the gradient of the {n}" for n in ("means", "scales", "quaternions", "opacities", "values"))
    return {"the image": image, "the opacity": covered, **dict(zip(names, gradients, strict=True))}
