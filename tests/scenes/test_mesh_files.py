import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from zero123s.errors import MeshError
from zero123s.mesh.readers import load_mesh
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.mesh_collections import mesh_objects
from zero123s.scenes.render import Light, render_views

WHITE_LIGHT = Light(ambient=1.0, sky=0.0, diffuse=0.0)


def middle(scene, azimuth=0.0, elevation=0.0):
    return render_views(scene, orbit_cameras(elevation, azimuth, height=33, width=33), WHITE_LIGHT).rgba[0, 16, 16, :3]


def coloured_box(size=(1, 2, 3), color=(200, 50, 100)):
    mesh = trimesh.creation.box(size)
    mesh.visual.vertex_colors = [*color, 255]
    return mesh


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_vertex_colours_survive(suffix, tmp_path):
    coloured_box().export(tmp_path / f"a.{suffix}")
    assert middle(load_mesh(tmp_path / f"a.{suffix}")) == pytest.approx(np.array([200, 50, 100]) / 255, abs=0.01)


def test_up_and_front_follow_the_format(tmp_path):
    for suffix, expected in (("glb", [3, 1, 2]), ("obj", [3, 1, 2]), ("ply", [1, 2, 3]), ("stl", [1, 2, 3])):
        coloured_box().export(tmp_path / f"a.{suffix}")
        size = np.ptp(load_mesh(tmp_path / f"a.{suffix}").vertices, axis=0)
        assert size / size.sum() * 6 == pytest.approx(expected, abs=1e-4), suffix
    size = np.ptp(load_mesh(tmp_path / "a.ply", up="y").vertices, axis=0)
    assert size / size.sum() * 6 == pytest.approx([3, 1, 2], abs=1e-4)


def textured(material):
    """A square facing +z (glTF's front), an image of red, green / blue, white on it."""
    vertices = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [0, 0, -1]]
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3], [0, 4, 1]], process=False)
    uv = [[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]]
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return mesh


def make_image():
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    return Image.fromarray(pixels.repeat(16, 0).repeat(16, 1))


@pytest.mark.parametrize("suffix", ["glb", "obj", "gltf"])
def test_textures_are_sampled_the_right_way_up(suffix, tmp_path):
    if suffix == "obj":
        material = trimesh.visual.material.SimpleMaterial(image=make_image())
    else:
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=make_image())
    mesh = textured(material)
    if suffix == "gltf":
        for name, content in trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh)).items():
            (tmp_path / name.replace("model.gltf", "a.gltf")).write_bytes(content)
    else:
        mesh.export(tmp_path / f"a.{suffix}")
    scene = load_mesh(tmp_path / f"a.{suffix}")
    view = render_views(scene, orbit_cameras(0.0, 0.0), WHITE_LIGHT).rgba[0]
    rows, columns = np.nonzero(view[..., 3] > 0.5)
    quarters = [(r, c) for r in (0.25, 0.75) for c in (0.25, 0.75)]
    corners = [view[int(np.quantile(rows, r)), int(np.quantile(columns, c)), :3] for r, c in quarters]
    assert np.array(corners) == pytest.approx(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), abs=0.02)


def test_base_colour_factors_are_linear_in_gltf(tmp_path):
    mesh = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0.5, 1.0, 0.0, 1.0])
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    mesh.export(tmp_path / "a.glb")
    # linear 0.5 is sRGB 0.7354; the factor is stored in 8 bits on the way
    assert middle(load_mesh(tmp_path / "a.glb")) == pytest.approx([0.7354, 1.0, 0.0], abs=0.004)


def test_nodes_place_their_meshes(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(coloured_box((1, 1, 1)), transform=trimesh.transformations.translation_matrix([4, 0, 0]))
    scene.add_geometry(coloured_box((1, 1, 1)))
    scene.export(tmp_path / "a.glb")
    size = np.ptp(load_mesh(tmp_path / "a.glb").vertices, axis=0)
    assert size / size.min() == pytest.approx([1, 5, 1], abs=1e-4)


def test_edges_stay_sharp_and_curves_smooth(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.stl")
    trimesh.creation.icosphere(3).export(tmp_path / "ball.stl")
    cameras = orbit_cameras(torch.tensor([20.0]), torch.tensor([30.0]))
    box = render_views(load_mesh(tmp_path / "box.stl"), cameras, geometry=True, supersample=1)
    ball = render_views(load_mesh(tmp_path / "ball.stl"), cameras, geometry=True, supersample=1)
    assert box.normal is not None
    assert ball.normal is not None
    hit = box.rgba[..., 3] > 0
    assert len(np.unique(np.round(box.normal[hit], 3), axis=0)) == 3
    assert len(np.unique(np.round(ball.normal[ball.rgba[..., 3] > 0], 3), axis=0)) > 500


def gltf(path, change):
    mesh = trimesh.creation.box()
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh))
    tree = json.loads(files.pop("model.gltf"))
    for name, content in files.items():
        (path.parent / name).write_bytes(content)
    change(tree)
    path.write_text(json.dumps(tree))


