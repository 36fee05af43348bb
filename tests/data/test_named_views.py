"""Images of named sides, with weights, and a guidance conditioned on the nearest."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from zero123s.data.multi_view import MultiViewData
from zero123s.data.named_views import NamedImagesConfig, NamedWeightsConfig
from zero123s.data.random_camera import RandomCameraConfig
from zero123s.errors import ConfigError, ImageError
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.nerf_synthetic import write_nerf_synthetic
from zero123s.scenes.procedural import named


def block(path, width, height, place, color, mode="RGBA"):
    """A rectangle at some place of an image of 200 x 160."""
    ground = (0, 0, 0, 0) if mode == "RGBA" else (225, 225, 215)
    image = Image.new(mode, (200, 160), ground)
    image.paste(color, (*place, place[0] + width, place[1] + height))
    image.save(path)
    return str(path)


def load(pictures, weights=None, **overrides):
    camera = RandomCameraConfig(height=8, width=8, camera_distance_range=[3.8, 3.8], fovy_range=[20.0, 20.0])
    cfg = MultiViewData.Config(
        pictures=NamedImagesConfig(**pictures),
        weights=weights or NamedWeightsConfig(),
        random_camera=camera,
        **overrides,
    )
    data = MultiViewData(cfg)
    data.prepare()
    return data


def extent(mask):
    rows, columns = (np.flatnonzero((mask[..., 0] > 0.5).any(axis)) for axis in (1, 0))
    return int(rows[-1] + 1 - rows[0]), int(columns[-1] + 1 - columns[0])


def test_names_are_azimuths(tmp_path):
    paths = {
        n: block(tmp_path / f"{n}.png", 60, 80, (70, 40), (250, 0, 0, 255)) for n in ("front", "left", "back", "right")
    }
    view = load({**paths, "elevation_deg": 10.0}).reference()
    expected = orbit_cameras(10.0, torch.tensor([0.0, 90.0, 180.0, -90.0]))
    torch.testing.assert_close(view.cameras.c2w, expected.c2w)
    torch.testing.assert_close(view.cameras.fovy_deg, expected.fovy_deg)
    assert view.weights is None
    # +y is the object's left when it faces +x with z up.
    assert float(view.cameras.positions[1, 1]) > 3.7


def test_photos_come_to_one_height(tmp_path):
    front = block(tmp_path / "f.png", 30, 60, (20, 20), (200, 30, 20), "RGB")
    left = block(tmp_path / "l.png", 120, 120, (40, 20), (20, 30, 200), "RGB")  # nearer: twice as large
    data = load({"front": front, "left": left}, height=128, width=128)
    masks = data.reference().mask
    (front_height, front_width), (left_height, left_width) = extent(masks[0]), extent(masks[1])
    assert front_height == pytest.approx(100, abs=2)
    assert left_height == pytest.approx(100, abs=2)
    assert front_width == pytest.approx(50, abs=2)
    assert left_width == pytest.approx(100, abs=2)
    facts = data.save_inputs(tmp_path / "input")
    assert facts["left"]["method"] == "grabcut"
    assert {p.name for p in (tmp_path / "input").iterdir()} == {
        f"{n}_{what}.png" for n in ("front", "left") for what in ("rgba", "steps")
    }
    again = load({"front": data.cfg.pictures.front, "left": data.cfg.pictures.left}, height=128, width=128)
    torch.testing.assert_close(again.reference().mask, masks, atol=0.02, rtol=0)


def test_weights_average_one_and_travel_with_the_batch(tmp_path):
    paths = {n: block(tmp_path / f"{n}.png", 60, 80, (70, 40), (250, 0, 0, 255)) for n in ("front", "back")}
    data = load(paths, NamedWeightsConfig(front=3.0, back=1.0), batch_size=1)
    conditioned = {}
    for step in range(4):
        reference = data.batch_at(step).reference
        conditioned[round(float(reference.cameras.azimuth_deg[0])) % 360] = float(reference.weights[0])
    assert conditioned == {0: 1.5, 180: 0.5}
    with pytest.raises(ConfigError, match="not all 0"):
        load(paths, NamedWeightsConfig(front=0.0, back=0.0))


def test_weights_of_transforms_json(tmp_path):
    path = write_nerf_synthetic(named("burger", 1), tmp_path, n_views=3, size=16)
    content = json.loads(path.read_text())
    content["frames"][1]["weight"] = 4.0
    path.write_text(json.dumps(content))
    data = MultiViewData(MultiViewData.Config(transforms_path=str(path)))
    data.prepare()
    assert data.reference().weights.tolist() == [0.5, 2.0, 0.5]
    content["frames"][1]["weight"] = float("nan")
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="finite numbers"):
        data.prepare()


def test_a_guidance_never_sees_what_is_held_out(tmp_path):
    path = write_nerf_synthetic(named("burger", 1), tmp_path, n_views=4, size=16)
    data = MultiViewData(MultiViewData.Config(transforms_path=str(path), holdout_every=2))
    data.prepare()
    shown = {tuple(p) for p in data.conditioning_views().cameras.positions.tolist()}
    assert len(shown) == 2
    assert not shown & {tuple(p) for p in data.reference().cameras.positions.tolist()}


def test_opaque_posed_photos_are_segmented_in_place(tmp_path):
    path = write_nerf_synthetic(named("burger", 1), tmp_path, n_views=2, size=64)
    truth = np.asarray(Image.open(tmp_path / "000.png"))[..., 3] / 255
    for name in ("000.png", "001.png"):
        rgba = Image.open(tmp_path / name)
        photo = Image.new("RGBA", rgba.size, (90, 130, 220, 255))
        photo.alpha_composite(rgba)
        photo.convert("RGB").save(tmp_path / name)
    data = MultiViewData(MultiViewData.Config(transforms_path=str(path)))
    data.prepare()
    mask = data.images[0][..., 3]
    assert ((mask > 0.5) & (truth > 0.5)).sum() / ((mask > 0.5) | (truth > 0.5)).sum() > 0.95


def test_mistakes(tmp_path):
    front = block(tmp_path / "f.png", 60, 80, (70, 40), (250, 0, 0, 255))
    with pytest.raises(ConfigError, match=r"data\.pictures\.front is missing"):
        load({"back": front})
    with pytest.raises(ImageError, match=r"data\.pictures\.back: .*nothing\.png' does not exist"):
        load({"front": front, "back": str(tmp_path / "nothing.png")})
    with pytest.raises(ConfigError, match=r"either a transforms\.json or images by name"):
        MultiViewData(MultiViewData.Config())
    with pytest.raises(ConfigError, match=r"either a transforms\.json or images by name"):
        load({"front": front}, transforms_path="transforms.json")
