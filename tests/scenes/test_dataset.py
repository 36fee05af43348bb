import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from zero123s.commands.render import main
from zero123s.errors import ConfigError, ImageError
from zero123s.scenes.augment import mean_chroma
from zero123s.scenes.dataset import (
    RenderSettings,
    SceneObject,
    load_object,
    procedural_objects,
    render_dataset,
    with_tone,
)
from zero123s.scenes.inspect_renders import broken_reason
from zero123s.scenes.original_layout import OriginalFolder, read_valid_paths, write_original
from zero123s.scenes.shards import read_shard, shard_path

SMALL = RenderSettings(views=3, size=24, supersample=2, shard_size=2)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dataset_is_independent_of_processes(tmp_path):
    objects = procedural_objects(0, 5)
    one = render_dataset(objects, tmp_path / "one", SMALL)
    two = render_dataset(objects, tmp_path / "two", SMALL, processes=2)
    assert lines(one) == lines(two)
    assert [line["object_id"] for line in lines(one)] == [o.object_id for o in objects]
    shard = read_shard(shard_path(tmp_path / "one", 0))
    assert (shard.images.shape, shard.images.dtype) == ((2, 3, 24, 24, 4), np.uint8)
    assert shard.elevation_deg[:, 0].max() <= 45
    assert len(np.unique(shard.azimuth_deg)) == 6


def test_finished_shards_are_kept_and_missing_ones_made(tmp_path):
    objects = procedural_objects(0, 6)
    manifest = render_dataset(objects, tmp_path, SMALL)
    before, times = lines(manifest), {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("shard_*")}
    shard_path(tmp_path, 1).unlink()
    (tmp_path / "shard_00001.123.partial").write_bytes(b"half")
    assert lines(render_dataset(objects, tmp_path, SMALL)) == before
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("shard_*")}
    assert {name for name in times if times[name] != after[name]} == {"shard_00001.safetensors"}
    assert not list(tmp_path.glob("*.partial"))


def render_in_a_group(words):
    """Run the command in a process group of its own."""
    os.setsid()
    sys.exit(main(words))


