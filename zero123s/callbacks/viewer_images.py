"""What a viewer shows, without any viewer: cameras from its poses, images of the field, and the share of time for both."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from zero123s.ops.cameras import cameras_from_matrices, generate_rays
from zero123s.structures import Cameras, ReferenceView
from zero123s.system.visualize import depth_image

KINDS = ("colour", "normal", "opacity", "depth")
BACKGROUND_DEPTH = 1000.0
"""Depth, in world units, of background pixels: behind everything else that is drawn."""
FLIP = np.diag([1.0, -1.0, -1.0])
"""Between viser's camera axes (x right, y down, z forward) and ours (x right, y up, z back)."""


def camera_at(
    wxyz: Float[np.ndarray, "4"], position: Float[np.ndarray, "3"], fovy_deg: float, aspect: float, height: int
) -> Cameras:
    """Return the camera of a viewer's pose: a quaternion with x right, y down, z forward, and a place in the world."""
    c2w = torch.eye(4, dtype=torch.float32)
    c2w[:3, :3] = torch.from_numpy(_rotation(np.asarray(wxyz, float)) @ FLIP).float()
    c2w[:3, 3] = torch.from_numpy(np.asarray(position, float)).float()
    width = max(1, round(height * float(np.clip(aspect, 0.2, 5.0))))
    return cameras_from_matrices(c2w[None], torch.tensor([float(fovy_deg)]), height, width)


def pose_of(cameras: Cameras, index: int) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "3"]]:
    """Return quaternion and position of a camera in the viewer's convention; inverse of `camera_at`."""
    c2w = cameras.c2w[index].detach().cpu().double().numpy()
    return _quaternion(c2w[:3, :3] @ FLIP), c2w[:3, 3]


@torch.no_grad()
def render_view(system: Any, camera: Cameras, kind: str) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Return an image of the field as it is, in [0, 1], and the distance of its surface along the viewing axis.

    Draws no random number and leaves the system as it was, so that training continues as without it.

    Args:
        kind: one of KINDS.
    """
    was_training = system.training
    system.eval()
    try:
        out = system.render(camera, frozenset({"normal"}) if kind == "normal" else frozenset())
        bound = system.field().bound
    finally:
        system.train(was_training)
    if kind == "normal":
        image = out.comp_normal + (1 - out.opacity)
    elif kind == "opacity":
        image = out.opacity.expand_as(out.comp_rgb)
    elif kind == "depth":
        image = depth_image(out, float(camera.distance[0]), bound)
    else:
        image = out.comp_rgb
    along = (generate_rays(camera).rays_d * -camera.c2w[:, None, None, :3, 2]).sum(-1, keepdim=True).to(out.depth)
    depth = torch.where(out.opacity > 0.5, along * out.depth / out.opacity.clamp_min(1e-3), BACKGROUND_DEPTH)
    return image[0].clamp(0, 1).float().cpu().numpy(), depth[0, ..., 0].float().cpu().numpy()


def reference_thumbnail(reference: ReferenceView, index: int, side: int = 128) -> Float[np.ndarray, "h w 3"]:
    """Return an input image over white, small."""
    mask = reference.mask[index : index + 1]
    on_white = (reference.rgb[index : index + 1] * mask + (1 - mask)).movedim(-1, 1)
    scale = min(1.0, side / max(on_white.shape[2:]))
    size = [max(1, round(n * scale)) for n in on_white.shape[2:]]
    small = torch.nn.functional.interpolate(on_white, size=size, mode="area")
    return small[0].movedim(0, -1).clamp(0, 1).cpu().numpy()


class Budget:
    """Lets something that costs time happen, but only for a share of all time.

    Args:
        share: of the time, 0 to 1.
        clock: seconds.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.share = share
        self.clock = clock
        self._free_at = clock()

    @property
    def is_free(self) -> bool:
        """Whether the share allows more by now."""
        return self.clock() >= self._free_at

    def spent(self, seconds: float) -> None:
        """Note what was used; nothing is free until the share is kept again."""
        self._free_at = self.clock() + seconds * (1 / self.share - 1)


def _rotation(wxyz: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3 3"]:
    w, x, y, z = wxyz / np.linalg.norm(wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _quaternion(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    """Return w, x, y, z of a rotation: the eigenvector of the largest eigenvalue of Bar-Itzhack's symmetric matrix."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2]],
            [r[0, 2] - r[2, 0], r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2]],
            [r[1, 0] - r[0, 1], r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1]
