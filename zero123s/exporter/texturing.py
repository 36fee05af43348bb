"""The colours of an exported mesh: the field's, baked into a texture, with the input photos on top where they see it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zero123s.mesh.normal_map import bake_normal_map, vertex_tangents
from zero123s.mesh.photo import Photos, exposure_match, screened_poisson_fill
from zero123s.mesh.symmetry import SymmetricDetail
from zero123s.mesh.texture import SurfacePoints, bake
from zero123s.ops.compositing import composite
from zero123s.structures import Mesh, RadianceField, ReferenceView

COLOR_SAMPLES = 9
"""Along a ray through the surface; odd: the middle one is the point itself."""
MIN_OPACITY = 0.05
"""Of that ray, for its colour to be taken."""


@dataclass(frozen=True)
class TextureOptions:
    """How a mesh gets its colours."""

    size: int = 1024
    """Edge of the texture in texels."""
    color_depth: float = 0.0
    """See `field_colors`."""
    photo_views: int = 8
    """At most this many photos are used."""
    photo_symmetry: bool = False
    """With a single photo, add its detail to unseen sides; see `mesh.symmetry`."""


def color_mesh(
    mesh: Mesh, field: RadianceField, photos: ReferenceView | None, options: TextureOptions, stats: dict[str, Any]
) -> None:
    """Give a mesh vertex colours and, where it has texture coordinates, a texture.

    Every point has the field's colour viewed along its normal, and that of the photos where it is visible in them.

    Args:
        mesh: with normals; changed in place.
        field: the radiance field.
        photos: posed images; None = the field's colours only.
        options: texture size and sampling.
        stats: receives the shares of the vertices that a photo colours, `photo_share`, and that its detail reaches through the
            object's symmetries, `symmetry_share`.
    """
    assert mesh.normals is not None
    base = field_colors(field, mesh.vertices, -mesh.normals, options.color_depth)
    blend = None
    if photos is not None:
        blend = PhotoBlend(mesh, base, photos, options)
        stats["photo_share"] = float((blend.trust > 0.5).mean())
        if blend.detail is not None:
            stats["symmetry_share"] = blend.detail.share
        mesh.vertex_colors = blend(base, mesh.vertices, mesh.normals, lambda values: values)
    else:
        mesh.vertex_colors = base

    def color(surface: SurfacePoints) -> np.ndarray:
        colors = field_colors(field, surface.points, -surface.normals, options.color_depth)
        if blend is None:
            return colors
        return blend(colors, surface.points, surface.normals, surface.interpolate)

    if mesh.uvs is not None:
        samples = max(1, min(2, 1024 // options.size))  # fields and photos are smoother than 1024 texels
        mesh.texture = bake(mesh.vertices, mesh.normals, mesh.faces, mesh.uvs, options.size, color, samples)


class PhotoBlend:
    """Blends photos with the field's colours: the photo where it is reliable, else the field matched to its exposure.

    Args:
        mesh: with normals.
        base: the field's colours at the vertices, V 3.
        reference: the photos.
        options: how many of them are used, and whether for unseen sides as well.
    """

    REACH = 0.15
    """How far, as a share of the object's size, the photo's colours lead over into unseen parts."""

    def __init__(self, mesh: Mesh, base: np.ndarray, reference: ReferenceView, options: TextureOptions) -> None:
        assert mesh.normals is not None
        self.photos = Photos(mesh, reference, options.photo_views)
        observed, self.trust = self.photos.sample(mesh.vertices, mesh.normals)
        self.gain, self.offset = exposure_match(base, observed, self.trust)
        matched = base * self.gain + self.offset
        reach = self.REACH * float(np.ptp(mesh.vertices, axis=0).max())
        difference = (observed - matched) * (self.trust > 0)[:, None]
        self.correction = screened_poisson_fill(mesh.vertices, mesh.faces, difference, self.trust, reach)
        self.detail = None
        if options.photo_symmetry and len(self.photos.prepared) == 1:
            self.detail = SymmetricDetail(mesh, matched + self.correction, self.trust, self.photos)

    def __call__(
        self,
        base: np.ndarray,
        points: np.ndarray,
        normals: np.ndarray,
        interpolate: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Return the blended colours at surface points, N 3; `interpolate` returns values of the vertices there."""
        observed, trust = self.photos.sample(points, normals)
        rest = base * self.gain + self.offset + interpolate(self.correction)
        if self.detail is not None:
            rest = self.detail(rest, points, normals, interpolate)
        return (trust[:, None] * observed + (1 - trust[:, None]) * rest).clip(0, 1)


def add_normal_map(mesh: Mesh, dense: tuple[np.ndarray, np.ndarray], size: int) -> None:
    """Add tangents to a textured mesh, and a normal map with the normals of the dense surface.

    Args:
        mesh: with normals and texture coordinates; changed in place.
        dense: W 3 and G 3, vertices and faces of the surface before simplification.
        size: edge of the map in texels.
    """
    assert mesh.normals is not None
    assert mesh.uvs is not None
    mesh.tangents = vertex_tangents(mesh.vertices, mesh.normals, mesh.faces, mesh.uvs)
    mesh.normal_map = bake_normal_map(mesh.vertices, mesh.normals, mesh.tangents, mesh.faces, mesh.uvs, dense, size)


def field_colors(
    field: RadianceField, points: np.ndarray, dirs: np.ndarray, depth: float = 0.0, chunk: int = 262144
) -> np.ndarray:
    """Evaluate the field's colours at surface points.

    With a `depth`, colours and densities from that far before the points to as far behind are composited front to back;
    where the opacity along that ray is below MIN_OPACITY, the colour is that at the point.

    Args:
        field: the radiance field.
        points: N 3.
        dirs: N 3, unit viewing directions.
        depth: in scene units, >= 0.
        chunk: field evaluations per call.

    Returns:
        N 3 in [0, 1].
    """
    out = np.empty((len(points), 3), np.float32)
    n = COLOR_SAMPLES if depth else 1
    step = 2 * depth / n
    offsets = (torch.arange(n) - n // 2) * step
    chunk //= n
    for start in range(0, len(points), chunk):
        part = slice(start, start + chunk)
        x, d = (torch.from_numpy(np.ascontiguousarray(a[part], np.float32))[:, None] for a in (points, dirs))
        samples, view_dirs = (x + d * offsets[:, None]).flatten(0, 1), d.expand(-1, n, -1).flatten(0, 1)
        field_output = field.query(samples, view_dirs, frozenset({"rgb"}))
        assert field_output.rgb is not None
        rgb = field_output.rgb.detach()
        colors = rgb[n // 2 :: n]
        if depth:
            t = (offsets + depth).repeat(len(x)).to(rgb)
            first = torch.arange(0, len(rgb), n, device=rgb.device)
            rays = torch.stack([first, torch.full_like(first, n)], dim=1)
            _, opacity, _, gathered = composite(field_output.sigma.detach(), t - step / 2, t + step / 2, rays, rgb)
            stands = opacity[:, None] > MIN_OPACITY
            colors = torch.where(stands, gathered / opacity[:, None].clamp_min(MIN_OPACITY), colors)
        out[part] = colors.cpu().numpy()
    return out.clip(0, 1)
