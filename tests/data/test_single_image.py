"""The input image, and depth and normal images next to it, in all common forms."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zero123s.data.random_camera import RandomCameraConfig
from zero123s.data.single_image import SingleImageData
from zero123s.errors import ConfigError, ImageError
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.preprocess.input_image import CutOutConfig

RADIUS = 0.5


def ball(size: int = 48):
    """Mask, distance along the ray and world normals of a ball, seen from 20 degrees above."""
    rays = generate_rays(orbit_cameras(20.0, 0.0, height=size, width=size))
    b = (rays.rays_o * rays.rays_d).sum(-1)
    inside = b**2 - (rays.rays_o.square().sum(-1) - RADIUS**2)
    distance = -b - inside.clamp_min(0).sqrt()
    normal = torch.nn.functional.normalize(rays.rays_o + distance[..., None] * rays.rays_d, dim=-1)
    return (inside > 0)[0].numpy(), distance[0].numpy(), normal[0].numpy()


@pytest.fixture
def image_folder(tmp_path):
    """ball_rgba.png, ball_depth.png (16 bit) and ball_normal.png (OpenGL camera axes)."""
    mask, distance, normal = ball()
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[mask] = (200, 40, 10, 255)
    Image.fromarray(rgba).save(tmp_path / "ball_rgba.png")
    Image.fromarray(np.rint((distance - 3) / 1.5 * 65535 * mask).astype(np.uint16)).save(tmp_path / "ball_depth.png")
    rotation = orbit_cameras(20.0, 0.0).c2w[0, :3, :3].numpy()
    camera_normal = normal @ rotation
    Image.fromarray(np.rint((camera_normal + 1) / 2 * 255).astype(np.uint8)).save(tmp_path / "ball_normal.png")
    return tmp_path


def load(path, **changes) -> SingleImageData:
    overrides = {"height": 48, "width": 48, "default_elevation_deg": 20.0, "default_camera_distance": 3.8}
    overrides["random_camera"] = RandomCameraConfig(height=8, width=8)
    cfg = SingleImageData.Config(image_path=str(path), default_fovy_deg=20.0, **{**overrides, **changes})
    data = SingleImageData(cfg)
    data.prepare()
    return data


def test_depth_and_normal_maps_are_converted(image_folder):
    view = load(image_folder / "ball_rgba.png", requires_depth=True, requires_normal=True).reference()
    mask, distance, normal = ball()
    given = view.depth[0, ..., 0].numpy()[mask]
    np.testing.assert_allclose(3 + 1.5 * given, distance[mask], atol=1e-3)
    agreement = (view.normal[0].numpy() * normal).sum(-1)[mask]
    assert agreement.min() > 0.999
    assert (view.normal[0].norm(dim=-1)[torch.from_numpy(mask)] - 1).abs().max() < 1e-5


def test_other_conventions_and_places(image_folder):
    plain = load(image_folder / "ball_rgba.png", requires_depth=True, requires_normal=True).reference()
    image_file = np.asarray(Image.open(image_folder / "ball_normal.png")).astype(int)
    image_file[..., 1:] = 255 - image_file[..., 1:]
    Image.fromarray(image_file.astype(np.uint8)).save(image_folder / "cv.png")
    (image_folder / "ball_depth.png").rename(image_folder / "d.png")
    other = load(
        image_folder / "ball_rgba.png",
        requires_depth=True,
        depth_path=str(image_folder / "d.png"),
        depth_bright_is="near",
        requires_normal=True,
        normal_path=str(image_folder / "cv.png"),
        normal_convention="opencv",
    ).reference()
    mask = plain.mask[..., 0] > 0.5
    torch.testing.assert_close(other.normal[mask], plain.normal[mask], atol=0.02, rtol=0)
    torch.testing.assert_close(other.depth, 1 - plain.depth)


def test_downsampling_does_not_mix_in_the_outside(image_folder):
    view = load(image_folder / "ball_rgba.png", requires_depth=True, requires_normal=True).view(12, 12)
    covered = view.mask[0, ..., 0] > 0.1
    assert view.depth[0, ..., 0][covered].min() > 0.1  # outside the ball the image is 0
    assert (view.normal[0][covered].norm(dim=-1) - 1).abs().max() < 1e-5


def test_an_unrequested_image_is_not_read(image_folder):
    (image_folder / "ball_depth.png").write_text("no image")
    view = load(image_folder / "ball_rgba.png").reference()
    assert view.depth is None
    assert view.normal is None


@pytest.mark.parametrize("kind", ["depth", "normal"])
def test_a_missing_or_foreign_companion_is_reported(image_folder, kind):
    path = image_folder / f"ball_{kind}.png"
    Image.new("RGB", (40, 20)).save(path)
    with pytest.raises(ImageError, match="same frame"):
        load(image_folder / "ball_rgba.png", **{f"requires_{kind}": True})
    path.unlink()
    with pytest.raises(ImageError, match=rf"does not exist.*data\.requires_{kind}.*data\.{kind}_path"):
        load(image_folder / "ball_rgba.png", **{f"requires_{kind}": True})


@pytest.mark.parametrize("changes", [{"depth_bright_is": "yes"}, {"normal_convention": "blender"}])
def test_unknown_conventions_are_reported(image_folder, changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        load(image_folder / "ball_rgba.png", **changes)


# ---------------------------------------------------------------- bad input


def cut_out(mode: str = "RGBA", size: tuple[int, int] = (32, 24)) -> Image.Image:
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    image.paste((200, 40, 10, 255), (8, 4, 24, 20))
    return image.convert(mode)


def png_bytes(image: Image.Image, **overrides) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **overrides)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG header that promises 10 billion pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 6, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc + empty


BAD = {
    "text": (b"hello, I am text " * 20, "not an image"),
    "empty": (b"", "is empty"),
    "truncated": (png_bytes(cut_out(size=(300, 300)))[:300], "damaged or cut short"),
    "one_pixel": (png_bytes(Image.new("RGBA", (1, 1))), "only 1x1 pixels"),
    "transparent": (png_bytes(Image.new("RGBA", (32, 32))), "fully transparent"),
    "opaque_alpha": (png_bytes(Image.new("RGBA", (32, 32), (9, 9, 9, 255))), "No object was found"),
    "bomb": (bomb(), "make it smaller"),
    "deep_gray": (png_bytes(Image.fromarray(np.full((16, 16), 40000, np.uint16))), "No object was found"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_in_one_sentence(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        load(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_unreadable(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="does not exist"):
        load(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        load(tmp_path)
    cut_out().save(tmp_path / "a.png")
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(ImageError, match="cannot be read"):
        load(tmp_path / "a.png")


@pytest.mark.parametrize(("mode", "name"), [("RGB", "a.png"), ("RGB", "a.jpg"), ("CMYK", "a.jpg"), ("RGB", "a.webp")])
def test_an_opaque_image_is_segmented_and_framed(tmp_path, mode, name):
    photo = Image.new("RGB", (240, 160), (225, 225, 215))
    photo.paste((200, 40, 10), (30, 60, 90, 110))
    photo.convert(mode).save(tmp_path / name, **({} if name.endswith("png") else {"quality": 90}))
    mask = load(tmp_path / name, height=100, width=100).reference().mask[0, ..., 0] > 0.5
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    assert columns[-1] + 1 - columns[0] == pytest.approx(78, abs=2)  # 200 of 256
    assert rows[-1] + 1 - rows[0] == pytest.approx(78 * 50 / 60, abs=2)
    assert columns[0] + columns[-1] + 1 == pytest.approx(100, abs=2)


def test_a_segmented_image_is_saved_and_reused(tmp_path):
    photo = Image.new("RGB", (240, 160), (225, 225, 215))
    photo.paste((200, 40, 10), (30, 60, 90, 110))
    photo.save(tmp_path / "photo.png")
    depth = np.tile(np.linspace(0, 65535, 240), (160, 1)).astype(np.uint16)
    Image.fromarray(depth).save(tmp_path / "photo_depth.png")
    data = load(tmp_path / "photo.png", requires_depth=True)
    facts = data.save_inputs(tmp_path / "input")
    assert (facts["method"], facts["source"]) == ("grabcut", str(tmp_path / "photo.png"))
    assert {p.name for p in (tmp_path / "input").iterdir()} == {"photo_rgba.png", "photo_depth.png", "steps.png"}
    assert data.cfg.image_path == str(tmp_path / "input" / "photo_rgba.png")
    # The depth image was framed with the object: its left side is where the object's left side was in the photo.
    reference_view = data.reference()
    inside = reference_view.depth[0, ..., 0][reference_view.mask[0, ..., 0] > 0.5]
    assert float(inside.min()) == pytest.approx(31 / 240, abs=0.01)
    assert float(inside.max()) == pytest.approx(89 / 240, abs=0.01)
    again = load(data.cfg.image_path, requires_depth=True, depth_path=data.cfg.depth_path)
    torch.testing.assert_close(
        again.reference().rgb * again.reference().mask, reference_view.rgb * reference_view.mask, atol=0.01, rtol=0
    )
    depths = (again.reference().depth * reference_view.mask, reference_view.depth * reference_view.mask)
    torch.testing.assert_close(*depths, atol=0.01, rtol=0)
    assert again.save_inputs(tmp_path / "input") == {}


def test_a_doubtful_cut_out_is_refused_unless_forced(tmp_path):
    photo = Image.new("RGB", (240, 160), (225, 225, 215))
    photo.paste((200, 40, 10), (0, 0, 200, 150))  # touches two edges
    photo.save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"touches the edge.*data\.cut_out\.force=true"):
        load(tmp_path / "a.png")
    assert float(load(tmp_path / "a.png", cut_out=CutOutConfig(force=True)).reference().mask.mean()) > 0.3


def test_an_object_off_centre_is_reported_and_recentred(tmp_path, caplog):
    image = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    image.paste((0, 255, 0, 255), (10, 20, 50, 50))
    image.save(tmp_path / "corner.png")
    load(tmp_path / "corner.png", cut_out=CutOutConfig(frame="never"))
    assert "takes 20% of the frame, 35% off its centre" in caplog.text
    mask = load(tmp_path / "corner.png").reference().mask
    assert "it was centred and scaled" in caplog.text
    assert float(mask.mean()) == pytest.approx(0.78**2 * 0.75, abs=0.03)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"prompt": "a duck"}, "and a prompt"), ({"image_path": ""}, "data.image_path: is missing")],
)
def test_exactly_one_of_image_and_prompt(overrides, message):
    with pytest.raises(ConfigError, match=message):
        SingleImageData(SingleImageData.Config(**{"image_path": "a.png", **overrides}))


def test_palette_and_animation_and_rotation_are_read(tmp_path, caplog):
    cut_out().quantize(8).save(tmp_path / "palette.png")
    red = (200 / 255, 40 / 255, 10 / 255)
    reference_view = load(tmp_path / "palette.png").reference()
    np.testing.assert_allclose(reference_view.rgb[0, 20, 20], red, atol=0.05)
    assert 0.15 < float(reference_view.mask.mean()) < 0.35

    frames = [cut_out(), Image.new("RGBA", (32, 24), (0, 0, 255, 255))]
    frames[0].save(tmp_path / "moves.png", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(load(tmp_path / "moves.png").reference().rgb[0, 20, 20], red, atol=0.02)
    assert "2 frames; the first is used" in caplog.text

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    cut_out().save(tmp_path / "turned.png", exif=exif)
    turned = load(tmp_path / "turned.png").reference()
    upright = load(tmp_path / "palette.png").reference()
    torch.testing.assert_close(turned.mask[0], torch.rot90(upright.mask[0], -1, (0, 1)), atol=0.05, rtol=0)
    assert "turned upright" in caplog.text


def test_any_aspect_keeps_its_proportions(tmp_path):
    wide = Image.new("RGBA", (80, 20), (0, 0, 0, 0))
    wide.paste((0, 255, 0, 255), (30, 0, 50, 20))  # a square in the middle of a wide image
    wide.save(tmp_path / "wide.png")
    mask = (
        load(tmp_path / "wide.png", height=40, width=40, cut_out=CutOutConfig(frame="never"))
        .reference()
        .mask[0, ..., 0]
        > 0.5
    )
    rows, columns = mask.any(1).sum(), mask.any(0).sum()
    assert (int(rows), int(columns)) == (10, 10)


def test_the_texture_gets_the_full_size_image(image_folder, monkeypatch):
    path = image_folder / "ball_rgba.png"
    assert load(path, height=[8, 16], width=[8, 16], resolution_milestones=[1]).photos().rgb.shape == (1, 48, 48, 3)
    assert load(path, height=96, width=96).photos().rgb.shape == (1, 96, 96, 3), "never smaller than it was trained on"
    monkeypatch.setattr("zero123s.data.single_image.MAX_PHOTO", 20)
    assert load(path, height=8, width=8).photos().rgb.shape == (1, 20, 20, 3)
    data = load(path, height=8, width=8)
    assert data.photos().cameras.c2w.equal(data.reference().cameras.c2w)


def test_elevation_auto_is_estimated_once_and_written_down(tmp_path):
    cut_out().save(tmp_path / "a.png")
    camera = RandomCameraConfig(height=8, width=8, eval_elevation_deg="auto", n_test_views=2)
    data = load(tmp_path / "a.png", default_elevation_deg="auto", random_camera=camera)
    elevation_deg = data.cfg.default_elevation_deg
    assert -15 <= elevation_deg <= 60
    assert data.reference().cameras.elevation_deg.tolist() == pytest.approx([elevation_deg])
    assert data.eval_cameras("test").elevation_deg.tolist() == pytest.approx([elevation_deg] * 2)
    record = data.save_inputs(tmp_path / "input")["elevation"]
    assert record["elevation_deg"] == elevation_deg
    assert len(record["scores"]) == len(record["candidates_deg"])
    assert not (tmp_path / "input").exists(), "the image itself was used as it is"
    facts = load(tmp_path / "a.png", default_elevation_deg=33.0).save_inputs(tmp_path / "input")
    assert facts == {"source": str(tmp_path / "a.png"), "method": "alpha", "confidence": 0.5, "notes": facts["notes"]}
    with pytest.raises(ConfigError, match="or auto, got 'aut'"):
        load(tmp_path / "a.png", default_elevation_deg="aut")
