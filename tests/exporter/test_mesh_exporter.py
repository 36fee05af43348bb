"""The exporter on analytic coloured fields, its files read back by another library."""

import json
import struct
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from zero123s.errors import ConfigError, MeshError, OutputError
from zero123s.exporter import EXPORTERS
from zero123s.exporter.mesh_exporter import MeshExporter
from zero123s.exporter.texturing import field_colors
from zero123s.images.image_metrics import mask_iou, psnr
from zero123s.mesh.processing import mesh_health
from zero123s.mesh.silhouette import silhouette_agreement
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import on_white, render_mesh
from zero123s.structures import FieldOutput, Provenance, ReferenceView


class TwoTone:
    """A soft ball of radius 0.6, red in front (x > 0) and green above (z > 0), with a speck of dust far away."""

    bound = 1.0

    def density(self, x):
        ball = 0.6 - x.norm(dim=-1)
        dust = 0.05 - (x - torch.tensor([0.8, 0.8, 0.8])).norm(dim=-1)
        return 100 * torch.sigmoid(40 * torch.maximum(ball, dust))

    surface_level = density

    def gaussians(self, centers, needs, light_positions):
        return None

    def query(self, x, dirs, needs, light_positions=None):
        rgb = torch.stack([(x[:, 0] > 0).float(), (x[:, 2] > 0).float(), torch.zeros(len(x))], dim=-1)
        return FieldOutput(self.density(x), rgb)


ALL = ["glb", "gltf", "ply", "obj", "stl", "3mf", "usdz"]
SMALL = {"isosurface_resolution": 48, "max_faces": 3000, "texture_size": 128, "poster": False}


def export(out_dir, **changes):
    exporter = MeshExporter(MeshExporter.Config(**{"formats": ALL, **SMALL, **changes}))
    return exporter(TwoTone(), out_dir, extras=Provenance(model_license="CC-BY-4.0"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("export"), poster=True)


def test_surface_is_closed_and_where_its_silhouette_is(exported):
    radius = np.linalg.norm(exported.mesh.vertices, axis=1)
    level = exported.stats["threshold"] / 100
    # sigmoid(40 d) of the level gives the distance from the middle of the soft shell
    assert abs(radius - (0.6 - np.log(level / (1 - level)) / 40)).max() < 0.01, "and the dust is gone"
    assert exported.stats["components_dropped"] == 1
    assert exported.stats["health"]["watertight"]
    assert exported.stats["health"]["faces"] <= 3000
    assert max(exported.stats["threshold_curve"]["silhouette_iou"]) > 0.97


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.5, 0.5)])
def test_the_silhouette_is_compared_with_the_masks(exported, share, expected):
    """The outline of a ball at a distance d is that of a disc of radius r / sqrt(1 - (r / d)^2) through its centre."""
    radius = np.linalg.norm(exported.mesh.vertices, axis=1).max()
    pixel = 2 * 3.8 * np.tan(np.deg2rad(10)) / 192
    square = ((torch.arange(192) - 95.5) * pixel).square()
    disc = square[:, None] + square < share * radius**2 / (1 - (radius / 3.8) ** 2)
    camera = orbit_cameras(0.0, 0.0, height=192, width=192)
    view = ReferenceView(camera, torch.zeros(1, 192, 192, 3), disc.float()[None, ..., None])
    assert silhouette_agreement(exported.mesh, view, 8) == pytest.approx(expected, abs=0.03)


def test_the_choice_of_the_threshold_is_drawn(exported):
    plot = ElementTree.parse(exported.files["threshold"]).getroot()
    tags = [child.tag.split("}")[1] for child in plot]
    assert tags.count("polyline") == 1
    (line,) = (child for child in plot if child.tag.endswith("line") and child.get("x1"))
    levels = exported.stats["threshold_curve"]["levels"]
    share = (exported.stats["threshold"] - levels[0]) / (levels[-1] - levels[0])
    assert float(line.get("x1")) == pytest.approx(5 + 410 * share, abs=0.1)


def test_glb_is_upright_facing_front_and_textured(exported):
    read = trimesh.load(exported.files["glb"], force="mesh")
    colors = np.asarray(read.visual.to_color().vertex_colors)[:, :3]
    front, top = read.vertices[:, 2] > 0.2, read.vertices[:, 1] > 0.2  # glTF: +z faces the viewer, +y is up
    assert np.median(colors[front, 0]) > 250
    assert np.median(colors[top, 1]) > 250
    assert np.median(colors[read.vertices[:, 2] < -0.2, 0]) < 5
    assert read.volume > 0, "normals point outwards"
    data = exported.files["glb"].read_bytes()
    (length,) = struct.unpack("<I", data[12:16])
    document = json.loads(data[20 : 20 + length])
    assert document["asset"]["extras"] == {"generator": "zero123s", "model_license": "CC-BY-4.0"}
    assert document["materials"][0]["pbrMetallicRoughness"]["roughnessFactor"] == 1.0
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    assert len(data) == struct.unpack("<I", data[8:12])[0]


