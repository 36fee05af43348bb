"""From what people have to a mesh, in one launch: a photograph, a sentence, images by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from tiny_run import SMALL
from tiny_sdxl import draw_a_disc, save_tiny_sdxl

from zero123s.commands.launch import main
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.procedural import named
from zero123s.scenes.render import render_views

pytestmark = pytest.mark.end_to_end

CONFIGS = Path(__file__).parents[2] / "configs"
WORDS = [
    *SMALL,
    "data.height=32",
    "data.width=32",
    "system.renderer.num_samples_per_ray=48",
    "system.exporter.formats=[glb]",
    "system.exporter.texture_size=64",
    "trainer.val_check_interval=0",
    "use_timestamp=false",
    "tag=run",
    "threads=1",
]


def launch(out, config, *overrides, mode="--train"):
    code = main(["--config", str(CONFIGS / config), mode, f"exp_root_dir={out}", *WORDS, *overrides])
    return code, out / Path(config).stem / "run"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A teapot on a table, lit from one side: a JPEG without transparency, quality 80, with a shadow and grain."""
    import cv2

    rgba = render_views(named("teapot", 5), orbit_cameras(12.0, 30.0, height=300, width=300), supersample=3).rgba[0]
    wide = np.zeros((320, 480, 4), np.float32)
    wide[10:310, 40:340] = rgba
    y, x = np.mgrid[:320, :480] / 480
    shadow = cv2.GaussianBlur(np.roll(wide[..., 3], (12, 8), (0, 1)), (0, 0), 9)
    ground = np.array([0.86, 0.82, 0.76]) * (1 - 0.2 * y + 0.05 * x)[..., None] * (1 - 0.25 * shadow[..., None])
    rgb = wide[..., :3] * wide[..., 3:] + ground * (1 - wide[..., 3:])
    rgb = np.clip(rgb + np.random.default_rng(0).normal(0, 0.01, rgb.shape), 0, 1)
    path = tmp_path_factory.mktemp("photo") / "teapot.jpg"
    Image.fromarray(np.rint(rgb * 255).astype(np.uint8)).save(path, quality=80)
    return path, rgba


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A folder of a text-to-image pipeline of toy size."""
    return save_tiny_sdxl(tmp_path_factory.mktemp("pipeline"))


def test_a_photograph_becomes_a_mesh(photo, tmp_path, tiny_zero123, capsys):
    path, truth = photo
    moved = tmp_path / "photo.jpg"
    moved.write_bytes(path.read_bytes())
    overrides = [f"data.image_path={moved}", *tiny_zero123]
    code, run = launch(tmp_path / "out", "stable-zero123.yaml", *overrides, "trainer.max_steps=3")
    assert code == 0
    assert len(trimesh.load(run / "export" / "model.glb", force="mesh").faces) > 50
    kept = np.asarray(Image.open(run / "input" / "photo_rgba.png")) / 255
    truth = truth[..., 3] > 0.5
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    mask = kept[..., 3] > 0.5
    extent = [np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (1, 0)]
    assert extent[1] / extent[0] == pytest.approx((np.ptp(columns) + 1) / (np.ptp(rows) + 1), rel=0.04)
    assert mask.sum() / (extent[0] * extent[1]) == pytest.approx(
        truth.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1)), rel=0.04
    )
    assert (run / "input" / "steps.png").is_file()
    record = json.loads((run / "run.json").read_text())["input"]
    assert record["source"] == moved.name
    assert record["confidence"] > 0.5
    assert "photo_rgba.png" in (run / "config.yaml").read_text()
    moved.unlink()
    code, _ = launch(tmp_path / "out", "stable-zero123.yaml", *tiny_zero123, f"resume={run}", mode="--export")
    assert code == 0
    assert json.loads((run / "run.json").read_text())["input"] == record


def test_a_missing_image_is_reported_first(tmp_path, capsys, tiny_zero123):
    code, _ = launch(tmp_path / "out", "stable-zero123.yaml", "data.image_path=nothing.png", *tiny_zero123)
    printed = capsys.readouterr()
    assert code == 2
    assert "guided by" not in printed.out + printed.err


def test_a_doubtful_photo_stops_the_launch(tmp_path, capsys, tiny_zero123):
    photo = Image.new("RGB", (240, 160), (225, 225, 215))
    photo.paste((200, 40, 10), (0, 0, 200, 150))  # touches two edges: it may be cut off, or the background itself
    photo.save(tmp_path / "photo.png")
    code, run = launch(
        tmp_path / "out", "stable-zero123.yaml", f"data.image_path={tmp_path / 'photo.png'}", *tiny_zero123
    )
    assert code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"look at '{run / 'input' / 'steps.png'}'" in error
    assert "data.cut_out.force=true" in error
    assert [p.relative_to(run).as_posix() for p in run.rglob("*.*")] == ["input/steps.png"]


def test_two_named_images_become_a_mesh(tmp_path, tiny_zero123):
    code, run = launch(tmp_path, "few-views.yaml", *tiny_zero123, "trainer.max_steps=3", "data.weights.back=0.5")
    assert code == 0
    assert len(trimesh.load(run / "export" / "model.glb", force="mesh").faces) > 50


def test_a_sentence_becomes_a_mesh(pipeline, tmp_path, tiny_zero123, monkeypatch):
    draw_a_disc(monkeypatch)
    drawing = [
        f"data.text_to_image.{w}" for w in (f"model={pipeline}", "steps=2", "candidates=2", "height=64", "width=64")
    ]
    overrides = ["data.prompt=a round duck", *drawing, *tiny_zero123]
    code, run = launch(tmp_path / "out", "text-to-3d.yaml", *overrides, "trainer.max_steps=3")
    assert code == 0
    assert len(trimesh.load(run / "export" / "model.glb", force="mesh").faces) > 50
    assert {p.name for p in (run / "input").iterdir()} == {
        "candidates.png",
        "drawn.png",
        "steps.png",
        "prompt_rgba.png",
    }
    record = json.loads((run / "run.json").read_text())["input"]
    assert (record["prompt"], len(record["scores"])) == ("a round duck", 2)
    assert record["scores"][record["chosen"]] == max(record["scores"]) > 0.5
    # Going on needs neither the pipeline nor the sentence.
    code, _ = launch(
        tmp_path / "out", "text-to-3d.yaml", f"resume={run}", "trainer.max_steps=4", "export_after_train=false"
    )
    assert code == 0


def test_without_weights_a_sentence_names_both_ways(tmp_path, capsys, tiny_zero123):
    code, run = launch(tmp_path, "text-to-3d.yaml", f"data.text_to_image.model={tmp_path / 'nowhere'}", *tiny_zero123)
    assert code == 2
    assert "huggingface-cli download" in (error := capsys.readouterr().err.strip().splitlines()[-1])
    assert "copy a diffusers folder" in error
    assert not run.exists()


def test_an_empty_drawing_is_reported_before_writing(pipeline, tmp_path, capsys, tiny_zero123):
    drawing = [f"data.text_to_image.{w}" for w in (f"model={pipeline}", "steps=1", "candidates=1")]
    overrides = [*drawing, "data.text_to_image.height=64", "data.text_to_image.width=64", *tiny_zero123]
    code, run = launch(tmp_path, "text-to-3d.yaml", *overrides)
    assert code == 2
    assert "None of the 1 images drawn" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not run.exists()
