"""Images and settings of tiny batches."""

from pathlib import Path

import numpy as np
import pytest
import tiny_batch
from PIL import Image

REPOSITORY = Path(__file__).parents[2]

YAML = """
data_type: tiny-picture
data: {image_path: none.png}
system_type: tiny-batch-system
imports: [tiny_batch]
trainer: {max_steps: 8, val_check_interval: 0, enable_progress_bar: false}
checkpoint: {every_n_train_steps: 2}
"""


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Four grey images, transparent on the left, darker to brighter."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        rgba = np.full((16, 16, 4), 40 * (i + 1), np.uint8)
        rgba[..., 3] = 255
        rgba[:, :4, 3] = 0
        Image.fromarray(rgba).save(folder / f"p{i}.png")
    return folder


@pytest.fixture
def batch_config(tmp_path, monkeypatch) -> Path:
    """A configuration whose runs take no time to speak of."""
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY / 'tests/helpers'}:{REPOSITORY}")
    monkeypatch.setenv(tiny_batch.LOADS, str(tmp_path / "loads.txt"))
    path = tmp_path / "tiny.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path
