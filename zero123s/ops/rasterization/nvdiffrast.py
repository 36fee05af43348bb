"""Visibility by nvdiffrast's rasteriser on CUDA (Laine et al. 2020)."""

import functools

import nvdiffrast.torch as dr
import torch
from jaxtyping import Float, Int
from torch import Tensor


@functools.cache
def _context(device: int) -> dr.RasterizeCudaContext:
    return dr.RasterizeCudaContext(device=f"cuda:{device}")


def visible_faces(
    screen: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], height: int, width: int
) -> Int[Tensor, "H W"]:
    """Return the nearest face per pixel of one view; see `zero123s.ops.rasterization.visible_faces`."""
    # As the other backends: a face with a corner at or behind the camera is left out, not clipped.
    kept = (screen[faces][..., 2] > 0).all(-1).nonzero()[:, 0]
    if len(kept) == 0:
        return torch.full((height, width), -1, device=screen.device)
    depth = screen[:, 2]
    kept_depth = depth[faces[kept]]
    near, far = 0.5 * kept_depth.min(), 2 * kept_depth.max()
    # Row 0 is at y = -1, as in its images; depth grows from -1 to 1 and is linear in 1 / depth.
    clip = torch.stack(
        [
            (2 * screen[:, 0] / width - 1) * depth,
            (2 * screen[:, 1] / height - 1) * depth,
            (depth * (far + near) - 2 * far * near) / (far - near),
            depth,
        ],
        dim=-1,
    )
    context = _context(screen.device.index or 0)
    found, _ = dr.rasterize(context, clip[None].float().contiguous(), faces[kept].int().contiguous(), [height, width])
    number = found[0, ..., 3].long() - 1  # 0 means nothing
    return torch.where(number < 0, -1, kept[number.clamp_min(0)])
