"""Visibility in plain torch: every face tested at the pixel centres of its bounding box. Runs on every device."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_TESTS = 1 << 22
"""Tests of a face at a pixel that are held in memory at once, unless one face alone needs more."""


def visible_faces(
    screen: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], height: int, width: int
) -> Int[Tensor, "H W"]:
    """Return the nearest face per pixel of one view; see `zero123s.ops.rasterization.visible_faces`.

    Args:
        screen: V 3, vertices in screen coordinates.
        faces: F 3, vertex numbers.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        H W, face numbers, -1 for none.
    """
    corners = screen.double()[faces]  # as the numba backend: at an edge rounding decides which face is visible
    size = torch.tensor([width, height], device=screen.device)
    low = (corners[..., :2].amin(1) - 0.5).ceil().clamp_min(0).minimum(size).long()
    high = (corners[..., :2].amax(1) - 0.5).floor().clamp_min(-1).minimum(size - 1).long()
    span = (high - low + 1).clamp_min(0)
    tests = span.prod(-1) * (corners[..., 2] > 0).all(-1)
    depth = torch.full((height * width,), torch.inf, dtype=torch.float64, device=screen.device)
    face_id = torch.full((height * width,), len(faces), device=screen.device)
    groups = tests.cumsum(0) // MAX_TESTS
    for group in groups[tests > 0].unique().tolist():
        chosen = ((groups == group) & (tests > 0)).nonzero()[:, 0]
        face = chosen.repeat_interleave(tests[chosen])
        first = tests[chosen].cumsum(0) - tests[chosen]
        offset = torch.arange(len(face), device=screen.device) - first.repeat_interleave(tests[chosen])
        x, y = low[face, 0] + offset % span[face, 0], low[face, 1] + offset // span[face, 0]
        z, hit = _test(corners[face], x + 0.5, y + 0.5)
        face, z, pixel = face[hit], z[hit], (y * width + x)[hit]
        nearest = depth.scatter_reduce(0, pixel, z, "amin")
        face_id = torch.where(nearest < depth, len(faces), face_id)
        best = z == nearest[pixel]
        face_id = face_id.scatter_reduce(0, pixel[best], face[best], "amin")
        depth = nearest
    return torch.where(face_id == len(faces), -1, face_id).reshape(height, width)


def _test(corners: Tensor, px: Tensor, py: Tensor) -> tuple[Tensor, Tensor]:
    """Return the depth of faces, K 3 3, at pixel centres, and whether they cover them."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (c.unbind(-1) for c in corners.unbind(1))
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    wa = ((bx - px) * (cy - py) - (cx - px) * (by - py)) / area
    wb = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) / area
    wc = 1.0 - wa - wb
    z = 1.0 / (wa / az + wb / bz + wc / cz)
    return z, (area != 0) & (wa >= -1e-9) & (wb >= -1e-9) & (wc >= -1e-9)
