"""Objects of the background's hue, transparency with haze, and rooms that only a network understands."""

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from test_framing import ellipse

from zero123s.commands.prepare import main
from zero123s.errors import ImageError
from zero123s.images.io import LoadedImage, read_image
from zero123s.preprocess.framing import object_bounds
from zero123s.preprocess.input_image import CutOutConfig, input_from_file
from zero123s.preprocess.mask_confidence import THRESHOLD
from zero123s.preprocess.segment import segment
from zero123s.preprocess.transparency import clean_transparency


def vase(wall, body, size=300):
    """A shaded gray vase before a gray wall, and its mask."""
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    half = np.where(np.abs(y) < 0.65, 0.33 + 0.16 * np.sin(3.2 * y + 0.4), 0.0)
    mask = np.abs(x) < half
    t = np.clip(x / np.maximum(half, 1e-6), -1, 1)
    gray = np.where(mask, body * (0.82 + 0.25 * np.sqrt(1 - t**2) - 0.12 * t), wall)
    gray = gray + np.random.default_rng(0).normal(0, 2, gray.shape)
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, -1), mask


def opaque(rgb):
    return LoadedImage(np.concatenate([rgb / 255, np.ones((*rgb.shape[:2], 1))], -1).astype(np.float32), False)


@pytest.mark.parametrize(("wall", "body"), [(235, 190), (245, 200), (204, 160), (180, 140), (40, 15)])
def test_a_gray_object_is_not_its_own_shadow(wall, body):
    rgb, mask = vase(wall, body)
    found = segment(opaque(rgb), "grabcut")
    alpha = found.rgba[..., 3] > 0.5
    assert found.confidence >= THRESHOLD
    assert (alpha & mask).sum() / (alpha | mask).sum() > 0.95


def test_confidence_sees_a_half_found_object():
    """One of two overlapping ellipses has nearly the wall's brightness and an open outline."""
    rgb = np.full((240, 240, 3), 128, np.uint8)
    ramp = np.linspace(95, 165, 240).astype(np.uint8)[:, None, None]
    pale = cv2.ellipse(np.zeros((240, 240), np.uint8), (100, 90), (55, 45), 0, 0, 360, 1, -1) > 0
    rgb = np.where(pale[..., None], ramp, rgb)
    rgb = cv2.ellipse(np.ascontiguousarray(rgb), (140, 130), (45, 35), 0, 0, 360, (40, 40, 40), -1)
    mask = pale | (rgb[..., 0] == 40)
    found = segment(opaque(rgb), "grabcut")
    alpha = found.rgba[..., 3] > 0.5
    assert found.confidence < THRESHOLD or (alpha & mask).sum() / (alpha | mask).sum() > 0.9


def save(path, rgba):
    Image.fromarray(np.rint(np.clip(rgba, 0, 1) * 255).astype(np.uint8)).save(path)
    return path


def test_a_glow_is_removed_and_reported(tmp_path):
    clean = ellipse(200, 200, 100, 100, 60, 50)
    glow = clean.copy()
    glow[..., 3] = np.maximum(clean[..., 3], 0.35 * cv2.GaussianBlur(clean[..., 3], (0, 0), 12))
    given = input_from_file(str(save(tmp_path / "glow.png", glow)), CutOutConfig())
    assert any("glow" in note for note in given.notes)
    assert np.abs(given.rgba[..., 3] - clean[..., 3]).mean() < 0.01
    assert "notes" in given.facts


def test_specks_no_longer_shift_the_framing(tmp_path):
    clean = ellipse(200, 200, 100, 100, 60, 50)
    speck = clean.copy()
    speck[2:5, 2:5] = 1
    path = save(tmp_path / "speck.png", speck)
    assert main([str(path), "--size", "256", "--no-elevation"]) == 0
    left, _, right, _ = object_bounds(read_image(tmp_path / "speck_rgba.png").rgba[..., 3])
    assert right - left == pytest.approx(200, abs=2)


