"""The command line from images to a mesh, on a scene whose truth is known in closed form."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import trimesh
from full_disk import files_no_larger_than
from PIL import Image

from zero123s.commands.launch import main
from zero123s.evaluate.evaluation import evaluate
from zero123s.mesh.readers import read_mesh
from zero123s.ops.cameras import generate_rays, orbit_cameras

REPOSITORY = Path(__file__).parents[2]
CONFIG = str(REPOSITORY / "configs" / "multi-view.yaml")
RADIUS = 0.4
QUICK = [
    "data.height=[24,32]",
    "data.width=[24,32]",
    "data.batch_size=4",
    "data.resolution_milestones=[40]",
    "data.random_camera.eval_height=32",
    "data.random_camera.eval_width=32",
    "data.random_camera.n_val_views=2",
    "data.random_camera.n_test_views=4",
    "system.renderer.num_samples_per_ray=64",
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.geometry.pos_encoding_config.log2_hashmap_size=12",
    "system.exporter.isosurface_resolution=64",
    "system.exporter.texture_size=128",
    "system.exporter.max_faces=4000",
    "system.exporter.poster=false",
    "trainer.max_steps=80",
    "trainer.enable_progress_bar=false",
    "threads=1",  # other tests may keep the other cores busy
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A ball, red in front (x > 0) and blue behind, as 16 RGBA images with poses."""
    folder = tmp_path_factory.mktemp("ball")
    azimuth = torch.arange(16) * 22.5
    cameras = orbit_cameras(torch.tensor([-10.0, 20.0, 50.0, 80.0]).repeat(4), azimuth, height=64, width=64)
    rays = generate_rays(cameras)
    b = (rays.rays_o * rays.rays_d).sum(-1)
    inside = b**2 - (rays.rays_o.square().sum(-1) - RADIUS**2)
    hit = rays.rays_o + (-b - inside.clamp_min(0).sqrt())[..., None] * rays.rays_d
    red = (hit[..., :1] > 0).float()
    rgba = torch.cat([red, torch.zeros_like(red), 1 - red, (inside > 0).float()[..., None]], dim=-1)
    frames = []
    for i, image in enumerate((255 * rgba).to(torch.uint8).numpy()):
        Image.fromarray(image).save(folder / f"{i}.png")
        frames.append({"file_path": f"{i}", "transform_matrix": cameras.c2w[i].tolist()})
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": float(np.radians(20.0)), "frames": frames}))
    return folder


def launch(scene, out, *words):
    base = ["--config", CONFIG, f"data.transforms_path={scene / 'transforms.json'}", f"exp_root_dir={out}", *QUICK]
    return main([*base, *words])


@pytest.fixture(scope="module")
def run(scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("outputs")
    assert launch(scene, out, "--train") == 0
    (folder,) = (p for p in (out / "multi-view").iterdir() if p.is_dir())
    return folder


def test_the_mesh_is_the_ball(run):
    mesh = trimesh.load(run / "export" / "model.ply")
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.25)
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(RADIUS, rel=0.1)
    colors = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(float) / 255
    front, back = mesh.vertices[:, 0] > 0.2, mesh.vertices[:, 0] < -0.2
    assert min(colors[front, 0].mean(), colors[back, 2].mean()) > 0.8
    assert max(colors[front, 2].mean(), colors[back, 0].mean()) < 0.2


def test_the_scores_of_the_exported_mesh(scene, run, tmp_path):
    trimesh.creation.icosphere(4, RADIUS).export(tmp_path / "truth.ply")
    scores = evaluate(
        read_mesh(run / "export" / "model.glb"), None, [tmp_path / "truth.ply", scene / "transforms.json"]
    )
    assert scores["surface"]["volume_iou"] > 0.8
    assert scores["surface"]["chamfer_of_extent"] < 0.05
    assert scores["novel_views"]["psnr_db"] > 18
    assert scores["health"]["watertight"] is True


