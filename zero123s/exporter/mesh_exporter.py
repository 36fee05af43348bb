"""`mesh-exporter`: the field's level set, simplified, unwrapped, textured and written."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zero123s.errors import ConfigError, MeshError
from zero123s.exporter.base import EXPORTERS, BaseExporter, ExportResult, Progress
from zero123s.exporter.poster import write_poster
from zero123s.exporter.writers import WRITERS
from zero123s.ops.cameras import generate_rays, orbit_cameras, sphere_fit_distance
from zero123s.ops.isosurface import (
    choose_level,
    evaluate_points,
    marching_cubes,
    occupied_bounds,
    sample_dense,
    sample_sparse,
    sparse_resolution,
    straightened,
)
from zero123s.ops.mesh import mesh_health, remove_small_components, simplify, vertex_normals
from zero123s.ops.photo import Photos, exposure_match, membrane
from zero123s.ops.texture import SurfacePoints, bake
from zero123s.ops.unwrap import ChartOptions, PackOptions, UnwrapOptions, unwrap
from zero123s.ops.visibility import hidden_nodes
from zero123s.structures import Mesh, RadianceField, ReferenceView

COARSE = 64
"""Cells per edge of the first look at the whole cube."""
HAZE = 0.002
"""Opacity of one such cell below which it counts as empty."""


def _quiet(stage: str, share: float) -> None:
    """Report nothing."""


class _Stages:
    """Tells the caller what is going on, and how long each stage took."""

    def __init__(self, progress: Progress | None) -> None:
        self.report = progress or _quiet
        self.seconds: dict[str, float] = {}
        self._name, self._start = "", time.perf_counter()

    def begin(self, name: str, share: float) -> None:
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = round(now - self._start, 3)
        self._name, self._start = name, now
        self.report(name, share)


@EXPORTERS.register("mesh-exporter")
class MeshExporter(BaseExporter):
    """Writes a light, closed, textured mesh; threestudio's words where it has one."""

    @dataclass
    class Config(BaseExporter.Config):
        """Settings of `mesh-exporter`."""

        fmt: str = "obj-mtl"
        """threestudio's word: "obj-mtl" (textured) or "obj" (vertex colours only); `formats` says which files."""
        formats: list[str] = field(default_factory=lambda: ["glb", "obj"])
        """Files to write: any of glb, gltf, obj, ply, stl, 3mf, usdz."""
        poster: bool = True
        """Also write NAME_poster.png, four views of the first of these files that can be read back."""
        save_normal: bool = True
        """Write smooth vertex normals."""
        save_uv: bool = True
        """Make texture coordinates."""
        save_texture: bool = True
        """Bake the colours; without, or without save_uv, they go to the vertices."""
        texture_size: int = 1024
        """Edge of the texture in texels, 64 to 8192."""
        texture_format: str = "png"
        """"png" or "jpg"."""
        xatlas_chart_options: ChartOptions = field(default_factory=ChartOptions)
        """How the surface is cut into charts."""
        xatlas_pack_options: PackOptions = field(default_factory=PackOptions)
        """How charts are packed."""
        project_photo: bool = True
        """Put the reference pictures themselves on what they see; the field colours the rest."""
        photo_views: int = 8
        """At most this many reference pictures are used, evenly chosen."""
        unwrap_time_limit_s: float = 120.0
        """xatlas is stopped after this many seconds; every face then gets a small triangle of its own."""
        isosurface_resolution: int = 256
        """Cells per edge of the box around the object."""
        isosurface_threshold: Any = "auto"
        """Level of the surface: a number, or "auto": the geometry's own, else the one that matches silhouettes."""
        isosurface_coarse_to_fine: bool = True
        """Find the box around the object first and spend the resolution inside it."""
        fill_hidden: bool = True
        """Count what no viewer from above -30 degrees sees as solid: without it, the unseen inside stays hollow."""
        isosurface_outlier_threshold: float = 0.01
        """Parts below this share of the largest part's volume are dropped."""
        max_faces: int = 50000
        """Face budget; the surface is simplified before unwrapping. 0 = no limit."""
        lods: list[int] = field(default_factory=list)
        """Face budgets of further, lighter files, NAME_BUDGET.glb each."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        known = ", ".join(WRITERS)
        for name in cfg.formats:
            if name not in WRITERS:
                raise ConfigError(f"system.exporter.formats: '{name}' cannot be written. Known: {known}.")
        if cfg.texture_format not in ("png", "jpg"):
            raise ConfigError(f"system.exporter.texture_format: '{cfg.texture_format}' is neither png nor jpg.")
        if not 64 <= cfg.texture_size <= 8192:
            raise ConfigError(f"system.exporter.texture_size must be 64 to 8192, got {cfg.texture_size}.")
        if not 8 <= cfg.isosurface_resolution <= 1024:
            raise ConfigError(
                f"system.exporter.isosurface_resolution must be 8 to 1024, got {cfg.isosurface_resolution}."
            )
        if cfg.fmt not in ("obj-mtl", "obj"):
            raise ConfigError(f"system.exporter.fmt: '{cfg.fmt}' is neither obj-mtl nor obj.")
        if cfg.max_faces < 0 or any(budget < 4 for budget in cfg.lods):
            raise ConfigError("system.exporter: max_faces should be 0 or more, and every one of lods at least 4.")
        _check_threshold(cfg.isosurface_threshold)

    @torch.no_grad()
    def __call__(
        self,
        field: RadianceField,
        out_dir: Path,
        *,
        threshold: float | str = "auto",
        reference: ReferenceView | None = None,
        extras: dict[str, str] | None = None,
        progress: Progress | None = None,
    ) -> ExportResult:
        """Write the mesh; see `BaseExporter`. `isosurface_threshold` of the exporter beats `threshold`."""
        stages = _Stages(progress)
        stats: dict[str, Any] = {}
        stages.begin("threshold", 0.0)
        level = self._level(field, threshold, reference, stats)
        stages.begin("surface", 0.1)
        vertices, faces = self._surface(field, level, stats)
        mesh = self._light_mesh(vertices, faces, self.cfg.max_faces, field, reference, stats, stages)
        mesh.extras = {"generator": "zero123s", **(extras or {})}
        stages.begin("write", 0.95)
        files: dict[str, Path] = {}
        for name in self.cfg.formats:
            files |= WRITERS[name](mesh, Path(out_dir), self.cfg.save_name, self.cfg.texture_format)
        for budget in self.cfg.lods:
            own: dict[str, Any] = {}
            lod = self._light_mesh(vertices, faces, budget, field, reference, own, _Stages(None))
            lod.extras = mesh.extras
            name = f"{self.cfg.save_name}_{budget}"
            files[f"lod_{budget}"] = WRITERS["glb"](lod, Path(out_dir), name, self.cfg.texture_format)["glb"]
            stats.setdefault("lods", {})[str(budget)] = own
        readable = next((files[f] for f in ("glb", "gltf", "obj", "ply", "stl") if f in files), None)
        if self.cfg.poster and readable is not None:
            stages.begin("poster", 0.97)
            files["poster"] = write_poster(readable, Path(out_dir) / f"{self.cfg.save_name}_poster.png")
        stages.begin("done", 1.0)
        stats["seconds"] = stages.seconds
        return ExportResult(mesh, files, stats)

    def _light_mesh(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        max_faces: int,
        field: RadianceField,
        reference: ReferenceView | None,
        stats: dict[str, Any],
        stages: "_Stages",
    ) -> Mesh:
        """Return the surface within a face budget (0 = as it is), closed, unwrapped and coloured."""
        stages.begin("simplify", 0.4)
        vertices, faces = simplify(vertices, faces, max_faces or len(faces))
        # Collapsing may pinch crumbs off.
        vertices, faces, crumbs = remove_small_components(vertices, faces, self.cfg.isosurface_outlier_threshold)
        health = mesh_health(vertices, faces)
        stats |= {"crumbs_dropped": crumbs, "health": health.as_dict(), "statement": health.sentence()}
        stages.begin("unwrap", 0.5)
        mesh = self._unwrapped(vertices, faces, stats)
        stages.begin("texture", 0.8)
        self._color(mesh, field, reference, stats)
        return mesh

    def _level(
        self, field: RadianceField, given: float | str, reference: ReferenceView | None, stats: dict[str, Any]
    ) -> float:
        chosen = self.cfg.isosurface_threshold if self.cfg.isosurface_threshold != "auto" else given
        _check_threshold(chosen)
        if chosen != "auto":
            stats |= {"threshold": float(chosen), "threshold_source": "given"}
            return float(chosen)
        dense = sample_dense(field.density, COARSE, np.full(3, -field.bound), np.full(3, field.bound))
        box = occupied_bounds(dense, HAZE * COARSE / (2 * field.bound), margin_cells=2)
        choice = None
        if box is not None:
            choice = choose_level(field.surface_level, field.density, _rays(field.bound, reference), box)
        if choice is None:
            raise MeshError(f"There is no surface: no ray meets anything opaque. {_describe(field)}")
        stats |= {"threshold": choice.level, "threshold_source": "silhouettes"}
        stats["threshold_curve"] = {"levels": choice.levels.tolist(), "silhouette_iou": choice.iou.tolist()}
        return choice.level

    def _surface(self, field: RadianceField, given: float, stats: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = np.full(3, -field.bound), np.full(3, field.bound)
        if self.cfg.isosurface_coarse_to_fine:
            box = occupied_bounds(sample_dense(field.surface_level, COARSE, lower, upper), given)
            lower, upper = box if box is not None else (lower, upper)
        resolution = sparse_resolution(self.cfg.isosurface_resolution, COARSE)
        grid = sample_sparse(field.surface_level, given, resolution, lower, upper, COARSE)
        grid, level = straightened(grid, given)
        if self.cfg.fill_hidden:
            hidden = hidden_nodes(grid.values > level)
            stats["hidden_share"] = float(hidden.mean())
            grid.values[hidden] = max(float(grid.values.max()), level + 1e-3)
        vertices, faces = marching_cubes(grid, level)
        stats["evaluated_share"] = grid.n_evaluated / grid.values.size
        if len(faces) == 0:
            raise MeshError(f"There is no surface at threshold {given:g}. {_describe(field)}")
        vertices, faces, dropped = remove_small_components(vertices, faces, self.cfg.isosurface_outlier_threshold)
        stats |= {"components_dropped": dropped, "faces_before_simplification": len(faces)}
        return vertices, faces

    def _unwrapped(self, vertices: np.ndarray, faces: np.ndarray, stats: dict[str, Any]) -> Mesh:
        cfg = self.cfg
        normals = vertex_normals(vertices, faces)
        if not (cfg.save_uv and cfg.save_texture and cfg.fmt == "obj-mtl"):
            return Mesh(vertices, faces, normals)
        options = UnwrapOptions(
            cfg.texture_size, cfg.unwrap_time_limit_s, cfg.xatlas_chart_options, cfg.xatlas_pack_options
        )
        result = unwrap(vertices, faces, options)
        stats["unwrap"] = result.method
        index = result.vertex_index
        return Mesh(vertices[index], result.faces, normals[index], uvs=result.uvs)

    def _color(self, mesh: Mesh, field: RadianceField, reference: ReferenceView | None, stats: dict[str, Any]) -> None:
        """Bake the field's colours, each point seen from straight outside, and the photos where they see it."""
        assert mesh.normals is not None
        base = field_colors(field, mesh.vertices, -mesh.normals)
        blend = None
        if reference is not None and self.cfg.project_photo:
            blend = PhotoBlend(mesh, base, reference, self.cfg.photo_views)
            stats["photo_share"] = float((blend.trust > 0.5).mean())
            mesh.vertex_colors = blend(base, mesh.vertices, mesh.normals, blend.correction)
        else:
            mesh.vertex_colors = base

        def color(surface: SurfacePoints) -> np.ndarray:
            colors = field_colors(field, surface.points, -surface.normals)
            if blend is None:
                return colors
            return blend(colors, surface.points, surface.normals, surface.interpolate(blend.correction))

        if mesh.uvs is not None:
            size = self.cfg.texture_size
            samples = max(1, min(2, 1024 // size))  # fields and photos are smoother than 1024 texels
            mesh.texture = bake(mesh.vertices, mesh.normals, mesh.faces, mesh.uvs, size, color, samples)
        if not self.cfg.save_normal:
            mesh.normals = None


class PhotoBlend:
    """Photos over the field's colours: the photo where it is trusted, elsewhere the field brought to its exposure.

    Args:
        mesh: with normals.
        base: the field's colours at the vertices, V 3.
        reference: the photos.
        max_views: how many of them are used.
    """

    REACH = 0.15
    """How far, as a share of the object's size, the photo's colours lead over into unseen parts."""

    def __init__(self, mesh: Mesh, base: np.ndarray, reference: ReferenceView, max_views: int) -> None:
        assert mesh.normals is not None
        self.photos = Photos(mesh, reference, max_views)
        seen, self.trust = self.photos.sample(mesh.vertices, mesh.normals)
        self.gain, self.offset = exposure_match(base, seen, self.trust)
        difference = (seen - (base * self.gain + self.offset)) * (self.trust > 0)[:, None]
        reach = self.REACH * float(np.ptp(mesh.vertices, axis=0).max())
        self.correction = membrane(mesh.vertices, mesh.faces, difference, self.trust, reach)

    def __call__(self, base: np.ndarray, points: np.ndarray, normals: np.ndarray, correction: np.ndarray) -> np.ndarray:
        """Return the blended colours at surface points, N 3."""
        seen, trust = self.photos.sample(points, normals)
        rest = base * self.gain + self.offset + correction
        return (trust[:, None] * seen + (1 - trust[:, None]) * rest).clip(0, 1)


def field_colors(field: RadianceField, points: np.ndarray, dirs: np.ndarray, chunk: int = 262144) -> np.ndarray:
    """Return the field's colour at N points seen along unit `dirs`, N 3 in [0, 1]."""
    out = np.empty((len(points), 3), np.float32)
    for start in range(0, len(points), chunk):
        part = slice(start, start + chunk)
        x = torch.from_numpy(np.ascontiguousarray(points[part], np.float32))
        d = torch.from_numpy(np.ascontiguousarray(dirs[part], np.float32))
        rgb = field.query(x, d, frozenset({"rgb"})).rgb
        assert rgb is not None
        out[part] = rgb.detach().cpu().numpy()
    return out.clip(0, 1)


def _check_threshold(value: Any) -> None:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f'isosurface_threshold must be a number or "auto", got {value!r}.')


def _rays(bound: float, reference: ReferenceView | None, size: int = 64, max_reference: int = 8) -> list[Any]:
    """Return the views that judge a level: eight around, two from above and below, and the reference with its mask.

    Of many reference views `max_reference` are taken, evenly chosen.
    """
    distance = sphere_fit_distance(bound * 1.2, 30.0)
    elevations = torch.tensor([0.0, 30.0] * 4 + [75.0, -60.0])
    azimuths = torch.tensor([45.0 * i for i in range(8)] + [0.0, 90.0])
    rays = generate_rays(orbit_cameras(elevations, azimuths, distance, 30.0, size, size))
    views: list[Any] = [
        (o.reshape(-1, 3).numpy(), d.reshape(-1, 3).numpy(), None)
        for o, d in zip(rays.rays_o, rays.rays_d, strict=True)
    ]
    if reference is not None:
        n = len(reference.cameras)
        chosen = torch.linspace(0, n - 1, min(n, max_reference)).round().long()
        seen = ReferenceView(reference.cameras.select(chosen), reference.rgb[chosen], reference.mask[chosen]).to("cpu")
        small = generate_rays(seen.cameras.resized(size, max(1, size * seen.cameras.width // seen.cameras.height)))
        masks = torch.nn.functional.interpolate(seen.mask.permute(0, 3, 1, 2), small.rays_d.shape[1:3], mode="area")
        for o, d, m in zip(small.rays_o, small.rays_d, masks, strict=True):
            views.append((o.reshape(-1, 3).numpy(), d.reshape(-1, 3).numpy(), m.reshape(-1).numpy()))
    return views


def _describe(field: RadianceField) -> str:
    """Say what the density looks like and what to change."""
    axis = np.linspace(-field.bound, field.bound, 33)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = evaluate_points(field.surface_level, points)
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return (
        f"On a 33^3 grid the level function runs from {low:.3g} (median {middle:.3g}) to {high:.3g}: train longer, "
        "resume a trained checkpoint, or set system.exporter.isosurface_threshold below the largest value."
    )
