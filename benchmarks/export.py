"""A 256^3 surface to a 50k-face textured glb, compared with threestudio's method: `python benchmarks/export.py [--theirs]`.

Theirs: every node of the grid evaluated, all faces of marching cubes straight into xatlas, one field query per texel.
Times are CPU seconds of one core, the unwrapping process included.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import resource
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from zero123s.config.parse import parse_slot
from zero123s.exporter.mesh_exporter import MeshExporter
from zero123s.geometry import GEOMETRIES
from zero123s.material import MATERIALS
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import render_mesh
from zero123s.structures import Mesh, ReferenceView
from zero123s.system.field import GeometryMaterialField

RESOLUTION = 256


def cpu_seconds() -> float:
    """Return CPU seconds of this process and its finished children."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def bumpy_field() -> GeometryMaterialField:
    """Return a blob whose hash table is random, so that its surface is uneven on every scale."""
    torch.manual_seed(0)
    geometry_class = GEOMETRIES.get("implicit-volume")
    encoding = {"n_levels": 10, "log2_hashmap_size": 16, "base_resolution": 12, "per_level_scale": 1.35}
    network = {"n_neurons": 32, "n_hidden_layers": 1}
    sections = {"radius": 0.7, "pos_encoding_config": encoding, "mlp_network_config": network}
    _, cfg = parse_slot(GEOMETRIES, "implicit-volume", sections, "geometry")
    geometry = geometry_class(cfg)
    with torch.no_grad():
        for p in geometry.encoding.parameters():
            p.normal_(0, 0.1)
    _, material_cfg = parse_slot(MATERIALS, "no-material", {}, "material")
    return GeometryMaterialField(geometry, MATERIALS.get("no-material")(material_cfg, geometry.n_features))


def photo_of(mesh: Mesh) -> ReferenceView:
    """Return an image of the mesh's front, so that the projection has something to do."""
    camera = orbit_cameras(5.0, 0.0, height=512, width=512)
    rgba = torch.from_numpy(render_mesh(mesh, camera)).float()[None]
    return ReferenceView(camera, rgba[..., :3], rgba[..., 3:])


def theirs(field: GeometryMaterialField, folder: Path, threshold: float) -> int:
    """Export as threestudio does; returns the number of faces."""
    settings = MeshExporter.Config(
        formats=["obj"],
        isosurface_coarse_to_fine=False,
        isosurface_resolution=RESOLUTION,
        fill_hidden=False,
        max_faces=0,
        unwrap_time_limit_s=3600.0,
        project_photo=False,
        poster=False,
    )
    exporter = MeshExporter(settings)
    exporter.surface = replace(exporter.surface, coarse=RESOLUTION)  # every node
    return len(exporter(field, folder, threshold=threshold).mesh.faces)


def main(overrides: list[str]) -> None:
    """Print both."""
    field = bumpy_field()
    with tempfile.TemporaryDirectory() as folder:
        settings = MeshExporter.Config(formats=["glb"], isosurface_resolution=RESOLUTION)
        MeshExporter(MeshExporter.Config(isosurface_resolution=16, texture_size=64))(field, Path(folder))  # compiles
        first = MeshExporter(MeshExporter.Config(isosurface_resolution=64, texture_size=64))(field, Path(folder))
        photo = photo_of(first.mesh)
        start = cpu_seconds()
        result = MeshExporter(settings)(field, Path(folder), reference=photo)
        ours = cpu_seconds() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        stages = ", ".join(f"{k} {v:.1f}" for k, v in result.stats["seconds"].items())
        print(f"ours: {ours:.1f} s, {len(result.mesh.faces)} faces of {result.stats['faces_before_simplification']}")
        print(f"  peak memory {peak:.2f} GB; wall seconds: {stages}")
        print(f"  {result.stats['statement']}")
        if "--theirs" in overrides:
            start = cpu_seconds()
            faces = theirs(field, Path(folder), result.stats["threshold"])
            other = cpu_seconds() - start
            print(f"threestudio's way: {other:.1f} s, {faces} faces; ratio {other / ours:.1f}")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main(sys.argv[1:])