def test_the_record_has_what_happened(run):
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["step"] == 80
    assert record["metrics"]["psnr"] > 18
    assert record["metrics"]["mask_iou"] > 0.85
    assert all((run / p).is_file() for p in record["files"].values())
    names = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert {"config.yaml", "cmd.txt", "env.txt", "ckpts/last.ckpt", "save/it80-test.mp4", "save/it80-val.png"} <= names
    assert not [n for n in names if ".part" in n]
    assert not set(run.name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@-")


def test_a_preview_is_logged_once(scene, tmp_path):
    words = [
        "use_timestamp=false",
        "tag=a",
        "export_after_train=false",
        "trainer.max_steps=9",
        "trainer.log_every_n_steps=1",
    ]
    assert launch(scene, tmp_path, "--train", *words, "trainer.val_check_interval=4") == 0
    (table,) = (tmp_path / "multi-view" / "a" / "csv_logs").rglob("metrics.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["preview/psnr"]] == ["4", "8"]
    assert len([row for row in rows if row["loss/total"]]) == 9


def test_the_written_config_runs_again(run, capsys):
    assert main(["--config", str(run / "config.yaml"), "--train", "--dry-run", "--profile", "none"]) == 0
    assert "max_steps: 80" in capsys.readouterr().out


def test_export_and_test_from_a_checkpoint(scene, run, capsys):
    (run / "export" / "model.glb").unlink()
    assert launch(scene, run.parent.parent, "--export", "resume=last") == 0
    mesh = trimesh.load(run / "export" / "model.glb", force="mesh")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)  # the file splits vertices at texture seams
    assert mesh.is_watertight


def test_resuming_keeps_the_settings_of_the_run(run, tmp_path, capsys):
    """The export of a run on my own image must not take the sample image that the file names."""
    words = ["--config", CONFIG, "--export", f"resume={run}", "system.exporter.max_faces=2000"]
    assert main(words) == 0, "transforms_path and sizes are those of the run"
    assert f"going on with the run's own settings, {run / 'config.yaml'}" in capsys.readouterr().err
    assert len(trimesh.load(run / "export" / "model.ply").faces) <= 2000
    assert main([*words, "data.transforms_path=missing.json"]) == 2, "but overrides count"


def test_resumed_weights_are_the_uninterrupted_ones(scene, tmp_path):
    words = ["use_timestamp=false", "export_after_train=false", "trainer.val_check_interval=1000"]
    assert launch(scene, tmp_path / "a", "--train", *words, "tag=a", "trainer.max_steps=10") == 0
    assert launch(scene, tmp_path / "b", "--train", *words, "tag=b", "trainer.max_steps=6") == 0
    assert launch(scene, tmp_path / "b", "--train", *words, "tag=b", "trainer.max_steps=10", "resume=last") == 0
    a, b = (
        torch.load(tmp_path / n / "multi-view" / n / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]
        for n in "ab"
    )
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exprot"], r"Unknown flag '--exprot'\. Did you mean '--export'\?"),
        (["--train", "trainer.max_stps=3"], r"Unknown key 'trainer.max_stps'. Did you mean 'trainer.max_steps'?"),
        (["--train", "system.loss.lambda_rbg=3"], "Did you mean 'system.loss.lambda_rgb'?"),
        (["--train", "system.geometry_type=implicit-volum"], "Did you mean 'implicit-volume'?"),
        (["--export"], "--export needs resume="),
        (["--train", "resume=nowhere"], "resume=nowhere: no such checkpoint"),
        (["--train", "resume=last"], "there is none below"),
        (["--train", "--test"], "not allowed with"),
        (["--train", "data.transforms_path=missing.json"], "'missing.json' is not a file"),
        (["--train", "exp_root_dir=/dev/null/x"], "cannot be written"),
        (["--train", "words"], "is not an override"),
        (["--train", "--profile", "gpu"], "has no profile 'gpu'"),
    ],
)
def test_mistakes_get_one_sentence(scene, tmp_path, capsys, words, message):
    flags = [] if words[0] != "--exprot" else ["--train"]
    assert launch(scene, tmp_path, *flags, *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message.replace("\\", "") in error
    assert not (tmp_path / "multi-view").exists()


def test_launch_py_shows_its_help():
    done = subprocess.run(
        [sys.executable, "launch.py", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "--dry-run" in done.stdout
    assert "resume=last" in done.stdout


def test_a_full_disk_leaves_the_last_whole_mesh(run, scene, capsys):
    before = {path.name: path.read_bytes() for path in (run / "export").iterdir()}
    words = ["--export", f"resume={run}", "system.exporter.max_faces=3000", "system.exporter.isosurface_resolution=32"]
    with files_no_larger_than(20_000):
        assert launch(scene, run.parents[1], *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: '")
    assert "the disk is full or a quota is reached" in error
    after = {path.name: path.read_bytes() for path in (run / "export").iterdir()}
    assert after.keys() == before.keys(), "nothing half-written lies about"
    assert len(trimesh.load(run / "export" / "model.glb", force="mesh").faces) > 0
    assert launch(scene, run.parents[1], *words) == 0
    assert (run / "export" / "model.glb").read_bytes() != before["model.glb"]


def test_the_whole_job_passes_every_type_check(scene, tmp_path):
    words = ["--config", CONFIG, "--train", "--typecheck", f"data.transforms_path={scene / 'transforms.json'}"]
    words += [f"exp_root_dir={tmp_path}", *QUICK, "trainer.max_steps=3", "data.resolution_milestones=[2]"]
    words += ["data.height=[12,16]", "data.width=[12,16]", "data.batch_size=2", "data.random_camera.eval_height=12"]
    words += ["data.random_camera.eval_width=12", "system.renderer.num_samples_per_ray=32"]
    words += ["system.exporter.isosurface_resolution=24", "system.exporter.texture_size=64"]
    words += ["system.loss.lambda_normal_smooth=1.0", "system.loss.lambda_3d_normal_smooth=1.0"]
    process = forked.start(words, tmp_path / "log.txt", imports=["forget_package"])
    process.join()
    printed = (tmp_path / "log.txt").read_text()
    assert process.exitcode == 0, printed[-2000:]
    assert list(tmp_path.rglob("model.glb"))
