"""Three hundred hostile or damaged files: none runs anything, none ends in a traceback, none takes 10 seconds."""

import builtins
import io
import json
import os
import pickle
import random
import struct
import subprocess
import time
import zipfile

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zero123s.diffusion.checkpoint.load_zero123 import load_zero123, original_state_dict, save_zero123
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import parse_model_config
from zero123s.errors import UserError

TINY = {
    "unet_config": {
        "params": {
            "image_size": 4,
            "model_channels": 32,
            "channel_mult": [1],
            "attention_resolutions": [1],
            "num_res_blocks": 1,
            "context_dim": 32,
        }
    },
    "first_stage_config": {"params": {"ddconfig": {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "resolution": 8}}},
    "cond_stage_config": {
        "params": {"image_size": 8, "patch_size": 4, "width": 32, "layers": 1, "heads": 2, "output_dim": 32}
    },
}
CONFIG = parse_model_config(TINY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A complete small model in both formats, its weights, and a folder to work in."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    model = build_model(CONFIG).half()
    weights = {key: value.detach().clone() for key, value in original_state_dict(model).items()}
    torch.save({"state_dict": weights}, folder / "zero123.ckpt")
    save_zero123(model, folder / "zero123.safetensors")
    return folder, weights


def attempt(path):
    """Try to load; return the sentence of the refusal, or the weights if the file was taken."""
    started = time.monotonic()
    try:
        found = original_state_dict(load_zero123(path, CONFIG, dtype="fp16"))
    except UserError as error:  # anything else is a traceback, and fails the test
        found = str(error)
        assert "\n" not in found.strip()
        assert str(path.name) in found or str(path.parent.name) in found
    assert time.monotonic() - started < 10
    return found


def is_same(found, weights):
    return found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)


def cut_off(data, draw):
    return data[: draw.randrange(len(data))]


def flip(data, draw, start=0, stop=None):
    data = bytearray(data)
    for _ in range(draw.randint(1, 20)):
        data[draw.randrange(start, stop or len(data))] ^= draw.randint(1, 255)
    return bytes(data)


def drop_piece(data, draw):
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randint(1, 5000) :]


def header_length(data):
    return 8 + struct.unpack("<Q", data[:8])[0]


