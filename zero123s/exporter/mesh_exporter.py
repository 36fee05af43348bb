"""Marching cubes with vertex colours, written through trimesh."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from zero123s.errors import ConfigError, MeshError
from zero123s.exporter.base import EXPORTERS, BaseExporter, ExportResult, Progress
from zero123s.ops.isosurface import (
    marching_cubes,
    occupied_bounds,
    sample_dense,
    sample_sparse,
    sparse_resolution,
)
from zero123s.structures import Mesh, RadianceField, ReferenceView

FORMATS = ("glb", "ply", "obj", "stl")
Z_UP_TO_GLTF = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
"""World (x front, z up) to glTF (z front, y up)."""


@EXPORTERS.register("mesh-exporter")
class MeshExporter(BaseExporter):
    """Finds the surface, keeps its large components, colours its vertices and writes the asked formats."""

    @dataclass
    class Config(BaseExporter.Config):
        """Settings of `mesh-exporter`."""

        formats: list[str] = field(default_factory=lambda: ["glb", "obj"])
        """Any of glb (y up), ply, obj, stl (z up)."""
        isosurface_resolution: int = 128
        """Cells per axis of the box around the object."""
        isosurface_threshold: Any = "auto"
        """Density at which the surface is cut; "auto" = the geometry's own, else half of the dense part's median."""
        isosurface_coarse_to_fine: bool = True
        """Find the object's box first, then spend the resolution inside it."""
        isosurface_outlier_threshold: float = 0.01
        """Components with fewer faces than this share of the largest are dropped."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        unknown = [f for f in cfg.formats if f not in FORMATS]
        if unknown:
            raise ConfigError(f"exporter.formats: '{unknown[0]}' is not known; use any of {', '.join(FORMATS)}.")

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
        """Write the surface of `field`; see `BaseExporter`."""
        tell = progress or (lambda stage, share: None)
        tell("surface", 0.0)
        level = self.cfg.isosurface_threshold if self.cfg.isosurface_threshold != "auto" else threshold
        vertices, faces, level = self._surface(field, level)
        vertices, faces = drop_small_components(vertices, faces, self.cfg.isosurface_outlier_threshold)
        tell("colour", 0.6)
        colors = vertex_colors(field, vertices)
        mesh = Mesh(vertices, faces, vertex_colors=colors, extras=dict(extras or {}))
        tell("files", 0.9)
        files = {fmt: write_mesh(mesh, out_dir / f"{self.cfg.save_name}.{fmt}") for fmt in self.cfg.formats}
        tell("done", 1.0)
        return ExportResult(mesh, files, {"threshold": float(level), "vertices": len(vertices), "faces": len(faces)})

    def _surface(self, field: RadianceField, level: float | str) -> tuple[np.ndarray, np.ndarray, float]:
        bound = np.full(3, field.bound)
        coarse = sample_dense(field.surface_level, 64, -bound, bound)
        level = auto_level(coarse.values) if level == "auto" else float(level)
        box = occupied_bounds(coarse, level, margin_cells=2)
        if box is None:
            low, high = float(coarse.values.min()), float(coarse.values.max())
            raise MeshError(
                f"There is no surface at density {level:.4g}: the field lies between {low:.4g} and {high:.4g}. Train "
                "longer, or set system.exporter.isosurface_threshold between those two."
            )
        lower, upper = box if self.cfg.isosurface_coarse_to_fine else (-bound, bound)
        lower, upper = np.maximum(lower, -bound), np.minimum(upper, bound)
        resolution = sparse_resolution(self.cfg.isosurface_resolution)
        fine = sample_sparse(field.surface_level, level, resolution, lower, upper)
        vertices, faces = marching_cubes(fine, level)
        return vertices, faces, level


def auto_level(values: np.ndarray) -> float:
    """Return half of the median of what is clearly not empty (above 1 % of the largest density)."""
    top = float(values.max())
    if not top > 0:
        return 1.0
    return 0.5 * float(np.median(values[values > 0.01 * top]))


def drop_small_components(vertices: np.ndarray, faces: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mesh without connected components that have fewer than `share` of the largest one's faces."""
    labels = trimesh.graph.connected_component_labels(trimesh.graph.face_adjacency(faces), node_count=len(faces))
    counts = np.bincount(labels)
    kept = faces[counts[labels] >= share * counts.max()]
    used, renumbered = np.unique(kept, return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3)


@torch.no_grad()
def vertex_colors(field: RadianceField, vertices: np.ndarray, chunk: int = 65536) -> np.ndarray:
    """Return the field's colour at every vertex, in [0, 1]."""
    colors = []
    for start in range(0, len(vertices), chunk):
        x = torch.from_numpy(np.ascontiguousarray(vertices[start : start + chunk], dtype=np.float32))
        rgb = field.query(x, torch.zeros_like(x), frozenset({"rgb"})).rgb
        assert rgb is not None
        colors.append(rgb.clamp(0, 1).cpu().numpy())
    return np.concatenate(colors)


def write_mesh(mesh: Mesh, path: Path) -> Path:
    """Write one file by its suffix, whole or not at all; raises MeshError when it cannot be written."""
    colors = None if mesh.vertex_colors is None else (255 * mesh.vertex_colors + 0.5).astype(np.uint8)
    scene = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False)
    if path.suffix == ".glb":
        scene.apply_transform(Z_UP_TO_GLTF)
        scene.metadata.update(mesh.extras)
    content = scene.export(file_type=path.suffix[1:])
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MeshError(f"Cannot write '{path}': {error.strerror}.") from error
    return path
