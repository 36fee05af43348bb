"""Every format read back by trimesh and by a second reader, and rendered: orientation, colours, scale."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import meshio
import numpy as np
import pytest
import trimesh

from zero123s.exporter.gltf import Z_UP_TO_Y_UP
from zero123s.exporter.writers import MILLIMETRES_PER_UNIT, WRITERS
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.mesh import vertex_normals
from zero123s.ops.rasterize import render_mesh
from zero123s.ops.texture import bake
from zero123s.ops.unwrap import UnwrapOptions, unwrap
from zero123s.scenes.mesh_files import read_mesh
from zero123s.structures import Mesh

ROOT = Path(__file__).parents[2]
EXTRAS = {"generator": "zero123s test", "model_licence": "CC-BY <4.0> & more"}


@pytest.fixture(scope="module")
def mesh():
    """An egg with its tip up and a nose in front; red grows to the front, green upwards, blue to its left (+y)."""
    ball = trimesh.creation.icosphere(3, 0.4)
    vertices, faces = np.asarray(ball.vertices) * [1.0, 0.8, 1.3], np.asarray(ball.faces)
    vertices[:, 0] += 0.25 * (vertices[:, 0] > 0.37)
    result = unwrap(vertices, faces, UnwrapOptions(texture_size=256, time_limit_s=0))
    normals = vertex_normals(vertices, faces)[result.vertex_index]
    vertices = vertices[result.vertex_index]
    texture = bake(vertices, normals, result.faces, result.uvs, 256, lambda s: paint(s.points))
    return Mesh(vertices, result.faces, normals, paint(vertices), result.uvs, texture, extras=EXTRAS)


def paint(points):
    return (0.5 + 0.8 * points).clip(0, 1)


@pytest.fixture(scope="module", params=["texture", "vertices"])
def files(request, mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    shown = mesh if request.param == "texture" else Mesh(mesh.vertices, mesh.faces, mesh.normals, mesh.vertex_colors)
    shown.extras = EXTRAS
    written = {}
    for name, write in WRITERS.items():
        written[name] = write(shown, folder / name, "model", "png")[name]
    return written


@pytest.mark.parametrize("kind", ["glb", "gltf", "obj", "ply", "stl"])
@pytest.mark.parametrize("azimuth", [0.0, 70.0])
def test_rendered_from_the_file_it_looks_as_it_should(mesh, files, kind, azimuth):
    camera = orbit_cameras(20.0, azimuth, height=64, width=64)
    wanted, got = render_mesh(mesh, camera), render_mesh(read_mesh(files[kind]), camera)
    assert np.abs(got[..., 3] - wanted[..., 3]).max() < 0.02
    solid = wanted[..., 3] == 1
    if kind != "stl":
        # 8-bit colours; the texture's bilinear samples at the borders of its small triangles add some.
        assert np.abs(got[solid] - wanted[solid])[:, :3].mean() < 0.01


def test_trimesh_reads_all_that_it_can_with_the_same_volume(mesh, files):
    volume = trimesh.Trimesh(mesh.vertices, mesh.faces).volume
    for kind in ("glb", "gltf", "obj", "ply", "stl"):
        assert trimesh.load(files[kind], force="mesh").volume == pytest.approx(volume, rel=1e-4), kind


def test_meshio_reads_obj_ply_and_stl(mesh, files):
    for kind in ("obj", "ply", "stl"):
        read = meshio.read(files[kind])
        triangles = sum(len(c.data) for c in read.cells if c.type == "triangle")
        assert triangles == len(mesh.faces), kind
        np.testing.assert_allclose(np.ptp(read.points[:, :3], axis=0), np.ptp(mesh.vertices, axis=0), atol=1e-5)


def test_3mf_has_millimetres_joined_seams_and_the_licence(mesh, files):
    model = zipfile.ZipFile(files["3mf"]).read("3D/3dmodel.model").decode()
    assert 'unit="millimeter"' in model
    assert "CC-BY &lt;4.0&gt; &amp; more" in model
    read = trimesh.load(files["3mf"], force="mesh")
    np.testing.assert_allclose(read.extents, np.ptp(mesh.vertices, axis=0) * MILLIMETRES_PER_UNIT, rtol=1e-4)
    assert read.is_watertight


def test_usdz_opens_in_usd_with_its_picture(mesh, files):
    pxr = pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdShade, UsdUtils

    assert pxr
    stage = Usd.Stage.Open(str(files["usdz"]))
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    prim = UsdGeom.Mesh(stage.GetPrimAtPath("/Model/Mesh"))
    np.testing.assert_allclose(np.array(prim.GetPointsAttr().Get()), mesh.vertices @ Z_UP_TO_Y_UP.T, atol=1e-6)
    assert len(prim.GetFaceVertexCountsAttr().Get()) == len(mesh.faces)
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    assert material
    names = zipfile.ZipFile(files["usdz"]).namelist()
    primvars = UsdGeom.PrimvarsAPI(prim)
    if primvars.HasPrimvar("st"):
        assert names == ["model.usda", "texture.png"]
        _, assets, unresolved = UsdUtils.ComputeAllDependencies(str(files["usdz"]))
        assert any("texture.png" in str(a) for a in assets)
        assert not unresolved
    else:
        assert primvars.HasPrimvar("displayColor")
    data = files["usdz"].read_bytes()
    for info in zipfile.ZipFile(files["usdz"]).infolist():
        start = info.header_offset + 30 + len(info.filename)
        start += int.from_bytes(data[info.header_offset + 28 : info.header_offset + 30], "little")
        assert start % 64 == 0, "USDZ wants file contents at multiples of 64 bytes"


VALIDATE = """
const fs = require('fs'), path = require('path'), validator = require('gltf-validator');
const file = process.argv[1];
const near = (uri) => Promise.resolve(new Uint8Array(fs.readFileSync(path.join(path.dirname(file), uri))));
validator.validateBytes(new Uint8Array(fs.readFileSync(file)), {externalResourceFunction: near})
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


@pytest.mark.parametrize("kind", ["glb", "gltf"])
def test_the_khronos_validator_finds_nothing(files, kind):
    node = shutil.which("node")
    if node is None or not (ROOT / "node_modules" / "gltf-validator").is_dir():
        pytest.skip("needs node and `npm install --no-save gltf-validator` in the repository; .ci/run does that")
    done = subprocess.run([node, "-e", VALIDATE, files[kind]], cwd=ROOT, capture_output=True, text=True, check=True)
    issues = json.loads(done.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]
