"""The visual hull of the input images: what lies outside it would be visible in front of the background."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.errors import MeshError
from zero123s.images.image_metrics import mask_iou
from zero123s.ops.cameras import project
from zero123s.ops.rasterization.software import view_fragments
from zero123s.structures import Mesh, ReferenceView

FreeSpaceFunction = Callable[[Float[Tensor, "N 3"]], Bool[Tensor, "N"]]
"""Function that marks the world points known to be empty."""


def outside_visual_hull(reference: ReferenceView | None) -> FreeSpaceFunction | None:
    """Return a function that marks the points outside the visual hull, which project onto the image's background.

    The outline is where the interpolated mask crosses one half, as sharp as the image, which may be finer than the
    resolution that the field was trained at. Points outside the frame are not marked.

    Args:
        reference: the input image; None or several (their poses need not agree) give None.

    Returns:
        N 3 -> N, or None.
    """
    if reference is None or len(reference.cameras) != 1:
        return None
    view = reference.to("cpu")

    def is_free(x: Float[Tensor, "N 3"]) -> Bool[Tensor, "N"]:
        in_frame, alpha = _mask_at(view, x.detach().cpu().float())
        return (in_frame & (alpha < 0.5)).to(x.device)

    return is_free


def _mask_at(view: ReferenceView, x: Float[Tensor, "N 3"]) -> tuple[Bool[Tensor, "N"], Float[Tensor, "N"]]:
    """Return which points lie in an image's frame, and its mask at those."""
    camera, mask = view.cameras, view.mask.permute(0, 3, 1, 2).float()
    column, row, depth = project(x, camera)[0].unbind(-1)
    at = torch.stack([2 * column / camera.width - 1, 2 * row / camera.height - 1], dim=-1)
    alpha = F.grid_sample(mask, at[None, None], padding_mode="border", align_corners=False)[0, 0, 0]
    return (at.abs() <= 1).all(-1) & (depth > 0), alpha


def silhouette_agreement(mesh: Mesh, reference: ReferenceView, n_views: int) -> float:
    """Compare the mesh's silhouette with the given images' masks.

    Args:
        mesh: the mesh.
        reference: posed images.
        n_views: at most this many of them are compared, evenly chosen.

    Returns:
        Mean intersection over union.
    """
    total = len(reference.cameras)
    ious = []
    for i in np.unique(np.linspace(0, total - 1, min(n_views, total)).round().astype(int)).tolist():
        hit = view_fragments(mesh, reference.cameras.select(slice(i, i + 1))).hit
        ious.append(mask_iou(hit, reference.mask[i, ..., 0].cpu().numpy()))
    return float(np.mean(ious))


@torch.no_grad()
def hull_surface(
    reference: ReferenceView, bound: float, n: int, generator: torch.Generator, resolution: int = 96
) -> Float[Tensor, "n 3"]:
    """Sample points near the surface of the visual hull, where at least half of the images have them in frame.

    Args:
        reference: posed images.
        bound: half edge of the cube that is carved.
        n: number of points, drawn from the cells at the hull's surface.
        generator: source of the random numbers.
        resolution: cells per edge.

    Returns:
        n 3, within half a cell of a cell at the surface.

    Raises:
        MeshError: the images have no point in common that could belong to the object.
    """
    axis = (torch.arange(resolution) + 0.5) * (2 * bound / resolution) - bound
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    kept, shown = torch.arange(len(centers)), torch.zeros(len(centers))
    n_views = len(reference.cameras)
    for i in range(n_views):
        one = slice(i, i + 1)
        view = ReferenceView(reference.cameras.select(one), reference.rgb[one], reference.mask[one])
        in_frame, alpha = _mask_at(view, centers[kept])
        shown[kept] += in_frame
        kept = kept[~in_frame | (alpha >= 0.5)]
    kept = kept[shown[kept] >= n_views / 2]
    if len(kept) == 0:
        raise MeshError("No point of the scene's cube lies within the object in every image: check masks and poses.")
    inside = torch.zeros(resolution**3, dtype=torch.bool)
    inside[kept] = True
    padded = F.pad(inside.view(1, 1, *(3 * (resolution,))).float(), (1,) * 6)
    deep = -F.max_pool3d(-padded, 3, stride=1)  # 1 where all neighbours are inside
    shell = (inside & (deep.reshape(-1) == 0)).nonzero()[:, 0]
    drawn = shell[torch.randint(len(shell), (n,), generator=generator)]
    return centers[drawn] + (torch.rand(n, 3, generator=generator) - 0.5) * (2 * bound / resolution)