def test_windows_and_soft_edges_stay():
    car = ellipse(200, 200, 100, 100, 60, 50)
    car[80:110, 85:115, 3] = 0.4
    assert clean_transparency(car)[0] is car


@pytest.mark.parametrize(
    ("rgba", "sentence"),
    [
        (ellipse(200, 200, 30, 100, 60, 50), "cut by the edge"),
        (np.pad(np.ones((8, 8, 4), np.float32), ((12, 12), (12, 12), (0, 0))), "only 8 pixels"),
        (ellipse(200, 200, 100, 100, 60, 50) * np.array([1, 1, 1, 0.35], np.float32), "35% opaque at most"),
    ],
    ids=["cut", "tiny", "glass"],
)
def test_bad_transparency_stops_both_commands_alike(tmp_path, capsys, rgba, sentence):
    path = save(tmp_path / "a.png", rgba)
    assert main([str(path), "--no-elevation"]) == 2
    assert sentence in capsys.readouterr().err
    with pytest.raises(ImageError, match=sentence):
        input_from_file(str(path), CutOutConfig())


def test_two_objects_are_reported():
    two = np.maximum(ellipse(200, 200, 60, 100, 30, 50), ellipse(200, 200, 140, 100, 30, 50))
    assert any("2 separate parts" in note for note in clean_transparency(two)[3])


def test_a_small_object_is_framed(tmp_path):
    small = np.zeros((600, 600, 4), np.float32)
    small[280:320, 100:140] = 1
    given = input_from_file(str(save(tmp_path / "small.png", small)), CutOutConfig())
    left, top, right, bottom = object_bounds(given.rgba[..., 3])
    assert max(right - left, bottom - top) / len(given.rgba) == pytest.approx(200 / 256, abs=0.02)


@pytest.fixture
def room():
    rng = np.random.default_rng(1)
    busy = cv2.resize(rng.random((12, 12, 3)).astype(np.float32), (200, 160), interpolation=cv2.INTER_CUBIC)
    thing = ellipse(160, 200, 96, 84, 50, 34)
    rgb = thing[..., :3] * thing[..., 3:] + np.clip(busy, 0, 1) * (1 - thing[..., 3:])
    return LoadedImage(np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1).astype(np.float32), False), thing


def stand_in(monkeypatch, mask, fails=False):
    def new_session(name):
        if fails:
            raise OSError("no network")
        return name

    remove = lambda image, session, only_mask: np.rint(mask * 255).astype(np.uint8)  # noqa: E731
    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(new_session=new_session, remove=remove))


def test_auto_asks_rembg_where_grabcut_is_unsure(room, monkeypatch, caplog, tmp_path):
    photo, thing = room
    stand_in(monkeypatch, thing[..., 3])
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    found = segment(photo)
    assert found.method == "rembg"
    assert found.confidence >= THRESHOLD
    assert "downloads its model" in caplog.text
    given = input_from_file(str(save(tmp_path / "room.png", photo.rgba)), CutOutConfig())
    assert given.facts["method"] == "rembg"


def test_auto_keeps_the_more_confident_mask(room, monkeypatch):
    stand_in(monkeypatch, np.full((160, 200), 0.5))
    assert segment(room[0]).confidence < THRESHOLD
    rgb, _ = vase(235, 120)
    assert segment(opaque(rgb)).method == "grabcut"


def test_without_rembg_the_sentence_has_every_way_out(room, monkeypatch, tmp_path):
    path = str(save(tmp_path / "room.png", room[0].rgba))
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(ImageError, match=r"plain.* background.* install .*segment"):
        input_from_file(path, CutOutConfig())
    stand_in(monkeypatch, np.zeros((160, 200)), fails=True)
    with pytest.raises(ImageError, match=r"plain.* background.*no network"):
        input_from_file(path, CutOutConfig())
