"""Visibility on CUDA in Triton: one program per face tests the pixels of its bounding box, in double precision.

First every pixel finds its least depth, then the lowest of the faces that have it: the reference's answer, whatever
the order of programs.
"""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops.gpu_kernels import launch

_PIXELS = 128
"""Pixels of a face that are tested together."""


@triton.jit
def _edge(ax, ay, bx, by, px, py):
    """Return twice the signed area of a triangle."""
    return (ax - px) * (by - py) - (bx - px) * (ay - py)


@triton.jit(do_not_specialize=["height", "width"])
def _nearest(corners, depth, face_id, height, width, CHOOSE: tl.constexpr, PIXELS: tl.constexpr):
    """Lower the depth of the pixels that a face covers or, then, the number of the face that has this depth.

    `depth` holds bits of positive doubles, which are ordered as the numbers are.
    """
    face, k = tl.program_id(0), tl.arange(0, PIXELS)
    at = corners + 9 * face.to(tl.int64)
    ax, ay, az = tl.load(at), tl.load(at + 1), tl.load(at + 2)
    bx, by, bz = tl.load(at + 3), tl.load(at + 4), tl.load(at + 5)
    cx, cy, cz = tl.load(at + 6), tl.load(at + 7), tl.load(at + 8)
    # Clamped before the conversion: the corners of a face may lie beyond any integer.
    x0 = tl.minimum(tl.maximum(tl.ceil(tl.minimum(tl.minimum(ax, bx), cx) - 0.5), 0.0), 1.0 * width).to(tl.int32)
    y0 = tl.minimum(tl.maximum(tl.ceil(tl.minimum(tl.minimum(ay, by), cy) - 0.5), 0.0), 1.0 * height).to(tl.int32)
    x1 = tl.maximum(tl.minimum(tl.floor(tl.maximum(tl.maximum(ax, bx), cx) - 0.5), width - 1.0), -1.0).to(tl.int32)
    y1 = tl.maximum(tl.minimum(tl.floor(tl.maximum(tl.maximum(ay, by), cy) - 0.5), height - 1.0), -1.0).to(tl.int32)
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    span = tl.maximum(x1 - x0 + 1, 0)
    tests = tl.where((az > 0) & (bz > 0) & (cz > 0) & (area != 0), span * tl.maximum(y1 - y0 + 1, 0), 0)
    for base in range(0, tests, PIXELS):
        x, y = x0 + (base + k) % span, y0 + (base + k) // span
        px, py = x.to(tl.float64) + 0.5, y.to(tl.float64) + 0.5
        wa, wb = _edge(bx, by, cx, cy, px, py) / area, _edge(cx, cy, ax, ay, px, py) / area
        wc = 1.0 - wa - wb
        bits = (1.0 / (wa / az + wb / bz + wc / cz)).to(tl.int64, bitcast=True)
        covered = (base + k < tests) & (wa >= -1e-9) & (wb >= -1e-9) & (wc >= -1e-9)
        pixel = y.to(tl.int64) * width + x
        if CHOOSE:
            chosen = covered & (bits == tl.load(depth + pixel, mask=covered, other=0))
            tl.atomic_min(face_id + pixel, face + tl.zeros_like(k), mask=chosen, sem="relaxed")
        else:
            tl.atomic_min(depth + pixel, bits, mask=covered, sem="relaxed")


def visible_faces(
    screen: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], height: int, width: int
) -> Int[Tensor, "H W"]:
    """Return the nearest face per pixel of one view; see `zero123s.ops.rasterization.visible_faces`."""
    corners, n_faces = screen.double()[faces].contiguous(), len(faces)
    depth = torch.full((height * width,), torch.inf, dtype=torch.float64, device=screen.device).view(torch.int64)
    face_id = torch.full((height * width,), n_faces, dtype=torch.int32, device=screen.device)
    for choose in (False, True):
        launch(_nearest, (n_faces,), corners, depth, face_id, height, width, choose, _PIXELS, num_warps=4)
    return torch.where(face_id == n_faces, -1, face_id.long()).reshape(height, width)
