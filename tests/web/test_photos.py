"""What a visitor uploads and corrects."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zero123s.errors import ImageError
from zero123s.preprocess.framing import object_bounds
from zero123s.web.photos import ADD, MAX_SIDE, REMOVE, Corrections, Limits, prepare_photo, read_upload

LIMITS = Limits(megabytes=1.0, megapixels=1.0)


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photo(tmp_path) -> Path:
    """A red square, left of the middle of a grey photo."""
    pixels = np.full((120, 160, 3), 200, np.uint8)
    pixels[40:80, 30:70] = (200, 30, 30)
    return save(tmp_path / "photo.png", pixels)


def stroke(colour: str, rows: slice, columns: slice) -> np.ndarray:
    strokes = np.zeros((120, 160, 4), np.float32)
    strokes[rows, columns] = [*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0]
    return strokes


def test_a_photo_is_segmented_centred_and_measured(photo):
    prepared = prepare_photo(read_upload(photo, LIMITS))
    left, top, right, bottom = object_bounds(prepared.rgba[..., 3])
    size = len(prepared.rgba)
    assert (left + right, top + bottom) == pytest.approx((size, size), abs=2)
    assert (right - left) / size == pytest.approx(200 / 256, abs=0.02)
    assert prepared.steps.shape == (256 + 24, 5 * 256 + 4 * 8, 3)
    assert "Object found by grabcut" in prepared.summary()
    assert "Elevation: about" in prepared.summary()
    assert not prepared.is_uncertain


def test_green_brush_adds_and_red_brush_removes(photo):
    loaded = read_upload(photo, LIMITS)
    plain = prepare_photo(loaded, Corrections(framed=False)).rgba[..., 3] > 0.5
    more = prepare_photo(loaded, Corrections(framed=False), stroke(ADD, slice(40, 80), slice(70, 90)))
    less = prepare_photo(loaded, Corrections(framed=False), stroke(REMOVE, slice(40, 60), slice(30, 70)))
    grown, shrunk = more.rgba[..., 3] > 0.5, less.rgba[..., 3] > 0.5
    assert grown.sum() - plain.sum() == pytest.approx(40 * 20, rel=0.1)
    assert plain.sum() - shrunk.sum() == pytest.approx(20 * 40, rel=0.1)
    # What was added shows the photo's own grey.
    added = grown & ~plain
    np.testing.assert_allclose(more.rgba[added][:, :3].mean(0), 200 / 255, atol=0.02)


def test_crop_share_and_shift_do_what_they_say(photo):
    loaded = read_upload(photo, LIMITS)
    cropped = prepare_photo(loaded, Corrections(crop=(0.0, 0.5, 0.0, 0.0), framed=False))
    assert cropped.rgba.shape[:2] == (120, 120)
    small = prepare_photo(loaded, Corrections(share=0.5, shift=(0.1, 0.2)))
    left, top, right, bottom = object_bounds(small.rgba[..., 3])
    size = len(small.rgba)
    assert (right - left) / size == pytest.approx(0.5, abs=0.02)
    assert (left + right) / 2 / size == pytest.approx(0.6, abs=0.01)
    assert (top + bottom) / 2 / size == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    ("corrections", "sentence"),
    [
        (Corrections(crop=(0.6, 0.5, 0, 0)), "leaves less than 10%"),
        (Corrections(crop=(-0.1, 0, 0, 0)), "leaves less than 10%"),
        (Corrections(share=5.0), "0.2 to 1"),
        (Corrections(shift=(0.0, -0.7)), "at most half"),
    ],
)
def test_corrections_out_of_range_are_reported(photo, corrections, sentence):
    with pytest.raises(ImageError, match=sentence):
        prepare_photo(read_upload(photo, LIMITS), corrections)


def test_painting_everything_away_is_reported(photo):
    with pytest.raises(ImageError, match="green brush"):
        prepare_photo(read_upload(photo, LIMITS), None, stroke(REMOVE, slice(None), slice(None)))


def bomb(width: int, height: int) -> bytes:
    """A tiny PNG that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def truncated() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()[:2000]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (bomb(2000, 2000), "more than the 1 million"),
        (bomb(50000, 50000), "2500 million pixels, more than the 1 million"),
        (truncated(), "damaged or cut short"),
        (b"\0" * 1_000_001, "more than the 1 MB"),
    ],
    ids=["empty", "svg", "postscript", "too many pixels", "bomb", "truncated", "too many bytes"],
)
def test_refusals_of_hostile_uploads_name_no_paths(tmp_path, content, sentence):
    path = tmp_path / "evil.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=sentence) as raised:
        read_upload(path, LIMITS)
    assert str(tmp_path) not in str(raised.value)
    assert "evil.png" in str(raised.value)


def test_a_large_photo_is_made_smaller(tmp_path):
    path = save(tmp_path / "wide.png", np.full((100, 5000, 3), 90, np.uint8))
    assert read_upload(path, LIMITS).rgba.shape == (41, MAX_SIDE, 4)
