"""From a sentence to a scored cut-out, with a tiny randomly initialised SDXL pipeline saved to a folder."""

import json

import numpy as np
import pytest
import torch
from test_framing import ellipse

from zero123s.errors import ConfigError, ImageError
from zero123s.preprocess.images import composite
from zero123s.preprocess.text_to_image import TextToImageConfig, draw, score


def save_tiny_sdxl(folder):
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    letters = [chr(i) for i in range(33, 127)]
    vocabulary = letters + [c + "</w>" for c in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, projection_dim=16,
        num_hidden_layers=2, num_attention_heads=2, bos_token_id=len(vocabulary) - 2, eos_token_id=len(vocabulary) - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16, cross_attention_dim=32, use_linear_projection=True,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, sample_size=16, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=EulerDiscreteScheduler(), tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(text), text_encoder_2=CLIPTextModelWithProjection(text),
    )  # fmt: skip
    pipeline.save_pretrained(folder / "sdxl")
    return folder / "sdxl"


def test_sentence_to_candidates(tmp_path):
    model = str(save_tiny_sdxl(tmp_path))
    cfg = TextToImageConfig(model=model, steps=2, candidates=2, height=64, width=64)
    drawn = draw("a wooden duck", cfg, seed=3)
    assert len(drawn.candidates) == 2
    assert drawn.candidates[0].rgb.shape == (64, 64, 3)
    assert np.abs(drawn.candidates[0].rgb - drawn.candidates[1].rgb).max() > 0.01
    assert drawn.contact_sheet.shape == (2 * 192 + 8, 2 * 192, 3)
    again = draw("a wooden duck", TextToImageConfig(model=model, steps=2, candidates=1, height=64, width=64), seed=4)
    np.testing.assert_array_equal(again.candidates[0].rgb, drawn.candidates[1].rgb)
    assert draw("x", TextToImageConfig(model=model, steps=1, candidates=2, choose=1, height=64, width=64)).chosen == 1


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
        draw("a duck", TextToImageConfig(model=str(tmp_path)))
    with pytest.raises(ConfigError, match="prompt is empty"):
        draw("  ", TextToImageConfig())
    with pytest.raises(ConfigError, match="choose=4"):
        draw("a duck", TextToImageConfig(choose=4))
