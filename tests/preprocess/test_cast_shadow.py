"""Shadows with a hard edge come off an object of another hue; hueless ones stop."""

import cv2
import numpy as np
import pytest

from zero123s.commands.prepare import main
from zero123s.images.io import LoadedImage, write_png_atomic
from zero123s.preprocess.cast_shadow import cast_shadow, leftover_share
from zero123s.preprocess.mask_confidence import THRESHOLD
from zero123s.preprocess.segment import segment

SIZE = 240
Y, X = np.mgrid[:SIZE, :SIZE] / SIZE
WALL = 0.85 - 0.1 * Y - 0.05 * X


def disc_at(x, y, radius):
    return np.hypot(X - x, Y - y) < radius


BALL = disc_at(0.45, 0.45, 0.2)


def photo(hue, factor=0.7, moved=(0.1, 0.08), wall_hue=(1, 1, 1)):
    """A shaded ball of a hue before a wall, with its shadow on it; grain as of a camera."""
    shadow = cv2.GaussianBlur(disc_at(0.45 + moved[0], 0.45 + moved[1], 0.2).astype(np.float64), (0, 0), 0.8)
    wall = (WALL * (1 - (1 - factor) * shadow))[..., None] * np.array(wall_hue)
    ball = (0.9 - 1.5 * np.hypot(X - 0.38, Y - 0.38))[..., None] * np.array(hue)
    rgb = np.where(BALL[..., None], ball, wall) + np.random.default_rng(0).normal(0, 0.005, (SIZE, SIZE, 1))
    return LoadedImage(np.concatenate([rgb.clip(0, 1), np.ones((SIZE, SIZE, 1))], -1).astype(np.float32), False)


def iou(rgba, mask):
    found = rgba[..., 3] > 0.5
    return (found & mask).sum() / (found | mask).sum()


@pytest.mark.parametrize("factor", [0.45, 0.7, 0.85])
@pytest.mark.parametrize("wall_hue", [(1, 1, 1), (1, 0.9, 0.75)], ids=["gray", "warm"])
def test_a_hard_shadow_comes_off(factor, wall_hue):
    found = segment(photo((0.9, 0.3, 0.2), factor, wall_hue=wall_hue), "grabcut")
    assert found.confidence >= THRESHOLD
    assert iou(found.rgba, BALL) > 0.96


def test_the_shadow_leaves_no_dark_rim():
    rgba = segment(photo((0.9, 0.3, 0.2)), "grabcut").rgba
    rim = (rgba[..., 3] > 0.05) & ~(cv2.dilate(BALL.astype(np.uint8), np.ones((5, 5))) > 0)
    assert rim.sum() < 30


def test_a_hueless_object_with_a_hard_shadow_stops(tmp_path, capsys):
    write_png_atomic(tmp_path / "ball.png", photo((0.6, 0.6, 0.6)).rgba[..., :3])
    assert main([str(tmp_path / "ball.png"), "--backend", "grabcut", "--no-elevation"]) == 2
    assert "its shadow cannot be distinguished from an object" in capsys.readouterr().err


def test_an_object_without_a_shadow_loses_nothing():
    """A gray side that is as flat as a shadow, but has the object around it."""
    box = (np.abs(X - 0.5) < 0.25) & (np.abs(Y - 0.5) < 0.25)
    side = (np.abs(X - 0.5) < 0.1) & (np.abs(Y - 0.5) < 0.1)
    wall = np.full((SIZE, SIZE, 3), 0.9)
    rgb = np.where(side[..., None], 0.6, np.where(box[..., None], np.array([0.8, 0.5, 0.1]), wall))
    found = segment(LoadedImage(np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1).astype(np.float32), False))
    assert found.confidence >= THRESHOLD
    assert iou(found.rgba, box) > 0.97


def test_the_factor_is_the_shadows_own():
    rgb = photo((0.9, 0.3, 0.2), 0.7).rgba[..., :3]
    wall = np.repeat(WALL[..., None], 3, -1).astype(np.float32)
    shadow = disc_at(0.55, 0.53, 0.18) & ~disc_at(0.45, 0.45, 0.23)
    factor, of_grounds_hue = cast_shadow(rgb, wall, BALL | disc_at(0.55, 0.53, 0.2))
    np.testing.assert_allclose(factor[shadow], 0.7, atol=0.01)
    assert (factor[disc_at(0.45, 0.45, 0.17)] == 1).all()
    assert of_grounds_hue < 0.05


def test_an_object_that_is_shaded_ground_throughout_stays():
    wall = np.repeat(WALL[..., None], 3, -1).astype(np.float32)
    factor, of_grounds_hue = cast_shadow(np.where(BALL[..., None], 0.7 * wall, wall), wall, BALL)
    assert (factor == 1).all()
    assert of_grounds_hue == 0


def test_a_leftover_of_shadow_is_counted():
    wall = np.repeat(WALL[..., None], 3, -1).astype(np.float32)
    rgb = np.where(BALL[..., None], np.array([0.9, 0.3, 0.2], np.float32), wall)
    strip = disc_at(0.6, 0.6, 0.05) & ~BALL
    rgb[strip] = 0.7 * wall[strip]
    mask = BALL | disc_at(0.6, 0.6, 0.05)
    assert leftover_share(rgb, wall, BALL) < 0.01
    assert leftover_share(rgb, wall, mask) == pytest.approx(strip.sum() / mask.sum(), rel=0.4)
    hueless = np.where(mask[..., None], 0.7 * wall, wall)
    assert leftover_share(hueless, wall, mask) == 0, "hue distinguishes nothing"


def test_a_part_of_the_grounds_hue_stops():
    """Half of a red ball is gray and darker than the wall, without a flat enough tone to be taken for a shadow."""
    rgb = photo((0.9, 0.3, 0.2), factor=1.0).rgba[..., :3].copy()
    gray = BALL & (X > 0.5)
    rgb[gray] = (WALL * (0.5 + X - 0.4))[gray][:, None]
    found = segment(
        LoadedImage(np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1).astype(np.float32), False), "grabcut"
    )
    assert found.confidence < THRESHOLD
    assert "may be a cast shadow" in found.reason
