"""Visibility on CPUs by the compiled rasteriser that also draws the exported meshes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops.rasterization import software


def visible_faces(
    screen: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], height: int, width: int
) -> Int[Tensor, "H W"]:
    """Return the nearest face per pixel of one view; see `zero123s.ops.rasterization.visible_faces`."""
    return torch.from_numpy(software.rasterize(screen.numpy(), faces.numpy(), height, width).face_id)