def outside(tree):
    tree["buffers"][0]["uri"] = "../secret.bin"


def outside_encoded(tree):
    tree["buffers"][0]["uri"] = "%2e%2e/secret.bin"


def absolute(tree):
    tree["buffers"][0]["uri"] = "/etc/hostname"


def huge(tree):
    tree["accessors"][0]["count"] = 10**12


def cycle(tree):
    tree["nodes"][0]["children"] = [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, "outside its own folder"),
        (outside_encoded, "outside its own folder"),
        (absolute, "outside its own folder"),
        (huge, "claims 1000000000000 elements"),
        (cycle, "no tree"),
    ],
)
def test_hostile_gltf_is_refused(change, message, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(5000))
    (tmp_path / "in").mkdir()
    gltf(tmp_path / "in" / "a.gltf", change)
    with pytest.raises(MeshError, match=message):
        load_mesh(tmp_path / "in" / "a.gltf")


@pytest.mark.parametrize("line", ["mtllib ../secret.mtl", "mtllib a.mtl"])
def test_an_obj_cannot_reach_out_of_its_folder(line, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl m\nKd 1 0 0\n")
    make_image().save(tmp_path / "secret.png")
    (tmp_path / "in" / "a.mtl").write_text("newmtl m\nmap_Kd ../secret.png\n")
    face = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
    (tmp_path / "in" / "a.obj").write_text(f"{line}\n{face}")
    with pytest.raises(MeshError, match="outside its own folder"):
        load_mesh(tmp_path / "in" / "a.obj")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl m\nKd 1 0 0\n")
    (tmp_path / "in" / "a.mtl").symlink_to(tmp_path / "secret.mtl")
    (tmp_path / "in" / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl m\nf 1 2 3\n")
    with pytest.raises(MeshError, match="outside its own folder"):
        load_mesh(tmp_path / "in" / "a.obj")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.stl", b"", "a.stl"),
        ("a.glb", b"glTF" + bytes(30), "a.glb"),
        ("a.glb", b"", "a.glb"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 99999999999\nend_header\n", "claims 99999999999"),
        ("a.stl", bytes(80) + struct.pack("<I", 4_000_000_000), "a.stl"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "a.obj"),
        ("a.obj", b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "has an area"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 30\n", "a.obj"),
        ("a.xyz", b"0 0 0", "not a mesh format"),
    ],
)
def test_damaged_files_end_in_one_sentence(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeshError, match=message):
        load_mesh(tmp_path / name)


def test_missing_files_and_unknown_axes_are_named(tmp_path):
    with pytest.raises(MeshError, match="is not a file"):
        load_mesh(tmp_path / "none.glb")
    coloured_box().export(tmp_path / "a.ply")
    with pytest.raises(MeshError, match="up axis 'x'"):
        load_mesh(tmp_path / "a.ply", up="x")


def test_collections_take_folders_uids_and_licences(tmp_path):
    for uid in ("b", "a", "c"):
        (tmp_path / "glbs" / uid).mkdir(parents=True)
        coloured_box().export(tmp_path / "glbs" / uid / f"{uid}.glb")
    (tmp_path / "uids.txt").write_text("# chosen\nb\na\n")
    (tmp_path / "meta.json").write_text(json.dumps({"a": {"license": "by"}}))
    objects = mesh_objects([tmp_path / "glbs"], tmp_path / "uids.txt", tmp_path / "meta.json")
    assert [(o.object_id, o.licence) for o in objects] == [("a", "by"), ("b", "unknown")]
    assert [o.object_id for o in mesh_objects([tmp_path / "glbs"])] == ["a__a", "b__b", "c__c"]
    (tmp_path / "uids.txt").write_text("b\nmissing\n")
    with pytest.raises(MeshError, match="1 of 2 uids have no mesh file, first 'missing'"):
        mesh_objects([tmp_path / "glbs"], tmp_path / "uids.txt")
    with pytest.raises(MeshError, match="no mesh files"):
        mesh_objects([tmp_path / "uids.txt"])
