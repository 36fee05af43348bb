"""`zero123s prepare` end to end."""

import numpy as np
import pytest
from PIL import Image
from test_framing import ellipse

from zero123s.commands.prepare import main
from zero123s.images.io import composite, load_reference_rgba
from zero123s.preprocess.framing import object_bounds


@pytest.fixture
def photo(tmp_path):
    rgb = composite(ellipse(160, 200, 70, 84, 50, 34), (0.9, 0.9, 0.85))
    Image.fromarray((rgb * 255).astype(np.uint8)).save(tmp_path / "photo.jpg", quality=90)
    return tmp_path / "photo.jpg"


def test_jpeg_to_framed_rgba(photo, capsys):
    assert main([str(photo), "--size", "256"]) == 0
    loaded = load_reference_rgba(photo.with_name("photo_rgba.png"))
    left, _, right, _ = object_bounds(loaded.rgba[..., 3])
    assert right - left == pytest.approx(200, abs=2)
    assert (left + right) / 2 == pytest.approx(128, abs=1)
    assert Image.open(photo.with_name("photo_rgba_steps.png")).size == (6 * 256 + 4 * 8, 256 + 24)
    printed = capsys.readouterr().out
    assert "object found by grabcut, confidence" in printed
    assert "degrees, estimated from the image" in printed


def test_doubtful_photo_stops_but_shows_why(tmp_path, capsys):
    rgb = composite(ellipse(160, 200, 100, 80, 95, 82), (0.9, 0.9, 0.85))
    Image.fromarray((rgb * 255).astype(np.uint8)).save(tmp_path / "photo.png")
    out = tmp_path / "out.png"
    assert main([str(tmp_path / "photo.png"), "--out", str(out)]) == 2
    assert "touches the edge" in capsys.readouterr().err
    assert not out.exists()
    assert (tmp_path / "out_steps.png").exists()
    assert main([str(tmp_path / "photo.png"), "--out", str(out), "--force", "--no-elevation"]) == 0
    assert out.exists()


def test_mistakes_are_one_sentence(photo, capsys):
    assert main([str(photo.with_name("none.jpg"))]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([str(photo), "--out", str(photo)]) == 2
    assert "the photo itself" in capsys.readouterr().err
    assert main([str(photo), "--size", "1"]) == 2
    assert "out of range" in capsys.readouterr().err
