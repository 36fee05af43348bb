"""`zero123s evaluate` on meshes whose scores are known, and the report it writes."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from tiny_lpips import write_weights

from zero123s.commands.main import main
from zero123s.diffusion.checkpoint.lpips_files import load_lpips
from zero123s.evaluate.scores import health_scores, sample_outer_surface, seen_volume_iou, surface_scores, view_scores
from zero123s.images.svg_plot import curve
from zero123s.mesh.gltf import write_glb
from zero123s.mesh.metrics import chamfer, volume_iou
from zero123s.mesh.processing import vertex_normals
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import render_mesh
from zero123s.structures import Mesh, ReferenceView


def ball(radius=0.4, center=(0.0, 0.0, 0.0)):
    sphere = trimesh.creation.icosphere(3, radius)
    vertices, faces = np.asarray(sphere.vertices) + center, np.asarray(sphere.faces)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), (0.5 + vertices).clip(0, 1))


def views_of(mesh, n=3, size=64):
    cameras = orbit_cameras(10.0, torch.arange(n) * 120.0, height=size, width=size)
    rgba = np.stack([render_mesh(mesh, cameras.select(slice(i, i + 1))) for i in range(n)])
    rgba = torch.from_numpy(rgba).float()
    return ReferenceView(cameras, rgba[..., :3], rgba[..., 3:])


def solid_iou(a, b):
    return volume_iou((a.vertices, a.faces), (b.vertices, b.faces), resolution=64)


def test_a_mesh_against_its_own_images_and_itself():
    mesh = ball()
    scores = view_scores(mesh, views_of(mesh))
    assert scores["psnr_db"] > 60
    assert scores["ssim"] == pytest.approx(1.0)
    assert scores["mask_iou"] == 1.0
    same = surface_scores(mesh, mesh, n_points=4000)
    assert same["volume_iou"] == same["silhouette_iou"] == 1.0
    assert same["chamfer_of_extent"] < 0.02  # two samplings of one surface
    assert same["f_score_at_0.05_of_extent"] > 0.999
    assert same["normal_consistency"] > 0.98
    bumps = np.random.default_rng(0).normal(0, 0.008, mesh.vertices.shape)
    bumpy = surface_scores(replace(mesh, vertices=mesh.vertices + bumps), mesh, n_points=4000)
    assert bumpy["chamfer_of_extent"] < same["chamfer_of_extent"] + 0.01
    assert bumpy["normal_consistency"] < 0.97, "bumps that distances hardly see"


def test_a_smaller_ball_has_closed_form_scores():
    truth, small = ball(0.4), ball(0.36, (0.0, 0.0, 0.0))
    ours, theirs = sample_outer_surface(small, 8000, 0.8, seed=1)[0], sample_outer_surface(truth, 8000, 0.8)[0]
    assert chamfer(ours, theirs) == pytest.approx(0.04, abs=0.004)
    assert solid_iou(small, truth) == pytest.approx(0.9**3, abs=0.02)
    aligned = surface_scores(ball(0.36, (0.05, 0.0, 0.0)), truth, align=True, n_points=4000)
    assert aligned["alignment_scale"] == pytest.approx(1 / 0.9, rel=0.02)
    assert aligned["volume_iou"] > 0.96


def test_a_cavity_counts_only_where_visible():
    """A hollow ball looks like a whole one; an open bowl does not: its hollow, 0.8^3 of it, must be there."""
    whole = ball()
    inside = trimesh.creation.icosphere(3, 0.8 * 0.4)
    shell = trimesh.util.concatenate([trimesh.Trimesh(whole.vertices, whole.faces), inside])
    shell.faces[len(whole.faces) :] = shell.faces[len(whole.faces) :, ::-1]
    hollow = Mesh(np.asarray(shell.vertices), np.asarray(shell.faces))
    assert solid_iou(whole, hollow) == pytest.approx(1 - 0.8**3, abs=0.02)
    assert seen_volume_iou(whole, hollow, resolution=64) > 0.995
    angle = np.linspace(0, np.pi / 2, 24)
    outer, inner = (
        np.stack([0.4 * np.sin(angle), -0.4 * np.cos(angle)], 1),
        np.stack([np.sin(angle), -np.cos(angle)], 1),
    )
    bowl = trimesh.creation.revolve(np.concatenate([outer, 0.32 * inner[::-1]]), sections=64)
    half = trimesh.creation.revolve(np.concatenate([outer, [[0.0, 0.0]]]), sections=64)
    pair = [Mesh(np.asarray(m.vertices), np.asarray(m.faces)) for m in (half, bowl)]
    assert solid_iou(*pair) == pytest.approx(1 - 0.8**3, abs=0.03)
    assert seen_volume_iou(*pair, resolution=64) == pytest.approx(solid_iou(*pair), abs=0.01)


def test_walls_inside_the_truth_are_no_surface():
    outer, inner = ball(0.4), ball(0.2)
    both = Mesh(np.concatenate([outer.vertices, inner.vertices]), np.concatenate([outer.faces, inner.faces + 642]))
    # Nor do they take points away from the surface: few points are far from everything.
    ours, _ = sample_outer_surface(outer, 4000, 0.8, seed=1)
    distances = [chamfer(ours, sample_outer_surface(truth, 4000, 0.8)[0]) for truth in (both, outer)]
    assert distances[0] == pytest.approx(distances[1], rel=0.03)


def test_health_counts_crossing_faces():
    a, b = ball(0.4), ball(0.3, (0.35, 0.02, 0.01))
    both = Mesh(np.concatenate([a.vertices, b.vertices]), np.concatenate([a.faces, b.faces + len(a.vertices)]))
    assert health_scores(a)["self_intersecting_faces"] == 0
    scores = health_scores(both)
    assert scores["components"] == 2
    assert scores["self_intersecting_faces"] > 20


class Links(HTMLParser):
    """Collects tags, and every address that a page would load."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        """Note it."""
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder as training leaves it, without the training."""
    folder = tmp_path_factory.mktemp("run<1>")
    mesh = ball()
    write_glb(mesh, folder / "export", "model", "png")
    export = {"threshold": 3.0, "threshold_curve": {"levels": [1, 2, 3], "silhouette_iou": [0.5, 0.8, 0.9]}}
    (folder / "run.json").write_text(json.dumps({"state": "finished", "export": export, "warnings": ["<b>odd</b>"]}))
    logs = folder / "csv_logs" / "version_0"
    logs.mkdir(parents=True)
    (logs / "metrics.csv").write_text("epoch,loss/total,step\n0,2.0,1\n0,1.0,2\n")
    trimesh.Trimesh(mesh.vertices, mesh.faces).export(folder / "truth.ply")
    return folder


