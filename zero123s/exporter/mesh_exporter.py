"""`mesh-exporter`: extracts the field's level set, simplifies, unwraps, textures and writes it."""

import time
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.exporter import texturing
from zero123s.exporter.base import EXPORTERS, BaseExporter, ExportResult, Progress
from zero123s.exporter.poster import write_poster
from zero123s.images.svg_plot import write_threshold_plot
from zero123s.mesh.processing import mesh_health, remove_small_components, simplify, vertex_normals
from zero123s.mesh.silhouette import outside_visual_hull, silhouette_agreement
from zero123s.mesh.surface import SurfaceOptions, find_surface, surface_threshold
from zero123s.mesh.unwrap import ChartOptions, PackOptions, UnwrapOptions, unwrap
from zero123s.mesh.writers import WRITERS
from zero123s.structures import Mesh, Provenance, RadianceField, ReferenceView

ENDINGS = (
    *(".glb", ".gltf", ".bin", ".obj", ".mtl", ".png", ".jpg", ".ply", ".stl", ".3mf", ".usdz"),
    *("_normal.png", "_poster.png", "_threshold.svg"),
)
"""Of every file that an export may write; those of `lods` have a number before theirs."""


def _quiet(stage: str, share: float) -> None:
    """Report nothing."""


class _Stages:
    """Reports the stages of the export to the caller, and measures their times."""

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

    def report_detail(self, detail: str, share: float) -> None:
        """Report the progress of the current stage."""
        self.report(f"{self._name} ({detail})", share)


