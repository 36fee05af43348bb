"""Splatting of 3D Gaussians: projection to the screen, and blending front to back (Kerbl et al. 2023).

Projection is plain torch on every device; blending has a backend per device. Depth, normals or any other per-Gaussian
quantity is blended as one more column of the values.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.gaussian_splatting import reference
from zero123s.ops.gaussian_splatting.projection import (
    ScreenGaussians,
    covariance_factors,
    project_gaussians,
    rotation_matrices,
)

__all__ = ["ScreenGaussians", "blend", "covariance_factors", "project_gaussians", "rotation_matrices"]


def blend(
    gaussians: ScreenGaussians,
    opacities: Float[Tensor, "N"],
    values: Float[Tensor, "B N C"],
    height: int,
    width: int,
    backend: str = "auto",
) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W 1"]]:
    """Blend Gaussians front to back: sum_i v_i a_i prod_{j<i} (1 - a_j), with a_i = o_i exp(-q_i / 2).

    A Gaussian adds nothing where its opacity is below 1/255, at most 0.99 anywhere, and nothing behind where less than
    1e-4 of the light is left (Kerbl et al. 2023, eq. 3). Differentiable in means, conics, opacities and values.

    Args:
        gaussians: N Gaussians in B views, as `project_gaussians` returns them.
        opacities: N, in [0, 1].
        values: B N C, what is blended, per view: colour, depth, normal.
        height: of the images, in pixels.
        width: of the images, in pixels.
        backend: "auto", "reference", "numba" (CPU), "triton" or "gsplat" (CUDA).

    Returns:
        The blended values over black, B H W C, and the opacity of every pixel, B H W 1.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.cameras import generate_rays, orbit_cameras
        >>> from zero123s.ops.gaussian_splatting import blend, project_gaussians
        >>> from zero123s.ops.rasterization import pinhole
        >>> centers, matrices = pinhole(generate_rays(orbit_cameras(0.0, 0.0, height=32, width=32)))
        >>> means, scales = torch.zeros(1, 3), torch.full((1, 3), 0.1)
        >>> quaternions, opacities = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0.9])
        >>> projected = project_gaussians(means, scales, quaternions, opacities, centers, matrices, 32, 32)
        >>> image, opacity = blend(projected, opacities, torch.ones(1, 1, 3), 32, 32)
        >>> image.shape, round(float(opacity.max()), 2)
        (torch.Size([1, 32, 32, 3]), 0.86)
    """
    device = opacities.device
    if len(values) == 0:
        return values.new_zeros(0, height, width, values.shape[-1]), values.new_zeros(0, height, width, 1)
    if backend == "auto" and opacities.dtype != torch.float32:
        backend = "reference"  # the kernels are written for float32
    chosen = backends.resolve("gaussian_splatting", backend, device)
    if chosen == "triton" and backend == "auto":
        from zero123s.ops.gaussian_splatting.agreement import kernels_agree

        chosen = chosen if kernels_agree(device) else "reference"
    if chosen == "numba":
        from zero123s.ops.gaussian_splatting.numba import blend as run
    elif chosen == "triton":
        from zero123s.ops.gaussian_splatting.triton import blend as run
    elif chosen == "gsplat":
        from zero123s.ops.gaussian_splatting.gsplat import blend as run
    else:
        run = reference.blend
    return run(gaussians, opacities, values, height, width)
