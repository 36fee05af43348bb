"""A visitor's way from the upload to the mesh, without a browser: every part but gradio, with a real run."""

import argparse
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from zero123s.commands.web import main, read_settings, read_users
from zero123s.errors import ConfigError, ImageError
from zero123s.mesh.writers import WRITERS
from zero123s.web.job_view import history_table, loss_plots
from zero123s.web.jobs import JobQueue
from zero123s.web.photos import prepare_photo
from zero123s.web.service import Service
from zero123s.web.settings import Choice

pytestmark = pytest.mark.end_to_end

SAMPLE = Path("load/images/hamburger_rgba.png")


def arguments(tmp_path: Path, qualities: Path, *overrides: str) -> argparse.Namespace:
    from zero123s.commands.web import _parser

    words = ["--out", str(tmp_path / "jobs"), "--qualities", str(qualities), "--profile", "cpu", *overrides]
    return _parser().parse_args(words)


@pytest.fixture
def service(tmp_path, qualities):
    settings = read_settings(arguments(tmp_path, qualities))
    queue = JobQueue(settings.out)
    yield Service(settings, queue)
    queue.close()


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def test_a_photo_becomes_a_mesh(service, tmp_path):
    prepared = service.prepare(SAMPLE)
    job = service.make(prepared, Choice(5.0, "auto", "quick"), SAMPLE.name)
    endless = service.make(prepared, Choice(5.0, "auto", "endless"), "../../<b>two.png")
    states = set()

    def finished() -> bool:
        view = service.view(job.id)
        states.add((view.stage, view.preview))
        return view.state not in ("waiting", "running")

    wait_for(finished)
    view = service.view(job.id)
    log = (service.queue.folder(job) / "log.txt").read_text()
    assert view.state == "finished", log
    assert view.message.startswith("Finished after")
    assert len({preview for _, preview in states if preview}) >= 2, "the preview did not change while it ran"
    with Image.open(view.preview) as turntable:
        assert (turntable.n_frames, turntable.size) == (12, (512, 256))
    assert (view.step, view.max_steps, view.share) == (30, 30, 1.0)
    assert view.losses["total"][0][-1] == 30
    assert "<svg" in loss_plots(view.losses)
    assert {*WRITERS, "report", "turntable"} <= set(view.downloads)
    mesh = trimesh.load(view.downloads["glb"], force="mesh")
    assert len(mesh.faces) > 100
    with zipfile.ZipFile(view.downloads["obj"]) as archive:
        assert sorted(archive.namelist()) == ["model.mtl", "model.obj", "model.png"]
    with zipfile.ZipFile(view.downloads["gltf"]) as archive:
        archive.extractall(tmp_path / "gltf")
    assert len(trimesh.load(tmp_path / "gltf" / "model.gltf", force="mesh").faces) == len(mesh.faces)
    assert "<html" in view.downloads["report"].read_text(encoding="utf-8")[:200]

    wait_for(lambda: service.view(endless.id).step > 0)
    running = service.view(endless.id)
    assert running.seconds_left > 0
    assert "step" in running.message
    assert service.cancel(endless.id).state == "cancelled"
    wait_for(lambda: not service.queue._processes)
    # It had the time to write its checkpoint.
    assert (service.queue.folder(endless) / "run" / "ckpts" / "last.ckpt").is_file()
    table = history_table(service.queue.known([job.id, endless.id]))
    assert "<b>" not in table
    assert "<td>b_two</td><td>cancelled</td>" in table


def test_a_sentence_becomes_an_image_in_a_job(tmp_path, qualities):
    from tiny_sdxl import save_tiny_sdxl

    drawing = [f"data.text_to_image.{word}" for word in ("steps=2", "candidates=2", "height=64", "width=64")]
    model = str(save_tiny_sdxl(tmp_path))
    settings = read_settings(arguments(tmp_path, qualities, "--draw-with", model, *drawing))
    queue = JobQueue(settings.out)
    service = Service(settings, queue)
    job = service.draw("a round duck", 3)
    wait_for(lambda: service.view(job.id).state not in ("waiting", "running"))
    view = service.view(job.id)
    assert view.state == "finished", (queue.folder(job) / "log.txt").read_text()
    assert sorted(view.downloads) == ["candidates", "drawn"]
    with Image.open(view.downloads["drawn"]) as drawn:
        assert drawn.size == (64, 64)
    queue.close()


def test_a_doubtful_mask_needs_confirmation(service, tmp_path):
    photo = np.full((96, 96, 3), 200, np.uint8)
    photo[20:, :60] = (200, 30, 30)  # cut by the edges of the image
    Image.fromarray(photo).save(tmp_path / "cut.png")
    prepared = service.prepare(tmp_path / "cut.png")
    assert prepared.is_uncertain
    with pytest.raises(ImageError, match="doubtful"):
        service.make(prepared, Choice(5.0, "auto", "quick"), "cut.png")


def test_choices_outside_the_offer_start_nothing(service):
    prepared = service.prepare(SAMPLE)
    with pytest.raises(ConfigError, match="There is no quality"):
        service.make(prepared, Choice(5.0, "auto", "quick trainer.max_steps=1"), "a.png")
    assert not list(service.settings.out.glob("*/job.json"))


def test_an_upload_is_needed(service):
    with pytest.raises(ImageError, match="Upload an image first"):
        service.prepare(None)


def test_a_finding_is_the_same_whoever_asks(service):
    from zero123s.web.photos import read_upload

    direct = prepare_photo(read_upload(SAMPLE, service.settings.limits))
    np.testing.assert_array_equal(service.prepare(SAMPLE).rgba, direct.rgba)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--jobs", "0"], "--jobs 0 must be above 0"),
        (["--max-megapixels", "-1"], "--max-megapixels -1 must be above 0"),
        (["--port", "70000"], "--port 70000"),
        (["--share"], "give --users FILE"),
        (["--config", "nowhere.yaml"], "no such file"),
        (["--users", "nowhere.txt"], "cannot be read"),
        (["trainer.max_step=3"], "max_step"),
    ],
)
def test_an_operators_mistakes_are_reported_before_anything_opens(tmp_path, qualities, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        main(["--out", str(tmp_path / "jobs"), "--qualities", str(qualities), *words])
    assert not (tmp_path / "jobs").exists()


def test_users_are_read_from_a_file(tmp_path):
    path = tmp_path / "users.txt"
    path.write_text("ann:se:cret\n\nbob:x\n")
    assert read_users(path) == [("ann", "se:cret"), ("bob", "x")]
    path.write_text("ann\n")
    with pytest.raises(ConfigError, match="line 1: expected name:password"):
        read_users(path)


def test_without_gradio_one_sentence_names_the_package(tmp_path, qualities, monkeypatch):
    from zero123s.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "gradio", None)
    for module in ("page", "server"):
        monkeypatch.delitem(sys.modules, f"zero123s.web.{module}", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install -e '\.\[web\]'"):
        main(["--out", str(tmp_path / "jobs"), "--qualities", str(qualities)])
    assert not (tmp_path / "jobs").exists()
