"""A Stable Diffusion XL pipeline of toy size and random weights, saved to a folder as the real one is."""

import json
from pathlib import Path

import pytest
import torch


def save_tiny_sdxl(folder: Path) -> Path:
    """Write the pipeline below `folder` and return its own folder."""
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


def draw_a_disc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks draw noise, in which there is no object: lay what they draw, faintly, over a disc."""
    from diffusers import AutoencoderKL
    from diffusers.models.autoencoders.vae import DecoderOutput

    decode = AutoencoderKL.decode

    def over_a_disc(self, *args, **overrides):
        (sample,) = decode(self, *args, **{**overrides, "return_dict": False})
        axis = torch.linspace(-1, 1, sample.shape[-1])
        disc = (axis[:, None] ** 2 + axis**2 < 0.6**2) * 1.0
        drawn = 0.05 * sample + 0.7 - disc * torch.tensor([0.2, 1.2, 1.4])[:, None, None]
        return DecoderOutput(drawn) if overrides.get("return_dict", True) else (drawn,)

    monkeypatch.setattr(AutoencoderKL, "decode", over_a_disc)