def test_no_part_of_a_file_is_left(exported):
    folder = exported.files["glb"].parent
    assert {p.name for p in folder.iterdir()} == {p.name for p in exported.files.values()}


def test_rendered_colours_are_the_fields(exported):
    front = render_mesh(exported.mesh, orbit_cameras(0.0, 0.0, height=64, width=64))
    assert front[16, 32] == pytest.approx([1, 1, 0, 1], abs=0.01)
    assert front[48, 32] == pytest.approx([1, 0, 0, 1], abs=0.01)
    behind = render_mesh(exported.mesh, orbit_cameras(0.0, 180.0, height=64, width=64))
    assert behind[16, 32] == pytest.approx([0, 1, 0, 1], abs=0.01)


def test_unwrap_time_limit_falls_back_to_triangles(tmp_path):
    result = export(tmp_path, unwrap_time_limit_s=0.0, formats=["glb"], texture_size=512)
    assert result.stats["unwrap"] == "triangles"
    front = render_mesh(result.mesh, orbit_cameras(0.0, 0.0, height=64, width=64))
    assert front[16, 32] == pytest.approx([1, 1, 0, 1], abs=0.02)


def test_vertex_colours_without_texture(tmp_path):
    result = export(tmp_path, fmt="obj", formats=["glb", "obj"])
    assert set(result.files) == {"glb", "obj", "threshold"}
    read = trimesh.load(result.files["obj"], process=False)
    assert read.visual.vertex_colors[read.vertices[:, 0] > 0.2, 0].min() == 255


def test_an_empty_field_is_explained(tmp_path):
    with pytest.raises(MeshError, match=r"no surface at threshold 500\..*median.*isosurface_threshold below"):
        MeshExporter(MeshExporter.Config(**SMALL))(TwoTone(), tmp_path, threshold=500)
    assert list(tmp_path.iterdir()) == []


def test_fog_is_explained(tmp_path):
    class Fog(TwoTone):
        def density(self, x):
            return x.new_full((len(x),), 0.01)

        surface_level = density

    with pytest.raises(MeshError, match=r"no ray meets anything opaque.*train longer"):
        MeshExporter(MeshExporter.Config())(Fog(), tmp_path)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export(tmp_path / "file", formats=["stl"], fmt="obj")


def test_the_poster_shows_the_front_from_the_file(exported):
    image = np.asarray(Image.open(exported.files["poster"]).convert("RGB"))
    height, width = image.shape[0] // 2, image.shape[1] // 2
    front, back = image[:height, :width], image[height:, :width]
    assert (front[0, 0] == 255).all(), "white around it"
    red, _, blue = front[height // 2 + height // 6, width // 2].astype(int)
    assert red > 100 > blue + 50
    assert back[height // 2 + height // 6, width // 2].max() < 60, "black behind and below"


def test_a_normal_map_on_request(tmp_path):
    result = export(tmp_path, formats=["glb", "gltf", "obj"], normal_map=True)
    document = json.loads(result.files["gltf"].read_text())
    material = document["materials"][0]
    assert document["images"][material["normalTexture"]["index"]]["uri"] == "model_normal.png"
    tangents = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["TANGENT"]]
    assert (tangents["type"], tangents["count"]) == ("VEC4", len(result.mesh.vertices))
    assert "norm model_normal.png" in result.files["mtl"].read_text()
    pixels = np.asarray(Image.open(result.files["normal_map"]), float) / 255 * 2 - 1
    assert np.median(pixels[..., 2]) > 0.99, "a ball has no detail that its light mesh lacks"
    assert np.abs(np.linalg.norm(pixels, axis=-1) - 1).max() < 0.05


def test_lighter_files_on_request(tmp_path):
    result = export(tmp_path, formats=["glb"], lods=[400], unwrap_time_limit_s=0.0)
    read = trimesh.load(result.files["lod_400"], force="mesh")
    assert 100 < len(read.faces) <= 440
    assert read.visual.uv is not None
    assert result.stats["lods"]["400"]["health"]["watertight"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": ["fbx"]}, "'fbx' cannot be written"),
        ({"texture_size": 3}, "64 to 8192"),
        ({"texture_format": "bmp"}, "neither png nor jpg"),
        ({"isosurface_resolution": 4}, "8 to 1024"),
        ({"fmt": "fbx"}, "neither obj-mtl nor obj"),
        ({"lods": [2]}, "at least 4"),
        ({"normal_map": True, "save_uv": False}, "normal_map needs"),
    ],
)
def test_bad_settings_are_reported(changes, message):
    with pytest.raises(ConfigError, match=message):
        EXPORTERS.get("mesh-exporter")(MeshExporter.Config(**changes))


