"""A small CPU rasteriser: triangles to pixels with depth, perspective-correct interpolation and textures.

Shapes: V vertices, F faces, H W pixels, row 0 on top, pixel centres at +0.5.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Float, Int

from zero123s.ops.cameras import project
from zero123s.structures import Cameras, Mesh


@numba.njit(cache=True)
def _fill(xyz, faces, height, width, face_id, bary, depth):  # pragma: no cover - compiled
    """Write the nearest face and its barycentric coordinates into each pixel whose centre it covers."""
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = xyz[a, 0], xyz[a, 1], xyz[b, 0], xyz[b, 1], xyz[c, 0], xyz[c, 1]
        az, bz, cz = xyz[a, 2], xyz[b, 2], xyz[c, 2]
        if az <= 0.0 or bz <= 0.0 or cz <= 0.0:
            continue
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        x0, x1 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0), min(int(np.floor(max(ax, bx, cx) - 0.5)), width - 1)
        y0, y1 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0), min(int(np.floor(max(ay, by, cy) - 0.5)), height - 1)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                wa = ((bx - px) * (cy - py) - (cx - px) * (by - py)) / area
                wb = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) / area
                wc = 1.0 - wa - wb
                if wa < -1e-9 or wb < -1e-9 or wc < -1e-9:
                    continue
                # 1/z is linear on the screen.
                inverse = wa / az + wb / bz + wc / cz
                z = 1.0 / inverse
                if z < depth[y, x]:
                    depth[y, x] = z
                    face_id[y, x] = f
                    bary[y, x, 0] = wa / az * z
                    bary[y, x, 1] = wb / bz * z
                    bary[y, x, 2] = wc / cz * z


@dataclass(frozen=True)
class Fragments:
    """The nearest face at each pixel of one view."""

    face_id: Int[np.ndarray, "H W"]
    """-1 = nothing."""
    bary: Float[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]
    """Along the viewing axis; inf = nothing."""

    @property
    def hit(self) -> np.ndarray:
        """Whether a face is visible at a pixel."""
        return self.face_id >= 0

    def interpolate(self, values: Float[np.ndarray, "V C"], faces: Int[np.ndarray, "F 3"]) -> np.ndarray:
        """Interpolate per-vertex values at the pixels with a face.

        Args:
            values: V C, one row per vertex.
            faces: F 3, vertex numbers.

        Returns:
            K C, in the row-major order of `hit`.
        """
        corners = values[faces[self.face_id[self.hit]]]
        return (corners * self.bary[self.hit][:, :, None]).sum(1)


def rasterize(xyz: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], height: int, width: int) -> Fragments:
    """Return the nearest face per pixel.

    A face with a vertex at or behind the camera is left out; both sides of a face are visible.

    Args:
        xyz: V 3, vertices in pixel coordinates (x, y) and depth along the viewing axis.
        faces: F 3, vertex numbers.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        Face, barycentric coordinates in the world and depth of every pixel.
    """
    face_id = np.full((height, width), -1, np.int64)
    bary = np.zeros((height, width, 3))
    depth = np.full((height, width), np.inf)
    _fill(
        np.ascontiguousarray(xyz, np.float64),
        np.ascontiguousarray(faces, np.int64),
        height,
        width,
        face_id,
        bary,
        depth,
    )
    return Fragments(face_id, bary, depth)


def sample_image(image: Float[np.ndarray, "H W C"], xy: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N C"]:
    """Interpolate an image bilinearly, clamped to the edge.

    Args:
        image: H W C.
        xy: N 2, pixel coordinates, centres at +0.5.

    Returns:
        N C.

    Example:
        >>> import numpy as np
        >>> from zero123s.ops.rasterization.software import sample_image
        >>> image = np.array([[[0.0], [10.0]]])
        >>> sample_image(image, np.array([[0.5, 0.5], [1.0, 0.5], [9.0, 0.5]]))[:, 0].tolist()
        [0.0, 5.0, 10.0]
    """
    h, w = image.shape[:2]
    x = np.clip(xy[:, 0] - 0.5, 0, w - 1)
    y = np.clip(xy[:, 1] - 0.5, 0, h - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def sample_texture(texture: Float[np.ndarray, "H W C"], uv: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N C"]:
    """Interpolate a texture bilinearly, clamped to the edge.

    Args:
        texture: H W C, row 0 on top.
        uv: N 2, in [0, 1], origin at the lower left.

    Returns:
        N C.
    """
    h, w = texture.shape[:2]
    return sample_image(texture, np.stack([uv[:, 0] * w, (1 - uv[:, 1]) * h], -1))


def view_fragments(mesh: Mesh, camera: Cameras) -> Fragments:
    """Rasterize a mesh in one view.

    Args:
        mesh: in world coordinates.
        camera: exactly one.

    Returns:
        The nearest face at every pixel.
    """
    assert len(camera) == 1
    vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32))
    return rasterize(project(vertices, camera.to("cpu"))[0].numpy(), mesh.faces, camera.height, camera.width)


def _shade(mesh: Mesh, fragments: Fragments, light: np.ndarray | None) -> np.ndarray:
    if mesh.texture is not None and mesh.uvs is not None:
        color = sample_texture(mesh.texture, fragments.interpolate(mesh.uvs, mesh.faces))
    elif mesh.vertex_colors is not None:
        color = fragments.interpolate(mesh.vertex_colors, mesh.faces)
    else:
        color = np.full((int(fragments.hit.sum()), 3), 0.7)
    if light is not None:
        assert mesh.normals is not None
        normal = fragments.interpolate(mesh.normals, mesh.faces)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        color = color * (0.45 + 0.55 * (normal @ light).clip(0))[:, None]
    return color


def render_mesh(mesh: Mesh, camera: Cameras, supersample: int = 2, lit: bool = False) -> Float[np.ndarray, "H W 4"]:
    """Render a mesh in one view.

    Args:
        mesh: in world coordinates, with a texture, vertex colours, or neither (grey).
        camera: exactly one.
        supersample: samples per pixel and axis; edges are antialiased by averaging.
        lit: shade with a light at the camera's upper left instead of showing the bare colours; needs normals.

    Returns:
        H W 4, RGBA in [0, 1] with straight alpha.
    """
    s = supersample
    fragments = view_fragments(mesh, camera.resized(camera.height * s, camera.width * s))
    light = None
    if lit:
        axes = camera.c2w[0, :3, :3].numpy()
        light = axes @ (np.array([-0.35, 0.5, 0.8]) / np.linalg.norm([-0.35, 0.5, 0.8]))
    premultiplied = np.zeros((camera.height * s, camera.width * s, 4))
    premultiplied[fragments.hit, :3] = _shade(mesh, fragments, light)
    premultiplied[fragments.hit, 3] = 1
    small = premultiplied.reshape(camera.height, s, camera.width, s, 4).mean((1, 3))
    small[..., :3] /= np.maximum(small[..., 3:], 1e-9)
    return small.clip(0, 1)


def on_white(rgba: Float[np.ndarray, "H W 4"]) -> Float[np.ndarray, "H W 3"]:
    """Composite an image on white.

    Args:
        rgba: H W 4, in [0, 1] with straight alpha.

    Returns:
        H W 3.

    Example:
        >>> import numpy as np
        >>> from zero123s.ops.rasterization.software import on_white
        >>> on_white(np.array([[[1.0, 0.0, 0.0, 0.5]]])).tolist()
        [[[1.0, 0.5, 0.5]]]
    """
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
