"""Every kind of image people have is read as they would expect, or refused in one sentence."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from zero123s.errors import ImageError, OutputError
from zero123s.images.formats import FORMATS
from zero123s.images.io import (
    composite,
    fit_square,
    load_reference_rgba,
    read_image,
    resize_rgba,
    write_png_atomic,
)

RED = (200, 40, 10)


def make_image(mode="RGB", size=(24, 16), colour=RED):
    """A plain image whose top left quarter is black, so that turning it shows."""
    image = Image.new("RGB", size, colour)
    image.paste((0, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    return image.convert(mode)


def red_of(loaded):
    return np.rint(loaded.rgba[-1, -1, :3] * 255)


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.ppm", "a.tga", "a.jfif", "a.jp2", "a.gif", "a.heic"]
)
def test_common_formats(tmp_path, name):
    if name == "a.heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    make_image(size=(64, 32)).save(tmp_path / name)
    loaded = read_image(tmp_path / name)
    assert loaded.rgba.shape == (32, 64, 4)
    assert loaded.rgba.dtype == np.float32
    assert not loaded.has_alpha
    np.testing.assert_allclose(red_of(loaded), RED, atol=6)  # lossy formats


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = np.asarray(make_image())
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1)}
    undo |= {6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo[orientation](upright))).save(tmp_path / "a.png", exif=exif)
    loaded = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(np.rint(loaded.rgba[..., :3] * 255), upright)
    assert bool(loaded.notes) == (orientation != 1)


def test_gray_palette_and_16_bit(tmp_path):
    gray = np.linspace(0, 1, 256).reshape(16, 16)
    Image.fromarray((gray * 65535).astype(np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png").rgba[..., 0], gray, atol=1e-4)
    Image.fromarray((gray * 255).astype(np.uint8)).save(tmp_path / "gray.png")
    np.testing.assert_allclose(read_image(tmp_path / "gray.png").rgba[..., 2], gray, atol=1 / 255)
    make_image("P").save(tmp_path / "palette.png")
    np.testing.assert_allclose(red_of(read_image(tmp_path / "palette.png")), RED, atol=26)  # web palette
    make_image("1").save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png").rgba)) <= {0.0, 1.0}


def test_16_bit_rgba_png(tmp_path):
    rgba = np.zeros((16, 16, 4), np.uint16)
    rgba[4:12, 4:12] = (0xC8C8, 0x2828, 0x0A0A, 0xFFFF)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgba)
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", 16, 16, 16, 6, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    loaded = read_image(tmp_path / "deep.png")
    assert loaded.has_alpha
    np.testing.assert_allclose(loaded.rgba[8, 8] * 255, (200, 40, 10, 255), atol=0.51)


def test_transparency_of_every_kind(tmp_path):
    rgba = make_image("RGBA")
    rgba.putpixel((0, 0), (0, 0, 0, 0))
    rgba.save(tmp_path / "rgba.png")
    rgba.convert("LA").save(tmp_path / "la.png")
    rgba.save(tmp_path / "rgba.webp", lossless=True)
    make_image().save(tmp_path / "keyed.png", transparency=(0, 0, 0))
    palette = make_image("P")
    palette.save(tmp_path / "palette.gif", transparency=palette.getpixel((0, 0)))
    for name in ("rgba.png", "la.png", "rgba.webp", "keyed.png", "palette.gif"):
        loaded = load_reference_rgba(tmp_path / name)
        assert loaded.rgba[0, 0, 3] == 0, name
        assert loaded.rgba[-1, -1, 3] == 1, name


def test_opaque_alpha_channel_is_no_alpha(tmp_path):
    make_image("RGBA").save(tmp_path / "a.png")
    assert not read_image(tmp_path / "a.png").has_alpha


def test_cmyk_jpeg(tmp_path):
    make_image("CMYK", (64, 32)).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(red_of(read_image(tmp_path / "a.jpg")), RED, atol=6)


def test_profiles_that_change_nothing(tmp_path):
    """sRGB itself changes nothing; a profile that is not an RGB profile is reported and ignored."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ"))
    Image.new("RGB", (16, 16), RED).save(tmp_path / "odd.png", icc_profile=lab.tobytes())
    assert any("colour profile" in n for n in read_image(tmp_path / "odd.png").notes)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.new("RGB", (16, 16), RED).save(tmp_path / "srgb.png", icc_profile=srgb.tobytes())
    loaded = read_image(tmp_path / "srgb.png")
    assert not loaded.notes
    np.testing.assert_allclose(red_of(loaded), RED, atol=1)