def test_a_killed_run_resumes_without_loss_or_duplicates(tmp_path):
    words = [str(tmp_path / "killed"), "--procedural", "0:40", "--views", "2", "--size", "24", "--shard-size", "2"]
    # Forked: rendering has no threads, and a start of its own takes longer than the rest of the test.
    process = multiprocessing.get_context("fork").Process(target=render_in_a_group, args=(words,))
    process.start()
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("shard_*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    finished = len(list((tmp_path / "killed").glob("shard_*.safetensors")))
    assert 1 <= finished < 20
    settings = RenderSettings(views=2, size=24, shard_size=2)
    resumed = render_dataset(procedural_objects(0, 40), tmp_path / "killed", settings)
    whole = render_dataset(procedural_objects(0, 40), tmp_path / "whole", settings)
    assert lines(resumed) == lines(whole)
    assert len({line["object_id"] for line in lines(resumed)}) == 40


@pytest.fixture
def rendering(tmp_path):
    """A rendering with two workers that has finished a shard; its own process and their pids."""
    code = "import sys; from zero123s.commands.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "render", str(tmp_path / "out"), "--procedural", "0:4000", "--views", "2"]
    command += ["--size", "24", "--shard-size", "2", "--processes", "2"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("shard_*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert len(workers) == 2
    yield process, workers
    process.kill()
    process.communicate()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_workers_end_with_the_rendering_that_started_them(rendering):
    process, workers = rendering
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [w for w in workers if Path(f"/proc/{w}").exists()]


def test_a_toned_object_keeps_its_shape():
    (item,) = procedural_objects(9_000_000, 1)
    white = with_tone(item, "white")
    assert white.object_id == "procedural-9000000-white"
    np.testing.assert_array_equal(load_object(white).vertices, load_object(item).vertices)
    assert mean_chroma(load_object(white)) < 0.02 < mean_chroma(load_object(item))


def test_a_dataset_grows_only_by_whole_shards(tmp_path):
    render_dataset(procedural_objects(0, 4), tmp_path, SMALL)
    assert len(lines(render_dataset(procedural_objects(0, 6), tmp_path, SMALL))) == 6
    with pytest.raises(ConfigError, match="other objects"):
        render_dataset(procedural_objects(100, 6), tmp_path, SMALL)
    with pytest.raises(ConfigError, match="other settings"):
        render_dataset(procedural_objects(0, 6), tmp_path, RenderSettings(views=4, size=24))
    with pytest.raises(ConfigError, match="come twice"):
        render_dataset(procedural_objects(0, 1) * 2, tmp_path / "twice", SMALL)


def test_a_broken_mesh_is_listed_with_its_reason(tmp_path):
    (tmp_path / "bad.stl").write_bytes(b"nothing")
    objects = [SceneObject("bad", str(tmp_path / "bad.stl")), *procedural_objects(0, 1)]
    good, bad = lines(render_dataset(objects, tmp_path / "out", SMALL))
    assert good["object_id"] == "procedural-0000000"
    assert (bad["object_id"], bad["row"]) == ("bad", None)
    assert "bad.stl" in bad["error"]


def test_a_damaged_shard_is_named(tmp_path):
    path = tmp_path / "shard_00000.safetensors"
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(ImageError, match=r"shard_00000.*render it again"):
        read_shard(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p, None),
        (lambda p: np.where(np.arange(4) == 3, 0, p), "empty"),
        (lambda p: np.pad(p[8:16, 8:16], ((0, 8), (0, 8), (0, 0))), "touches the border"),
        (lambda p: np.where(np.arange(4) < 3, 77, p), "one colour"),
        (lambda p: np.where(p > 200, np.nan, p.astype(np.float32) / 255), "nan"),
    ],
)
def test_broken_images_are_distinguished_from_sound_ones(change, reason):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[4:12, 4:12] = np.random.default_rng(0).integers(0, 255, (8, 8, 4))
    rgba[4:12, 4:12, 3] = 255
    changed = change(rgba)
    assert broken_reason(changed if changed.dtype.kind == "f" else changed.astype(np.uint8)) == reason


def test_the_original_layout_survives_a_round_trip(tmp_path):
    render_dataset(procedural_objects(0, 2), tmp_path / "shards", SMALL)
    shard = read_shard(shard_path(tmp_path / "shards", 0))
    write_original([shard], tmp_path / "views")
    write_original([shard], tmp_path / "views")
    assert read_valid_paths(tmp_path / "views") == list(shard.object_ids)
    back = OriginalFolder(tmp_path / "views")
    assert np.array_equal(back.images(1), shard.images[1])
    for name in ("elevation_deg", "azimuth_deg", "distance"):
        assert getattr(back, name)[1] == pytest.approx(getattr(shard, name)[1], abs=1e-3)
    matrix = np.load(tmp_path / "views" / shard.object_ids[1] / "000.npy")
    assert (matrix.shape, matrix.dtype) == ((3, 4), np.float64)
    assert matrix @ [0, 0, 0, 1] == pytest.approx([0, 0, -3.8], abs=1e-5)  # the origin lies straight ahead, along -z


def test_the_original_layout_refuses_escaping_names(tmp_path):
    (tmp_path / "views").mkdir()
    for uid in ("../secret", "", "/etc"):
        (tmp_path / "views" / "valid_paths.json").write_text(json.dumps([uid]))
        with pytest.raises(ImageError, match="leads out"):
            OriginalFolder(tmp_path / "views")
    (tmp_path / "views" / "valid_paths.json").write_text('{"a": 1}')
    with pytest.raises(ImageError, match="JSON list"):
        read_valid_paths(tmp_path / "views")


def test_the_command_renders_checks_and_shows(tmp_path, capsys):
    out = str(tmp_path / "data")
    arguments = [out, "--procedural", "3:5", "--views", "2", "--size", "32", "--sheet", str(tmp_path / "sheet.png")]
    assert main([*arguments, "--check", "--original-layout", str(tmp_path / "views")]) == 0
    assert "0 broken images" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").stat().st_size > 500
    assert len(read_valid_paths(tmp_path / "views")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to render"),
        (["--procedural", "5"], "two seeds"),
        (["--procedural", "5:2"], "rise from 0"),
        (["--procedural", "0:2", "--views", "0"], "--views 0"),
        (["--procedural", "0:2", "--elevation", "80", "-10"], "should rise"),
        (["--procedural", "0:2", "--fovy", "180"], "fovy"),
    ],
)
def test_the_command_reports_what_is_wrong(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        main([str(tmp_path / "x"), *arguments])


def test_the_bundled_multi_view_sample_is_true():
    from zero123s.data.multi_view import read_transforms

    folder = Path(__file__).parents[2] / "load" / "images" / "multi_view_sample"
    frames = read_transforms(folder / "transforms.json")
    assert len(frames) == 40
    assert all(frame.path.is_file() for frame in frames)


@pytest.mark.parametrize("stem", ["hamburger", "teapot", "car", "chair", "robot", "dog"])
def test_the_bundled_samples_fill_the_frame(stem):
    from PIL import Image

    path = Path(__file__).parents[2] / "load" / "images" / f"{stem}_rgba.png"
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGBA", (512, 512))
        rows, columns = np.nonzero(np.asarray(image)[..., 3] > 127)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.78 * 512, abs=4)
