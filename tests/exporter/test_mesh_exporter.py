import numpy as np
import pytest
import torch
import trimesh

from zero123s.errors import ConfigError, MeshError
from zero123s.exporter.mesh_exporter import MeshExporter
from zero123s.structures import FieldOutput


class TwoTone:
    """A soft ball of radius 0.6, red in front (x > 0) and green above (z > 0), with a speck of dust far away."""

    bound = 1.0

    def density(self, x):
        ball = 0.6 - x.norm(dim=-1)
        dust = 0.03 - (x - torch.tensor([0.9, 0.9, 0.9])).norm(dim=-1)
        return 10 * torch.sigmoid(40 * torch.maximum(ball, dust))

    surface_level = density

    def query(self, x, dirs, needs, light_positions=None):
        rgb = torch.stack([(x[:, 0] > 0).float(), (x[:, 2] > 0).float(), torch.zeros(len(x))], dim=-1)
        return FieldOutput(self.density(x), rgb)


def export(tmp_path, **changes):
    exporter = MeshExporter(MeshExporter.Config(formats=["glb", "ply", "obj", "stl"], **changes))
    return exporter(TwoTone(), tmp_path)


def test_surface_is_where_the_field_says(tmp_path):
    result = export(tmp_path)
    radius = np.linalg.norm(result.mesh.vertices, axis=1)
    # sigmoid(40 d) of the level gives the distance from the middle of the soft shell
    level = result.stats["threshold"] / 10
    assert 0.3 < level < 0.6
    assert abs(radius - (0.6 - np.log(level / (1 - level)) / 40)).max() < 0.005, "and the dust is gone"
    read = trimesh.load(result.files["ply"])
    assert read.is_watertight
    assert read.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.06), "positive volume: normals point outwards"


def test_glb_stands_upright_and_faces_the_viewer(tmp_path):
    read = trimesh.load(export(tmp_path).files["glb"], force="mesh")
    colors = read.visual.vertex_colors[:, :3]
    front, top = read.vertices[:, 2] > 0.3, read.vertices[:, 1] > 0.3  # glTF: +z faces the viewer, +y is up
    assert (colors[front, 0] == 255).all()
    assert (colors[top, 1] == 255).all()
    assert (colors[read.vertices[:, 2] < -0.3, 0] == 0).all()


def test_every_format_opens_and_no_part_is_left(tmp_path):
    files = export(tmp_path).files
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in files.values()}
    volumes = [trimesh.load(p, force="mesh").volume for p in files.values()]
    assert volumes == pytest.approx([volumes[0]] * 4, rel=1e-3)


def test_an_empty_field_is_explained(tmp_path):
    with pytest.raises(MeshError, match=r"no surface at density 25: the field lies between .*isosurface_threshold"):
        export(tmp_path, isosurface_threshold=25)


def test_unknown_format_is_told(tmp_path):
    with pytest.raises(ConfigError, match="'fbx'"):
        MeshExporter(MeshExporter.Config(formats=["fbx"]))