def test_the_command_writes_a_self_contained_report(run, capsys):
    assert main(["evaluate", str(run), "--gt", str(run / "truth.ply")]) == 0
    printed = capsys.readouterr().out
    assert "volume iou" in printed
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["surface"]["volume_iou"] > 0.99
    assert scores["health"]["watertight"] is True
    text = (run / "report.html").read_text()
    page = Links()
    page.feed(text)
    assert {"canvas", "svg", "script", "table", "details"} <= set(page.tags)
    assert all(address.startswith("data:") for address in page.addresses)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", ""), (
        "a namespace is not an address to fetch from"
    )
    assert "https://" not in text
    assert "<b>odd</b>" not in text
    assert "&lt;b&gt;odd&lt;/b&gt;" in text
    assert "run&lt;1&gt;" in text
    assert "loss/total" in text


def test_a_run_without_its_images_is_scored(run, capsys):
    (run / "config.yaml").write_text("data_type: multi-view-datamodule\ndata: {transforms_path: gone.json}\n")
    assert main(["evaluate", str(run)]) == 0
    assert "note: the input view is left out" in capsys.readouterr().err
    (run / "config.yaml").unlink()


def test_a_run_with_custom_classes_is_scored(run, tmp_path, monkeypatch, capsys):
    from zero123s.images.io import write_png_atomic

    camera = orbit_cameras(5.0, 0.0, height=96, width=96)
    write_png_atomic(tmp_path / "photo.png", render_mesh(ball(), camera).astype(np.float32))
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "own_background_of_evaluate.py").write_text(
        "from zero123s.background import BACKGROUNDS\n"
        "from zero123s.background.solid import SolidColorBackground\n"
        "@BACKGROUNDS.register('own-background-of-evaluate')\n"
        "class Own(SolidColorBackground):\n    'Mine.'\n"
    )
    config = f"data: {{image_path: {tmp_path}/photo.png}}\nsystem: {{background_type: own-background-of-evaluate}}\n"
    (run / "config.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(run), "--out", str(tmp_path)]) == 0
    (run / "config.yaml").unlink()
    assert "left out" not in capsys.readouterr().err
    assert json.loads((tmp_path / "metrics.json").read_text())["input_view"]["psnr_db"] > 25


def test_a_mesh_against_an_image(run, tmp_path):
    from zero123s.images.io import write_png_atomic

    image = tmp_path / "photo.png"
    camera = orbit_cameras(5.0, 0.0, height=96, width=96)
    write_png_atomic(image, render_mesh(ball(), camera).astype(np.float32))
    overrides = ["evaluate", str(run / "export" / "model.glb"), "--image", str(image), "--out", str(tmp_path)]
    assert main(overrides) == 0
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert scores["input_view"]["psnr_db"] > 35
    assert "Comparison with the input" in (tmp_path / "report.html").read_text()


@pytest.fixture
def image_folder(tmp_path, monkeypatch):
    """A photo and a transforms.json of a slightly smaller ball, on a machine without weights of LPIPS."""
    from zero123s.diffusion.checkpoint import lpips_files
    from zero123s.images.io import write_png_atomic

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(lpips_files, "INSTALLED_LINEAR", {})
    views = views_of(ball(0.36), n=2)
    frames = []
    for i, rgba in enumerate(torch.cat([views.rgb, views.mask], dim=-1).numpy()):
        write_png_atomic(tmp_path / f"{i}.png", rgba)
        frames.append({"file_path": f"{i}", "transform_matrix": views.cameras.c2w[i].tolist()})
    text = json.dumps({"camera_angle_x": float(np.radians(20.0)), "frames": frames})
    (tmp_path / "transforms.json").write_text(text)
    return tmp_path


def scores_of(run, image_folder, *overrides):
    """Evaluate the ball against the images; the scores, and the exit code if that is not 0."""
    given = ["--image", str(image_folder / "0.png"), "--elevation", "10", "--gt", str(image_folder / "transforms.json")]
    code = main(["evaluate", str(run / "export" / "model.glb"), *given, "--out", str(image_folder / "out"), *overrides])
    return code or json.loads((image_folder / "out" / "metrics.json").read_text())


@pytest.mark.parametrize(("net", "key"), [("alex", "lpips"), ("vgg", "lpips_vgg")])
def test_lpips_scores_views_with_given_weights(run, image_folder, net, key, capsys):
    folder = write_weights(image_folder / "weights", net)
    scores = scores_of(run, image_folder, "--lpips", str(folder), "--lpips-net", net)
    assert scores["input_view"][key] > 0
    assert scores["novel_views"][key] > 0
    assert capsys.readouterr().out.count(f"  {key.replace('_', ' ')} ") == 2
    assert f"<td>{key.replace('_', ' ')}</td>" in (image_folder / "out" / "report.html").read_text()
    lpips = load_lpips(net, folder)
    views = views_of(ball(0.36), n=2)
    assert view_scores(ball(0.36), views, lpips)[key] < 0.01 * view_scores(ball(0.3), views, lpips)[key]


def test_lpips_without_weights_fails_only_when_requested(run, image_folder, capsys):
    assert "lpips" not in scores_of(run, image_folder)["input_view"]
    assert "LPIPS" not in capsys.readouterr().err, "not requested"
    for overrides in (["--lpips", str(image_folder)], ["--lpips-net", "alex"]):
        assert scores_of(run, image_folder, *overrides) == 2
        assert "LPIPS lacks alexnet-owt-7be5be79.pth and alex.pth in" in capsys.readouterr().err
    hub = write_weights(image_folder / "torch" / "hub" / "checkpoints")
    assert scores_of(run, image_folder)["input_view"]["lpips"] > 0
    mesh = str(run / "export" / "model.glb")
    assert main(["evaluate", mesh, "--out", str(image_folder / "out"), "--lpips", str(hub)]) == 0
    assert "note: LPIPS compares images, and there are none" in capsys.readouterr().err
    (hub / "alexnet-owt-7be5be79.pth").write_bytes(b"half a download")
    assert "lpips" not in scores_of(run, image_folder)["input_view"]
    assert "note: the perceptual distance is left out: Cannot use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["nowhere"], "neither a mesh file nor a run folder"),
        (["RUN", "--gt", "missing.ply"], "--gt missing.ply: is not a file"),
    ],
)
def test_mistakes_are_reported(run, overrides, message, capsys):
    assert main(["evaluate", *[str(run) if w == "RUN" else w for w in overrides]]) == 2
    assert message in capsys.readouterr().err


def test_a_curve_leaves_out_what_is_not_finite():
    assert curve("x", [0.0, 1.0], [float("nan"), 1.0]) == ""
    assert "polyline" in curve("a <b>", [0.0, 1.0, 2.0], [1.0, float("inf"), 2.0])
    assert "a &lt;b&gt;" in curve("a <b>", [0.0, 1.0], [1.0, 2.0])


def test_the_viewer_is_valid_javascript():
    import shutil
    import subprocess

    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    viewer = Path(__file__).parents[2] / "zero123s" / "evaluate" / "viewer.js"
    subprocess.run([node, "--check", str(viewer)], check=True)
