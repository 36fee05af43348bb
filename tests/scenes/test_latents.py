"""Cached latents: complete, resumable, never of another autoencoder."""

import numpy as np
import pytest
import torch

from zero123s.errors import ImageError
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset
from zero123s.scenes.latents import LatentFolder, cache_latents
from zero123s.scenes.shards import ShardFolder


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    render_dataset(procedural_objects(0, 5), folder, RenderSettings(views=3, size=16, supersample=1, shard_size=2))
    return ShardFolder(folder)


def shrink(rgb: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"latents": torch.nn.functional.avg_pool2d(rgb, 4), "embeddings": rgb.mean((2, 3))[:, None]}


def shifted(rgb: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: value + 1 for name, value in shrink(rgb).items()}


def test_folder_reads_what_was_rendered(views):
    assert len(views) == 5
    assert views.size == 16
    assert views.images(4).shape == (3, 16, 16, 4)
    assert views.elevation_deg.shape == (5, 3)
    assert views.images(4)[..., 3].max() == 255


def test_cache_holds_every_view_and_is_made_once(views, tmp_path):
    encoded, counts = [], []
    cache_latents(views, tmp_path, lambda rgb: encoded.append(1) or shrink(rgb), "abc", counts.append)
    assert sum(counts) == len(encoded) == 5
    cached = LatentFolder(tmp_path, views)
    image = views.images(3).astype(np.float32) / 255
    white = image[..., :3] * image[..., 3:] + 1 - image[..., 3:]
    expected = shrink(torch.from_numpy(white).permute(0, 3, 1, 2))
    np.testing.assert_allclose(cached.latents(3), expected["latents"].numpy(), atol=2e-3)
    np.testing.assert_allclose(cached.embeddings(3), expected["embeddings"].numpy(), atol=2e-3)
    (tmp_path / views.paths[1].name).unlink()  # as after a kill
    cache_latents(views, tmp_path, lambda rgb: encoded.append(1) or shrink(rgb), "abc")
    assert len(encoded) == 7, "only the missing file is made again"


def test_latents_of_another_autoencoder_are_replaced_not_mixed(views, tmp_path):
    cache_latents(views, tmp_path, shrink, "abc")
    cache_latents(views, tmp_path, shifted, "def")
    assert LatentFolder(tmp_path, views).model_sha256 == "def"
    assert LatentFolder(tmp_path, views).latents(0).min() >= 1


def test_missing_or_foreign_files_are_reported(views, tmp_path):
    with pytest.raises(ImageError, match="cache-latents"):
        LatentFolder(tmp_path, views)
    with pytest.raises(ImageError, match="holds no shards"):
        ShardFolder(tmp_path)
