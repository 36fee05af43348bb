"""Loading: what must load does, what must not is refused in one sentence and runs nothing."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection

from zero123s.commands.convert import main as convert
from zero123s.diffusion.checkpoint import family as family_module
from zero123s.diffusion.checkpoint.family import PUBLISHED_HASHES, announce_licence, decide_family
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123, original_state_dict, save_zero123
from zero123s.diffusion.checkpoint.weights_file import open_weights
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import model_config_document, parse_model_config, read_model_config
from zero123s.errors import CheckpointError, ConfigError

TINY_CONFIG = Path(__file__).parents[1] / "golden" / "tiny_config.yaml"


def test_original_names_and_bits_survive_a_round_trip(models, tiny_weights, tmp_path):
    model, _ = models["raw"]
    for key, tensor in original_state_dict(model).items():
        assert torch.equal(tensor, tiny_weights[key]), key
    save_zero123(model, tmp_path / "zero123.safetensors", torch.float16)
    again = load_zero123(tmp_path / "zero123.safetensors")  # its architecture travels with it
    assert again.config == model.config
    assert again.family == "zero123"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_conversion_to_diffusers_and_back_is_bit_exact(tiny_ckpt, tmp_path):
    config = ["--config", str(TINY_CONFIG)]
    folder, back, direct = tmp_path / "zero123-d", tmp_path / "back.safetensors", tmp_path / "direct.safetensors"
    assert convert([str(tiny_ckpt), str(folder), "--to", "diffusers", "--dtype", "fp16", *config]) == 0
    assert convert([str(folder), str(back), "--to", "original", "--dtype", "fp16"]) == 0
    assert convert([str(tiny_ckpt), str(direct), "--to", "original", "--dtype", "fp16", *config]) == 0
    a, b = load_file(back), load_file(direct)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    # The other projection names in use.
    (folder / "cc_projection").rename(folder / "clip_camera_projection")
    projection = folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"
    state = {k.replace("projection.", "proj."): v for k, v in load_file(projection).items()}
    save_file(state, projection)
    assert torch.equal(load_zero123(folder, dtype="fp16").cc_projection.weight, a["cc_projection.weight"])


def test_folder_without_a_part_names_it(tmp_path):
    with pytest.raises(CheckpointError, match="neither cc_projection/ nor clip_camera_projection/"):
        load_zero123(tmp_path)


def test_optimizer_state_and_averages_are_not_read(tiny_ckpt, models):
    tensors = open_weights(tiny_ckpt).tensors
    assert not any("exp_avg" in name for name in tensors)
    assert models["ema"][0].info["weights"] == "EMA"
    assert models["raw"][0].info["weights"] == "raw"
    assert len(models["ema"][0].info["sha256"]) == 64


def test_decoder_can_be_left_out(tiny_ckpt):
    model = load_zero123(tiny_ckpt, TINY_CONFIG, dtype="fp32", decoder=False)
    assert model.encode_image(torch.ones(1, 3, 256, 256)).shape == (1, 4, 32, 32)
    with pytest.raises(ConfigError, match="loaded without its decoder"):
        model.decode_latents(torch.zeros(1, 4, 32, 32))


def test_model_of_other_size_and_v_prediction(tmp_path):
    params = {
        "parameterization": "v",
        "unet_config": {"params": {"image_size": 8, "model_channels": 32, "channel_mult": [1, 1], "context_dim": 32}},
        "first_stage_config": {"params": {"ddconfig": {"ch": 32, "ch_mult": [1, 1, 1], "resolution": 32}}},
        "cond_stage_config": {
            "params": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "output_dim": 32}
        },
    }
    config = parse_model_config({"model": {"params": params}})
    assert parse_model_config(model_config_document(config)) == config
    torch.manual_seed(0)
    model = build_model(config).eval()
    assert (model.image_size, model.latent_size) == (32, 8)
    rgb = torch.rand(1, 3, 32, 32)
    context, concat = model.project(model.embed_image(rgb), torch.zeros(1, 4)), model.encode_image(rgb)
    clean, noise, t = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([600])
    noisy = model.add_noise(clean, noise, t)
    a = model.alphas_cumprod[600]
    v = model.denoise(noisy, t, context, concat)
    eps = model.predict_noise(noisy, t, context, concat)
    # Salimans and Ho 2022: v = sqrt(a) eps - sqrt(1-a) x0, with x0 what eps implies.
    implied = (noisy - (1 - a).sqrt() * eps) / a.sqrt()
    torch.testing.assert_close(a.sqrt() * eps - (1 - a).sqrt() * implied, v, rtol=1e-3, atol=1e-4)
    assert model.sample(rgb, [0.0, 10.0], 30.0, steps=2).shape == (2, 3, 32, 32)
    save_zero123(model, tmp_path / "small.safetensors")
    assert load_zero123(tmp_path / "small.safetensors").config == config


def test_what_other_tools_read(tiny_ckpt, tmp_path):
    config = ["--config", str(TINY_CONFIG), "--dtype", "fp16"]
    ckpt, folder, named = tmp_path / "zero123.ckpt", tmp_path / "kxic", tmp_path / "ashawkey"
    assert convert([str(tiny_ckpt), str(ckpt), "--to", "original", *config]) == 0
    assert convert([str(tiny_ckpt), str(folder), "--to", "diffusers", *config]) == 0
    projection = ["--projection", "clip_camera_projection"]
    assert convert([str(folder), str(named), "--to", "diffusers", "--dtype", "fp16", *projection]) == 0
    # The original's own loader: state_dict, and the average copied over the denoiser; stored once.
    state = torch.load(ckpt, weights_only=True)["state_dict"]
    key = "model.diffusion_model.input_blocks.0.0.weight"
    assert torch.equal(state[key], state["model_ema.diffusion_modelinput_blocks00weight"])
    assert ckpt.stat().st_size < 1.1 * sum(v.nbytes for k, v in state.items() if not k.startswith("model_ema."))
    # diffusers and transformers themselves, component by component.
    parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "image_encoder": CLIPVisionModelWithProjection}
    ours = load_zero123(ckpt, TINY_CONFIG, dtype="fp16")
    for path in (folder, named):
        for part, kind in parts.items():
            theirs = kind.from_pretrained(path / part, torch_dtype=torch.float16).state_dict()
            mine = getattr(ours, part).state_dict()
            assert theirs.keys() == mine.keys()
            assert all(torch.equal(theirs[k], mine[k]) for k in mine)
    assert json.loads((named / "model_index.json").read_text())["_class_name"] == "Zero123Pipeline"
    config = json.loads((named / "clip_camera_projection" / "config.json").read_text())
    assert (config["embedding_dim"], config["additional_embeddings"]) == (64, 4)
    assert load_file(named / "clip_camera_projection" / "diffusion_pytorch_model.safetensors").keys() == {
        "proj.weight",
        "proj.bias",
    }
    hashes = [load_zero123(path, dtype="fp16").info["sha256"] for path in (folder, named)]
    assert all(len(h) == 64 for h in hashes)
    assert hashes[0] != hashes[1]  # the projection's names differ


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stable_zero123.ckpt", ("stable-zero123", "stable-zero123")),
        ("stable_zero123_c.ckpt", ("stable-zero123-c", "stable-zero123")),
        ("zero123-xl.ckpt", ("zero123", "zero123")),
        ("105000.ckpt", ("zero123", "zero123")),
    ],
)
def test_family_by_file_name(name, expected, tmp_path):
    choice = decide_family(tmp_path / name, {})
    assert (choice.name, choice.family) == expected
    assert decide_family(tmp_path / name, {}, "zero123").family == "zero123"


def test_family_by_hash_metadata_and_cache_folder(tmp_path):
    renamed = tmp_path / "model.ckpt"
    for sha256, name in PUBLISHED_HASHES.items():
        choice = decide_family(renamed, {}, sha256=sha256)
        assert (choice.name, choice.family) == (name, "zero123" if name == "zero123" else "stable-zero123")
    assert decide_family(tmp_path, {"family": "zero123"}).family == "zero123"
    tuned = decide_family(
        tmp_path / "stable_zero123.safetensors", {"family": "stable-zero123", "name": "stable-zero123-c"}
    )
    assert tuned.name == "stable-zero123-c", "a fine-tuned model keeps its origin's licence"
    snapshot = tmp_path / "models--kxic--zero123-xl" / "snapshots" / "7d8aec2223b93e84"
    assert decide_family(snapshot, {}).family == "zero123"


def test_licence_is_printed_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(family_module, "_announced", set())
    for _ in range(2):
        announce_licence("stable-zero123-c")
    assert capsys.readouterr().err.count("Stability AI Community License") == 1


def test_guessed_family_is_a_warning(tmp_path, caplog):
    assert decide_family(tmp_path / "model.ckpt", {}).family == "stable-zero123"
    assert "assuming stable-zero123" in caplog.text


def test_config_names_the_wrong_key():
    with pytest.raises(ConfigError, match="Did you mean 'model_channels'"):
        parse_model_config({"unet_config": {"params": {"model_chanels": 64}}})
    with pytest.raises(ConfigError, match="must be eps or v"):
        parse_model_config({"parameterization": "x0"})
    with pytest.raises(ConfigError, match=r"scale_factor .* must be a number"):
        parse_model_config({"scale_factor": "much"})
    assert read_model_config(TINY_CONFIG).unet.context_dim == 64


def test_other_files_are_distinguished(tmp_path, tiny_weights):
    cases = {
        "missing.ckpt": (None, "does not exist"),
        "empty.ckpt": (b"", "0 bytes"),
        "page.ckpt": (b"<!DOCTYPE html><html></html>", "web page"),
        "pointer.ckpt": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        "old.ckpt": (pickle.dumps({"a": list(range(20))}), "bare pickle"),
    }
    for name, (content, said) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            load_zero123(tmp_path / name)
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.jpg")
    with pytest.raises(CheckpointError, match="neither a PyTorch checkpoint nor a safetensors"):
        load_zero123((tmp_path / "photo.jpg").rename(tmp_path / "photo.ckpt"))
    sd = {k: v for k, v in tiny_weights.items() if k.startswith("model.diffusion_model.")}
    torch.save({"state_dict": sd}, tmp_path / "sd.ckpt")
    with pytest.raises(CheckpointError, match="a Stable Diffusion checkpoint"):
        load_zero123(tmp_path / "sd.ckpt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not a Zero123 checkpoint; its first tensors are a"):
        load_zero123(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("first_stage_model.quant_conv.bias"), "1 of .* tensors are missing .first_stage_model.quant"),
        (lambda w: w.update({"cc_projection.weight": torch.zeros(64, 70)}), "another shape .*64, 70"),
        (lambda w: w["cc_projection.bias"].fill_(float("nan")), "cc_projection.bias holds NaN"),
        (lambda w: w.update({"cc_projection.bias": torch.zeros(64, dtype=torch.int64)}), "holds torch.int64"),
    ],
)
def test_wrong_weights_are_named(change, said, tiny_weights, tmp_path):
    weights = {k: v.clone() for k, v in tiny_weights.items() if not k.startswith("model_ema.")}
    change(weights)
    torch.save(weights, tmp_path / "zero123.ckpt")
    with pytest.raises(CheckpointError, match=said):
        load_zero123(tmp_path / "zero123.ckpt", TINY_CONFIG)