@EXPORTERS.register("mesh-exporter")
class MeshExporter(BaseExporter):
    """Writes a light, closed, textured mesh; the keys are threestudio's where it has them.

    Args:
        cfg: settings; raises ConfigError for values outside their limits.
    """

    @dataclass
    class Config(BaseExporter.Config):
        """Settings of `mesh-exporter`."""

        fmt: str = "obj-mtl"
        """threestudio's key: "obj-mtl" (textured) or "obj" (vertex colours only); `formats` says which files."""
        formats: list[str] = field(default_factory=lambda: ["glb", "obj"])
        """Files to write: any of glb, gltf, obj, ply, stl, 3mf, usdz."""
        poster: bool = True
        """Also write NAME_poster.png, four views of the first of these files that can be read back."""
        threshold_plot: bool = True
        """Also write NAME_threshold.svg where the threshold was chosen: silhouette IoU over all candidates."""
        save_normal: bool = True
        """Write smooth vertex normals."""
        save_uv: bool = True
        """Make texture coordinates."""
        save_texture: bool = True
        """Bake the colours; without, or without save_uv, they go to the vertices."""
        color_depth: float = option(0.0, low=0)
        """Field colours are composited along a short ray through the surface, as a renderer does, from this far (scene
        units) before it to as far behind; 0 = the colour at the surface point itself, which no loss supervises."""
        texture_size: int = 1024
        """Edge of the texture in texels, 64 to 8192."""
        texture_format: str = "png"
        """"png" or "jpg"."""
        xatlas_chart_options: ChartOptions = field(default_factory=ChartOptions)
        """How the surface is cut into charts."""
        xatlas_pack_options: PackOptions = field(default_factory=PackOptions)
        """How charts are packed."""
        normal_map: bool = False
        """Bake the dense surface's normals as a normal map for the light mesh (glb, gltf, obj, usdz)."""
        project_photo: bool = True
        """Project the reference images onto the surface visible in them; the field colours the rest."""
        photo_views: int = 8
        """At most this many reference images are used, evenly chosen."""
        photo_symmetry: bool = False
        """With a single input image, add its detail to sides that it does not show, through vertical mirror planes and rotations
        of the object, where the colours of both sides agree and the detail is weak or correlates."""
        unwrap_time_limit_s: float = 120.0
        """xatlas is stopped after this many seconds; every face then gets a small triangle of its own."""
        isosurface_resolution: int = 256
        """Cells per edge of the box around the object."""
        cut_to_silhouette: bool = True
        """With a single input image, cut off parts outside its silhouette."""
        isosurface_coarse_to_fine: bool = True
        """Find the box around the object first and spend the resolution inside it."""
        fill_hidden: bool = True
        """Treat space that is not visible from any elevation above -30 degrees as solid; otherwise hidden cavities stay
        hollow.
        """
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
        if cfg.normal_map and not (cfg.save_normal and cfg.save_uv and cfg.save_texture and cfg.fmt == "obj-mtl"):
            raise ConfigError("system.exporter.normal_map needs save_normal, save_uv, save_texture and fmt: obj-mtl.")
        self.texture = texturing.TextureOptions(cfg.texture_size, cfg.color_depth, cfg.photo_views, cfg.photo_symmetry)
        self.surface = SurfaceOptions(
            cfg.isosurface_resolution,
            cfg.isosurface_coarse_to_fine,
            cfg.fill_hidden,
            cfg.isosurface_outlier_threshold,
        )

    @torch.no_grad()
    def __call__(
        self,
        field: RadianceField,
        out_dir: Path,
        *,
        threshold: float | str = "auto",
        reference: ReferenceView | None = None,
        extras: Provenance | None = None,
        progress: Progress | None = None,
    ) -> ExportResult:
        """Write the mesh; see `BaseExporter`."""
        stages = _Stages(progress)
        stats: dict[str, Any] = {}
        stages.begin("threshold", 0.0)
        level = surface_threshold(field, threshold, reference, stats)
        stages.begin("surface", 0.1)
        is_free = outside_visual_hull(reference) if self.cfg.cut_to_silhouette else None
        vertices, faces = find_surface(field, level, self.surface, stats, is_free)
        mesh = self._simplified_mesh(vertices, faces, self.cfg.max_faces, field, reference, stats, stages)
        mesh.extras = extras or Provenance()
        if reference is not None:
            stats["silhouette_iou"] = silhouette_agreement(mesh, reference, self.cfg.photo_views)
        stages.begin("write", 0.95)
        files: dict[str, Path] = {}
        for name in self.cfg.formats:
            files |= WRITERS[name](mesh, Path(out_dir), self.cfg.save_name, self.cfg.texture_format)
        for budget in self.cfg.lods:
            own: dict[str, Any] = {}
            lod = self._simplified_mesh(vertices, faces, budget, field, reference, own, _Stages(None))
            lod.extras = mesh.extras
            name = f"{self.cfg.save_name}_{budget}"
            files[f"lod_{budget}"] = WRITERS["glb"](lod, Path(out_dir), name, self.cfg.texture_format)["glb"]
            stats.setdefault("lods", {})[str(budget)] = own
        readable = next((files[f] for f in ("glb", "gltf", "obj", "ply", "stl") if f in files), None)
        if self.cfg.poster and readable is not None:
            stages.begin("poster", 0.97)
            files["poster"] = write_poster(readable, Path(out_dir) / f"{self.cfg.save_name}_poster.png")
        if self.cfg.threshold_plot and "threshold_curve" in stats:
            plot = Path(out_dir) / f"{self.cfg.save_name}_threshold.svg"
            files["threshold"] = write_threshold_plot(plot, stats["threshold_curve"], stats["threshold"])
        self._delete_stale(Path(out_dir), files)
        stages.begin("done", 1.0)
        stats["seconds"] = stages.seconds
        return ExportResult(mesh, files, stats)

    def _delete_stale(self, out_dir: Path, files: dict[str, Path]) -> None:
        """Delete files of an earlier export of this name that this one has not written."""
        written, name = {path.name for path in files.values()}, self.cfg.save_name
        candidates = [out_dir / f"{name}{ending}" for ending in ENDINGS]
        candidates += [p for p in out_dir.glob(f"{escape(name)}_*.glb") if p.stem.removeprefix(f"{name}_").isdigit()]
        for path in candidates:
            if path.name not in written:
                path.unlink(missing_ok=True)

    def _simplified_mesh(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        max_faces: int,
        field: RadianceField,
        reference: ReferenceView | None,
        stats: dict[str, Any],
        stages: "_Stages",
    ) -> Mesh:
        """Return the surface within a face budget (0 = unlimited), closed, unwrapped and coloured."""
        stages.begin("simplify", 0.4)
        dense = vertices, faces
        vertices, faces = simplify(vertices, faces, max_faces or len(faces))
        # Collapsing may pinch crumbs off.
        vertices, faces, crumbs = remove_small_components(vertices, faces, self.cfg.isosurface_outlier_threshold)
        health = mesh_health(vertices, faces)
        stats |= {"crumbs_dropped": crumbs, "health": health.as_dict(), "statement": health.summary()}
        stages.begin("unwrap", 0.5)
        mesh = self._unwrapped(vertices, faces, stats, stages)
        stages.begin("texture", 0.8)
        photos = reference if self.cfg.project_photo else None
        texturing.color_mesh(mesh, field, photos, self.texture, stats)
        if self.cfg.normal_map:
            stages.begin("normal map", 0.9)
            texturing.add_normal_map(mesh, dense, self.cfg.texture_size)
        if not self.cfg.save_normal:
            mesh.normals = None
        return mesh

    def _unwrapped(self, vertices: np.ndarray, faces: np.ndarray, stats: dict[str, Any], stages: "_Stages") -> Mesh:
        cfg = self.cfg
        normals = vertex_normals(vertices, faces)
        if not (cfg.save_uv and cfg.save_texture and cfg.fmt == "obj-mtl"):
            return Mesh(vertices, faces, normals)
        options = UnwrapOptions(
            cfg.texture_size, cfg.unwrap_time_limit_s, cfg.xatlas_chart_options, cfg.xatlas_pack_options
        )
        limit = options.time_limit_s

        def tick(passed: float) -> None:
            stages.report_detail(f"{passed:.0f} s of at most {limit:g}", 0.5 + 0.3 * min(passed / limit, 1.0))

        result = unwrap(vertices, faces, options, tick)
        stats["unwrap"] = result.method
        if result.reason:
            stats["unwrap_note"] = f"{result.reason}; every face got a small triangle of its own"
        index = result.vertex_index
        return Mesh(vertices[index], result.faces, normals[index], uvs=result.uvs)
