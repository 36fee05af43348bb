"""An object at any place and size gives the same framed image, and the way back is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zero123s.errors import ImageError
from zero123s.images.io import composite
from zero123s.preprocess.framing import SHARE, frame_object, object_bounds


def ellipse(height, width, x, y, rx, ry, oversample=8):
    """An exactly antialiased ellipse, left half red and right half blue, on transparent green."""
    k = oversample
    yy, xx = (np.mgrid[: height * k, : width * k] + 0.5) / k
    inside = ((xx - x) / rx) ** 2 + ((yy - y) / ry) ** 2 < 1
    alpha = inside.reshape(height, k, width, k).mean((1, 3))
    share = (inside & (xx < x)).reshape(height, k, width, k).mean((1, 3)) / np.maximum(alpha, 1e-9)
    rgb = share[..., None] * np.array([0.9, 0.1, 0.1]) + (1 - share[..., None]) * np.array([0.1, 0.1, 0.9])
    rgb[alpha == 0] = (0, 1, 0)
    return np.concatenate([rgb, alpha[..., None]], -1).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.floats(60, 140), st.floats(50, 110), st.floats(18, 48))
def test_same_image_from_any_place_and_size(x, y, radius):
    expected = ellipse(128, 128, 64, 64, 50, 30)
    framed, _ = frame_object(ellipse(160, 200, x, y, radius, 0.6 * radius), 128)
    left, top, right, bottom = object_bounds(framed[..., 3])
    assert right - left == pytest.approx(SHARE * 128, abs=1.0)
    assert (left + right) / 2 == pytest.approx(64, abs=0.5)
    assert (top + bottom) / 2 == pytest.approx(64, abs=0.5)
    mask, reference = framed[..., 3] > 0.5, expected[..., 3] > 0.5
    assert (mask & reference).sum() / (mask | reference).sum() > 0.94
    for colour in ((0.0, 1.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)):
        inside = framed[framed[..., 3] > 0.1]
        assert inside[:, 1].max() < 0.11, "the green of transparent pixels bled in"
        assert np.isfinite(composite(framed, colour)).all()


def centroid(alpha):
    x, y = np.arange(alpha.shape[1]) + 0.5, np.arange(alpha.shape[0]) + 0.5
    return np.array([(alpha.sum(0) * x).sum(), (alpha.sum(1) * y).sum()]) / alpha.sum()


def test_the_framing_maps_pixels():
    rgba = ellipse(160, 200, 71.3, 90.6, 40, 25)
    framed, framing = frame_object(rgba, 128)
    mapped = framing.scale * centroid(rgba[..., 3]) + framing.offset
    np.testing.assert_allclose(mapped, centroid(framed[..., 3]), atol=0.02)


def test_nothing_to_frame():
    with pytest.raises(ImageError, match="shows no object"):
        frame_object(np.zeros((16, 16, 4), np.float32))
