"""From a sentence to a scored cut-out, with a tiny randomly initialised SDXL pipeline saved to a folder."""

import numpy as np
import pytest
from test_framing import ellipse
from tiny_sdxl import save_tiny_sdxl

from zero123s.errors import ConfigError, ImageError
from zero123s.images.io import composite
from zero123s.preprocess.text_to_image import TextToImageConfig, generate_candidates, score


def test_sentence_to_candidates(tmp_path):
    model = str(save_tiny_sdxl(tmp_path))
    cfg = TextToImageConfig(model=model, steps=2, candidates=2, height=64, width=64)
    drawn = generate_candidates("a wooden duck", cfg, seed=3)
    assert len(drawn.candidates) == 2
    assert drawn.candidates[0].rgb.shape == (64, 64, 3)
    assert np.abs(drawn.candidates[0].rgb - drawn.candidates[1].rgb).max() > 0.01
    assert drawn.contact_sheet.shape == (2 * 192 + 8, 2 * 192, 3)
    again = generate_candidates(
        "a wooden duck", TextToImageConfig(model=model, steps=2, candidates=1, height=64, width=64), seed=4
    )
    np.testing.assert_array_equal(again.candidates[0].rgb, drawn.candidates[1].rgb)
    assert (
        generate_candidates(
            "x", TextToImageConfig(model=model, steps=1, candidates=2, choose=1, height=64, width=64)
        ).chosen
        == 1
    )


def test_score_prefers_a_whole_large_object():
    gray = (0.85, 0.85, 0.85)
    good = score(composite(ellipse(160, 160, 80, 80, 55, 40), gray)).score
    small = score(composite(ellipse(160, 160, 80, 80, 12, 10), gray)).score
    cut = score(composite(ellipse(160, 160, 10, 80, 60, 60), gray)).score
    assert good > 0.8
    assert small < good
    assert cut < good
    assert score(np.full((64, 64, 3), 0.8, np.float32)).score == 0


def test_mistakes(tmp_path):
    with pytest.raises(ImageError, match=r"cannot be loaded.*huggingface-cli download.*copy a diffusers folder"):
        generate_candidates("a duck", TextToImageConfig(model=str(tmp_path)))
    with pytest.raises(ConfigError, match="prompt is empty"):
        generate_candidates("  ", TextToImageConfig())
    with pytest.raises(ConfigError, match="choose=4"):
        generate_candidates("a duck", TextToImageConfig(choose=4))