DAMAGES = {
    "cut off": cut_off,
    "piece dropped": drop_piece,
    "index flipped": lambda data, draw: flip(data, draw, 0, 30_000),
    "directory flipped": lambda data, draw: flip(data, draw, len(data) - 20_000),
    "weights flipped": lambda data, draw: flip(data, draw, 40_000, len(data) - 40_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints(damage, whole, tmp_path):
    folder, weights = whole
    content = (folder / "zero123.ckpt").read_bytes()
    assert is_same(attempt(folder / "zero123.ckpt"), weights)
    for seed in range(28):  # 140 files
        path = tmp_path / "zero123.ckpt"
        path.write_bytes(DAMAGES[damage](content, random.Random(seed)))
        found = attempt(path)
        # Bytes between the records mean nothing: a file damaged only there is still whole.
        assert isinstance(found, str) or is_same(found, weights), seed
        assert isinstance(found, str) or damage not in ("cut off", "weights flipped"), seed


@pytest.mark.parametrize("damage", ["cut off", "piece dropped", "header flipped"])
def test_damaged_safetensors(damage, whole, tmp_path):
    folder, weights = whole
    content = (folder / "zero123.safetensors").read_bytes()
    assert is_same(attempt(folder / "zero123.safetensors"), weights)
    damages = DAMAGES | {"header flipped": lambda data, draw: flip(data, draw, 0, header_length(data))}
    for seed in range(20):  # 60 files
        path = tmp_path / "zero123.safetensors"
        path.write_bytes(damages[damage](content, random.Random(seed)))
        found = attempt(path)
        # A flipped letter of the metadata leaves the weights as they are.
        assert isinstance(found, str) or (damage == "header flipped" and is_same(found, weights)), seed


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def hostile_calls(flag):
    return {
        "system": Runs(os.system, f"touch {flag}"),
        "popen": Runs(subprocess.Popen, ["touch", str(flag)]),
        "eval": Runs(eval, f"open({str(flag)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(flag)!r}, 'w')"),
        "open": Runs(builtins.open, str(flag), "w"),
        "mkdir": Runs(os.mkdir, str(flag)),
        "getattr": Runs(getattr, "text", "upper"),
        "import": Runs(__import__, "antigravity"),
        "load": Runs(torch.load, str(flag)),
        "map": Runs(map, os.mkdir, [str(flag)]),
    }


CALLS = sorted(hostile_calls("flag"))


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_that_run_something(protocol, tmp_path):
    flag = tmp_path / "flag"
    for call in CALLS:  # 5 x 10 files
        content = pickle.dumps({"state_dict": {}, "callbacks": hostile_calls(flag)[call]}, protocol)
        with zipfile.ZipFile(tmp_path / "evil.ckpt", "w") as archive:
            archive.writestr("archive/data.pkl", content)
        found = attempt(tmp_path / "evil.ckpt")
        assert isinstance(found, str)
        assert "it would run" in found, (call, found)
        (tmp_path / "bare.ckpt").write_bytes(content)
        assert isinstance(attempt(tmp_path / "bare.ckpt"), str)
        assert not flag.exists(), call


@pytest.mark.parametrize("kind", ["shape", "nan", "infinity", "integers", "missing"])
def test_wrong_weights(kind, whole, tmp_path):
    _, weights = whole
    draw = random.Random(kind)
    for key in draw.sample(sorted(weights), 7):  # 35 files
        changed = dict(weights)
        if kind == "shape":
            changed[key] = torch.zeros(3, *weights[key].shape).half()
        elif kind == "missing":
            del changed[key]
        elif kind == "integers":
            changed[key] = torch.zeros(weights[key].shape, dtype=torch.int64)
        else:
            changed[key] = weights[key].clone()
            changed[key].view(-1)[draw.randrange(weights[key].numel())] = float("nan" if kind == "nan" else "inf")
        torch.save({"state_dict": changed}, tmp_path / "zero123.ckpt")
        found = attempt(tmp_path / "zero123.ckpt")
        assert isinstance(found, str)
        assert key in found or "not a Zero123" in found or "Stable Diffusion" in found, (key, found)


def zipped(name, content, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def image(kind):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def safetensors_with(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


OTHER_FILES = {
    "empty": b"",
    "one byte": b"P",
    "zeros": bytes(4096),
    "noise": random.Random(0).randbytes(4096),
    "a JPEG renamed": image("JPEG"),
    "a PNG renamed": image("PNG"),
    "a web page": b"<!DOCTYPE html><html><body>401</body></html>",
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a text": b"weights to follow\n" * 100,
    "an archive without index": zipped("readme.txt", b"nothing"),
    "an archive of archives": zipped("archive/data.pkl", zipped("archive/data.pkl", b"")),
    "a compressed index": zipped("archive/data.pkl", bytes(300 * 1024**2), zipfile.ZIP_DEFLATED),
    "a memo out of range": zipped("archive/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f."),
    "a list of lists": zipped("archive/data.pkl", b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b"."),
    "an endless header": struct.pack("<Q", 2**62) + b"{" + bytes(64),
    "a header of a list": safetensors_with(b"[1, 2]" + b" " * 20),
    "a deep header": safetensors_with(b'{"a":' * 50_000),
    "negative offsets": safetensors_with({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(8)),
    "a huge shape": safetensors_with(
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "an unknown type": safetensors_with({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
}


def test_files_of_other_kinds(tmp_path):
    for name, content in OTHER_FILES.items():  # 20 files
        (tmp_path / "zero123.ckpt").write_bytes(content)
        assert isinstance(attempt(tmp_path / "zero123.ckpt"), str), name


def test_overlapping_tensors(whole, tmp_path):
    _, weights = whole
    save_file(weights, tmp_path / "zero123.safetensors")
    data = (tmp_path / "zero123.safetensors").read_bytes()
    start = header_length(data)
    header = json.loads(data[8:start])
    a, b = [key for key in header if header[key]["shape"] == [32]][:2]
    header[a]["data_offsets"] = header[b]["data_offsets"]
    (tmp_path / "zero123.safetensors").write_bytes(safetensors_with(header, data[start:]))
    assert "invalid offset" in attempt(tmp_path / "zero123.safetensors")
