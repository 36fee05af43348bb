"""The silhouette of an image as a limit for a surface: what stands out of it would be seen beside the object."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.ops.cameras import project
from zero123s.structures import ReferenceView

IsFree = Callable[[Float[Tensor, "N 3"]], Bool[Tensor, "N"]]
"""Tells which world points are known to be empty."""


def outside_visual_hull(reference: ReferenceView | None) -> IsFree | None:
    """Return what tells which points one image shows beside its object: all but its visual hull.

    The outline is where the mask, interpolated, crosses one half, as sharp as the image, which may be finer than what a
    field was trained on. Nothing is known of what lies beside the frame. None where there is no image, or several,
    whose poses need not agree.
    """
    if reference is None or len(reference.cameras) != 1:
        return None
    view = reference.to("cpu")
    camera, mask = view.cameras, view.mask.permute(0, 3, 1, 2).float()

    def is_free(x: Float[Tensor, "N 3"]) -> Bool[Tensor, "N"]:
        column, row, depth = project(x.detach().cpu().float(), camera)[0].unbind(-1)
        at = torch.stack([2 * column / camera.width - 1, 2 * row / camera.height - 1], dim=-1)
        alpha = F.grid_sample(mask, at[None, None], padding_mode="border", align_corners=False)[0, 0, 0]
        in_frame = (at.abs() <= 1).all(-1) & (depth > 0)
        return (in_frame & (alpha < 0.5)).to(x.device)

    return is_free