def test_wide_gamut_profile_changes_colours(tmp_path):
    """Swapping the red and green primaries of sRGB in a profile swaps the colours that are meant."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[o : o + 4]): o for o in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12)}
    red, green = tags[b"rXYZ"] + 4, tags[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "a.png", icc_profile=bytes(profile))
    np.testing.assert_allclose(red_of(read_image(tmp_path / "a.png")), (0, 255, 0), atol=3)


def test_animation_gives_first_frame(tmp_path):
    first, second = make_image(), make_image(colour=(0, 0, 255))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    loaded = read_image(tmp_path / "a.gif")
    assert "2 frames" in loaded.notes[0]
    np.testing.assert_allclose(red_of(loaded), RED, atol=6)


def test_refusals(tmp_path, monkeypatch):
    def refused(name, match, content=None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=match) as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)

    refused("missing.png", "does not exist")
    refused("", "is a folder")
    refused("empty.png", "is empty", b"")
    refused("text.png", "not an image", b"hello, I am text " * 20)
    monkeypatch.setattr("zero123s.images.io.readable_formats", lambda: FORMATS)  # without the extra heif
    refused("phone.heic", r"HEIC.*pip install -e '\.\[heif\]'", b"\0\0\0\x18ftypheic" + b"\0" * 50)
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(buffer, "JPEG")
    refused("half.jpg", "damaged or cut short", buffer.getvalue()[: len(buffer.getvalue()) // 2])
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(buffer, "PNG")
    refused("half.png", "damaged or cut short", buffer.getvalue()[: len(buffer.getvalue()) // 2])
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    refused("tiny.png", "only 1x1 pixels")
    Image.new("RGBA", (32, 32), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    refused("clear.png", "fully transparent")
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "denied")))
    refused("clear.png", "cannot be read \\(denied\\)")


def test_huge_is_refused_before_decoding(tmp_path):
    """A header that promises 10^10 pixels has no data to decode behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(ImageError, match=r"too large|more than the"):
        read_image(tmp_path / "bomb.png")
    make_image().save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="24x16 pixels, more than"):
        read_image(tmp_path / "a.png", max_pixels=100)


def test_reference_without_alpha_names_the_remedy(tmp_path):
    make_image().save(tmp_path / "photo.jpg")
    with pytest.raises(ImageError, match=r"zero123s prepare .*photo\.jpg --out photo_rgba\.png"):
        load_reference_rgba(tmp_path / "photo.jpg")


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(4, 40), st.integers(4, 40), st.integers(4, 40))
def test_resize_never_bleeds_background(height, width, new_height, new_width):
    """A disc of one colour on transparent green keeps its colour at every size, and its share of the area."""
    y, x = np.mgrid[:height, :width]
    alpha = ((y - height / 2) ** 2 / height**2 + (x - width / 2) ** 2 / width**2 < 0.1).astype(np.float32)
    rgba = np.where(alpha[..., None] > 0, [0.8, 0.2, 0.1, 1.0], [0.0, 1.0, 0.0, 0.0]).astype(np.float32)
    out = resize_rgba(rgba, new_height, new_width)
    assert out.shape == (new_height, new_width, 4)
    visible = out[..., 3] > 0.02
    np.testing.assert_allclose(out[visible][:, :3], np.broadcast_to([0.8, 0.2, 0.1], (visible.sum(), 3)), atol=2e-3)
    if new_height <= height and new_width <= width:
        assert abs(out[..., 3].mean() - alpha.mean()) < 1e-4


def test_resize_is_an_area_average():
    rgba = np.random.default_rng(0).random((8, 12, 4), np.float32)
    pre = rgba * np.concatenate([rgba[..., 3:]] * 3 + [np.ones_like(rgba[..., 3:])], -1)
    expected = pre.reshape(4, 2, 3, 4, 4).mean((1, 3))
    out = resize_rgba(rgba, 4, 3)
    np.testing.assert_allclose(out[..., 3], expected[..., 3], atol=1e-5)
    np.testing.assert_allclose(out[..., :3] * out[..., 3:], expected[..., :3], atol=1e-5)


def test_fit_square_keeps_pixels():
    rgba = np.random.default_rng(0).random((6, 10, 4), np.float32)
    square = fit_square(rgba)
    assert square.shape == (10, 10, 4)
    np.testing.assert_array_equal(square[2:8], rgba)
    assert (square[:2] == 0).all()


def test_png_round_trip_and_no_half_files(tmp_path):
    rgba = np.rint(np.random.default_rng(0).random((16, 16, 4)) * 255).astype(np.float32) / 255
    rgba[0, 0, 3] = 0
    write_png_atomic(tmp_path / "sub" / "a.png", rgba)
    np.testing.assert_array_equal(np.rint(read_image(tmp_path / "sub" / "a.png").rgba * 255), np.rint(rgba * 255))
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_png_atomic(tmp_path / "file" / "a.png", rgba)


def test_composite_over_colours():
    rgba = np.array([[[0.2, 0.4, 0.6, 0.25]]], np.float32)
    np.testing.assert_allclose(composite(rgba, (1.0, 0.0, 0.0))[0, 0], [0.8, 0.1, 0.15], atol=1e-6)


def test_reading_a_large_image_copies_it_once(tmp_path):
    Image.new("RGB", (2000, 1000), (200, 50, 10)).save(tmp_path / "large.png")
    tracemalloc.start()
    loaded = read_image(tmp_path / "large.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * loaded.rgba.nbytes
