"""Folders of rendered views in both layouts, as training and the cache of latents open them."""

import json

import numpy as np
import pytest
from PIL import Image

from zero123s.commands.render import main
from zero123s.data.rendered_views import RenderedViews
from zero123s.errors import ConfigError, ImageError
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset
from zero123s.scenes.latents import LatentFolder, cache_latents
from zero123s.scenes.original_layout import write_original
from zero123s.scenes.renders import open_renders
from zero123s.scenes.shards import read_shard, shard_path


@pytest.fixture
def both(tmp_path):
    """The same four objects as shards and in the original's layout."""
    render_dataset(procedural_objects(0, 4), tmp_path / "shards", RenderSettings(views=3, size=16, supersample=1))
    write_original([read_shard(shard_path(tmp_path / "shards", 0))], tmp_path / "original")
    return tmp_path / "shards", tmp_path / "original"


def test_training_reads_the_original_layout_as_shards(both):
    batches = []
    for root in both:
        data = RenderedViews(RenderedViews.Config(root=str(root), batch_size=2, held_out=1))
        data.prepare()
        batches.append(data.batch_at(0))
    shards, original = batches
    np.testing.assert_allclose(original.rgba, shards.rgba, atol=0.5 / 255)
    for name in ("elevation_deg", "azimuth_deg", "distance"):
        np.testing.assert_allclose(getattr(original, name), getattr(shards, name), atol=1e-3)


@pytest.mark.parametrize("layout", [0, 1], ids=["shards", "original"])
def test_checking_files_opens_renders_and_latents(both, tmp_path, layout):
    root = both[layout]
    RenderedViews(RenderedViews.Config(root=str(root), held_out=1)).check_files()
    with pytest.raises(ConfigError, match="held_out=4 leaves nothing"):
        RenderedViews(RenderedViews.Config(root=str(root), held_out=4)).check_files()
    with pytest.raises((ConfigError, ImageError), match="nowhere"):
        RenderedViews(RenderedViews.Config(root=str(root), held_out=1, latents=str(tmp_path / "nowhere"))).check_files()


def test_latents_of_the_original_layout_are_cached_elsewhere(both, tmp_path):
    views = open_renders(both[1])
    before = sorted(both[1].rglob("*"))
    encode = lambda rgb: {"latents": rgb[:, :, ::8, ::8], "embeddings": rgb.mean((2, 3))[:, None]}  # noqa: E731
    cache_latents(views, tmp_path / "latents", encode, "hash")
    latents = LatentFolder(tmp_path / "latents", views)
    rgba = views.images(3)[1, ::8, ::8].astype(float) / 255
    on_white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    np.testing.assert_allclose(latents.latents(3)[1].transpose(1, 2, 0), on_white, atol=1e-3)
    assert sorted(both[1].rglob("*")) == before


def test_incomplete_objects_are_left_out_and_counted(both, caplog):
    root = both[1]
    first, *others = json.loads((root / "valid_paths.json").read_text())
    (root / first / "002.png").unlink()
    (root / "valid_paths.json").write_text(json.dumps([first, "never-rendered", *others]))
    assert len(open_renders(root)) == 3
    assert "left out 2 of 5 objects with fewer than 3 views" in caplog.text


def test_an_image_of_another_size_is_named(both):
    root = both[1]
    uid = json.loads((root / "valid_paths.json").read_text())[2]
    for path in (root / uid).glob("*.png"):
        Image.new("RGBA", (8, 8)).save(path)
    with pytest.raises(ImageError, match=rf"{uid}: its images have 8 x 8 pixels, those of the first object 16 x 16"):
        open_renders(root).images(2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "missing: does not exist"),
        ("empty", "empty: is empty"),
        ("wrong", "wrong: holds no renders, neither"),
    ],
)
def test_no_sentence_advises_to_write_into_the_folder(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "notes.txt").touch()
    with pytest.raises(ImageError, match=message) as caught:
        open_renders(tmp_path / name)
    assert f"zero123s render {tmp_path}" not in str(caught.value)


def test_only_broken_meshes_end_with_exit_code_one(tmp_path, capsys):
    (tmp_path / "meshes").mkdir()
    for name in ("a", "b"):
        (tmp_path / "meshes" / f"{name}.stl").write_bytes(b"nothing")
    assert main([str(tmp_path / "out"), "--meshes", str(tmp_path / "meshes")]) == 1
    assert "0 of 2 objects rendered" in capsys.readouterr().out