def test_photo_is_put_on_what_it_sees(tmp_path):
    class Grey(TwoTone):
        def query(self, x, dirs, needs, light_positions=None):
            return FieldOutput(self.density(x), x.new_full((len(x), 3), 0.4))

    truth = export(tmp_path / "truth", formats=["stl"]).mesh
    assert truth.vertex_colors is not None
    truth.texture, truth.vertex_colors = None, 0.5 + 0.4 * np.sin(5 * truth.vertices)
    camera = orbit_cameras(10.0, 0.0, height=96, width=96)
    rgba = torch.from_numpy(render_mesh(truth, camera)).float()[None]
    reference = ReferenceView(camera, rgba[..., :3], rgba[..., 3:])
    rendered = {}
    for on in (False, True):
        exporter = MeshExporter(MeshExporter.Config(formats=["glb"], project_photo=on, **SMALL))
        rendered[on] = render_mesh(exporter(Grey(), tmp_path, reference=reference).mesh, camera)
    score = {on: psnr(on_white(p), on_white(rgba[0].numpy())) for on, p in rendered.items()}
    assert score[True] > score[False] + 5
    assert score[True] > 26


def test_what_exceeds_the_silhouette_is_cut_off(tmp_path):
    camera = orbit_cameras(10.0, 30.0, height=200, width=200)
    row, column = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    mask = ((row - 100).abs() < 40) & ((column - 90).abs() < 60)  # the ball's own silhouette is a disc of 90 pixels
    reference = ReferenceView(camera, torch.full((1, 200, 200, 3), 0.5), mask[None, ..., None].float())

    def silhouette(reference, **changes):
        exporter = MeshExporter(MeshExporter.Config(**{"formats": ["stl"], **SMALL, **changes}))
        result = exporter(TwoTone(), tmp_path, threshold=50.0, reference=reference)
        assert mesh_health(result.mesh.vertices, result.mesh.faces).watertight
        return render_mesh(result.mesh, camera)[..., 3] > 0.5

    assert mask_iou(silhouette(reference), mask.numpy()) > 0.96
    whole = silhouette(reference, cut_to_silhouette=False)
    assert mask_iou(whole, mask.numpy()) < 0.75
    # Several images need not agree on where things are.
    twice = ReferenceView(
        orbit_cameras(torch.tensor([10.0, 10.0]), torch.tensor([30.0, 30.0]), height=200, width=200),
        reference.rgb.expand(2, -1, -1, -1),
        reference.mask.expand(2, -1, -1, -1),
    )
    assert mask_iou(silhouette(twice), whole) > 0.99


def test_nothing_is_cut_outside_the_frame(tmp_path):
    """An image that shows the middle of the ball alone does not constrain the rest."""
    camera = orbit_cameras(10.0, 30.0, height=64, width=64, fovy_deg=4.0)
    filled = ReferenceView(camera, torch.full((1, 64, 64, 3), 0.5), torch.ones(1, 64, 64, 1))
    exporter = MeshExporter(MeshExporter.Config(formats=["stl"], **SMALL))
    cut, whole = (exporter(TwoTone(), tmp_path, threshold=50.0, reference=r).mesh for r in (filled, None))
    assert np.ptp(cut.vertices, axis=0) == pytest.approx(np.ptp(whole.vertices, axis=0), abs=0.01)


class Layers:
    """Density by depth below x = 0; green above a depth of 0.03, red below it."""

    bound = 1.0

    def __init__(self, sigma):
        self.sigma = sigma

    def density(self, x):
        return torch.where(x[:, 0] < 0, self.sigma, 0.0)

    surface_level = density

    def gaussians(self, centers, needs, light_positions):
        return None

    def query(self, x, dirs, needs, light_positions=None):
        red = (x[:, 0] < -0.03).float()
        return FieldOutput(sigma=self.density(x), rgb=torch.stack([red, 1 - red, torch.zeros_like(red)], dim=-1))


@pytest.mark.parametrize("sigma", [1.0, 40.0])
def test_colours_are_composited_through_the_surface(sigma):
    # 9 samples from 0.09 before to 0.09 behind the surface: those at 0.02, 0.04, 0.06 and 0.08 behind it are dense.
    gathered = field_colors(Layers(sigma), np.zeros((3, 3)), np.array([[-1.0, 0, 0]] * 3), depth=0.09)
    clear = np.exp(-sigma * 0.02)
    green, red = 1 - clear, clear - clear**4
    assert gathered == pytest.approx(np.array([[red, green, 0]] * 3) / (1 - clear**4), abs=1e-5)


def test_empty_rays_take_the_point_colour():
    points, inwards = np.array([[-0.02, 0, 0], [-0.04, 0, 0]]), np.array([[-1.0, 0, 0]] * 2)
    assert field_colors(Layers(1e-3), points, inwards, depth=0.09).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert field_colors(Layers(1e3), points, inwards).tolist() == [[0, 1, 0], [1, 0, 0]], "no depth: the same"


def test_a_second_export_removes_the_first_files(tmp_path):
    export(tmp_path, formats=["glb", "gltf", "obj"], lods=[400], texture_size=128, poster=True)
    for mine in ("model.blend", "model_final.glb", "notes.txt"):
        (tmp_path / mine).touch()
    result = export(tmp_path, formats=["obj"], fmt="obj", poster=False)
    kept = {path.name for path in result.files.values()} | {"model.blend", "model_final.glb", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == kept
