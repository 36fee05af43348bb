"""Cut-outs of composites whose mask is known."""

import cv2
import numpy as np
import pytest
from test_framing import ellipse

from zero123s.errors import ConfigError, ImageError, MissingDependencyError
from zero123s.images.io import LoadedImage, composite
from zero123s.preprocess.grabcut import fit_background
from zero123s.preprocess.mask_confidence import THRESHOLD
from zero123s.preprocess.segment import segment


def photo_of(rgba, background):
    rgb = rgba[..., :3] * rgba[..., 3:] + background * (1 - rgba[..., 3:])
    return LoadedImage(np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1).astype(np.float32), False)


def iou(a, b):
    a, b = a > 0.5, b > 0.5
    return (a & b).sum() / (a | b).sum()


OBJECT = ellipse(160, 200, 96, 84, 50, 34)
Y, X = np.mgrid[:160, :200] / 200.0
BACKGROUNDS = {
    "plain": np.full((160, 200, 3), 0.9),
    "gradient": (0.9 - 0.3 * Y[..., None]) * np.array([1.0, 0.95, 0.85]),
    "noisy": 0.8 + np.random.default_rng(0).normal(0, 0.02, (160, 200, 3)),
    "shadow": 0.9 * (1 - 0.3 * cv2.GaussianBlur(np.roll(OBJECT[..., 3], 10, 0), (0, 0), 7)[..., None]).repeat(3, -1),
}


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_offline_cut_out(name):
    result = segment(photo_of(OBJECT, BACKGROUNDS[name]))
    assert result.method == "grabcut"
    assert result.confidence >= THRESHOLD
    assert iou(result.rgba[..., 3], OBJECT[..., 3]) > 0.95


def test_edges_keep_the_objects_colour():
    """The object has next to no green, the background is light: any halo shows in the green channel."""
    result = segment(photo_of(OBJECT, BACKGROUNDS["plain"]))
    edge = (result.rgba[..., 3] > 0.2) & (result.rgba[..., 3] < 0.9)
    assert edge.sum() > 50
    assert result.rgba[edge][:, 1].mean() < 0.2
    assert np.abs(result.rgba[..., 3] - OBJECT[..., 3])[edge].mean() < 0.15


def test_a_flat_dark_object_is_not_a_shadow():
    """Darker and of the same hue as a shadow is, but with an edge all around."""
    gray = OBJECT.copy()
    gray[..., :3] = np.array([0.62, 0.66, 0.70])
    result = segment(photo_of(gray, np.full((160, 200, 3), (0.78, 0.83, 0.88))))
    assert result.confidence >= THRESHOLD
    assert iou(result.rgba[..., 3], OBJECT[..., 3]) > 0.98


@pytest.mark.parametrize("colour", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0)], ids=["white", "black", "green"])
def test_a_jpeg_edge_shows_no_halo(colour):
    """Soft edges of a strongly compressed photo are much nearer to the object's own than a mask without any."""
    photo = photo_of(OBJECT, BACKGROUNDS["gradient"]).rgba[..., :3]
    _, data = cv2.imencode(".jpg", np.rint(photo[..., ::-1] * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 70])
    photo = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255
    found = segment(LoadedImage(np.concatenate([photo, np.ones_like(photo[..., :1])], -1), False)).rgba
    band = cv2.dilate(((OBJECT[..., 3] > 0) & (OBJECT[..., 3] < 1)).astype(np.uint8), np.ones((3, 3))) > 0
    expected = composite(OBJECT, colour)[band]
    bare = np.concatenate([photo, OBJECT[..., 3:] > 0.5], -1)
    soft, hard = (np.abs(composite(x, colour)[band] - expected).mean() for x in (found, bare))
    assert soft < 0.75 * hard


def test_holes_stay_and_islands_go():
    ring = OBJECT.copy()
    ring[70:98, 80:112, 3] = 0
    ring[10:13, 10:13] = (0.1, 0.1, 0.1, 1)
    alpha = segment(photo_of(ring, BACKGROUNDS["plain"])).rgba[..., 3]
    assert alpha[74:94, 84:108].max() < 0.1
    assert alpha[:20, :20].max() == 0


def test_the_alpha_of_the_file_is_used():
    result = segment(LoadedImage(OBJECT, True))
    assert (result.method, result.confidence) == ("alpha", 1.0)
    np.testing.assert_array_equal(result.rgba, OBJECT)


def test_doubt_is_admitted():
    rng = np.random.default_rng(1)
    busy = cv2.resize(rng.random((12, 12, 3)).astype(np.float32), (200, 160), interpolation=cv2.INTER_CUBIC)
    assert segment(photo_of(OBJECT, np.clip(busy, 0, 1))).confidence < THRESHOLD
    empty = segment(photo_of(np.zeros((160, 200, 4), np.float32), BACKGROUNDS["plain"]))
    assert empty.confidence == 0
    assert "nothing stands out" in empty.reason
    cut = segment(photo_of(ellipse(160, 200, 100, 80, 130, 120), BACKGROUNDS["plain"]))
    assert cut.confidence < THRESHOLD


def test_background_fit_recovers_a_quadratic():
    truth = np.stack([0.5 + 0.2 * X - 0.1 * Y, 0.6 - 0.2 * X * Y, 0.4 + 0.3 * Y * Y], -1).astype(np.float32)
    spoiled = truth.copy()
    spoiled[120:, 60:90] = (1, 0, 0)  # an object that touches the border
    background, noise = fit_background(spoiled)
    assert np.abs(background - truth).max() < 0.02
    assert noise < 1


def test_backends_that_cannot_work(tmp_path):
    photo = photo_of(OBJECT, BACKGROUNDS["plain"])
    with pytest.raises(ConfigError, match="'magic' is unknown"):
        segment(photo, "magic")
    with pytest.raises(ConfigError, match="needs a model"):
        segment(photo, "transformers")
    with pytest.raises(ImageError, match="cannot be loaded"):
        segment(photo, "transformers", str(tmp_path))
    with pytest.raises(ImageError, match="no transparent part"):
        segment(photo, "alpha")


def test_rembg_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rembg", None)
    with pytest.raises(MissingDependencyError, match="rembg is not installed"):
        segment(photo_of(OBJECT, BACKGROUNDS["plain"]), "rembg")
