"""Untrusted files: any content gives a result or a one-sentence error, in bounded time and memory.

pytest tests/end_to_end/test_hostile_input.py -m slow          # 10,000 images, 3,000 meshes
"""

import io
import json
import os
import random
import struct
import time
import zlib

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_cap import at_most_gb_more
from PIL import Image

from zero123s.config.interpolation import resolve
from zero123s.config.load import load_config
from zero123s.data.multi_view import read_transforms
from zero123s.errors import ConfigError, ImageError, MeshError, UserError
from zero123s.images.io import read_image
from zero123s.mesh.readers import load_mesh

SECONDS = 20
"""More than any of these files may take, on a busy machine."""


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return content with bytes flipped, cut, repeated, zeroed or made large."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        elif kind == 3:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"9e99"])
        else:
            data = data[: max(at, 1)]
    return bytes(data)


def image_files() -> dict[str, bytes]:
    """A small image in every format that is read."""
    rgba = np.random.default_rng(0).integers(0, 255, (24, 20, 4), dtype=np.uint8)
    image = Image.fromarray(rgba)
    found = {}
    for name, mode in [("PNG", "RGBA"), ("JPEG", "RGB"), ("WEBP", "RGBA"), ("TIFF", "RGBA"), ("GIF", "P"), ("BMP", "RGB"),
                       ("PPM", "RGB"), ("TGA", "RGBA"), ("JPEG2000", "RGBA"), ("AVIF", "RGBA")]:  # fmt: skip
        buffer = io.BytesIO()
        try:
            image.convert(mode).save(buffer, format=name, exif=Image.Exif())
        except (KeyError, OSError):  # a Pillow without this codec
            continue
        found[name] = buffer.getvalue()
    return found


def check_pictures(n, folder):
    rng = random.Random(int(os.environ.get("ZERO123S_SEED", "0")))
    sources = image_files()
    assert len(sources) >= 8
    read = refused = 0
    for _ in range(n):
        name, content = rng.choice(sorted(sources.items()))
        path = folder / f"a.{name.lower()}"
        path.write_bytes(mutated(content, rng))
        try:
            loaded = read_image(path)
        except ImageError:
            refused += 1
        else:
            assert np.isfinite(loaded.rgba).all()
            assert loaded.rgba.min() >= 0
            assert loaded.rgba.max() <= 1
            read += 1
    print({"read": read, "refused": refused})
    return read, refused


def test_mutated_images_are_read_or_refused(tmp_path):
    read, refused = check_pictures(400, tmp_path)
    assert read > 20
    assert refused > 100


@pytest.mark.slow
def test_ten_thousand_mutated_images(tmp_path):
    with at_most_gb_more(0.5):
        check_pictures(10_000, tmp_path)


def png_bomb(width, height):
    """A PNG of nothing but zeros: a few kB that stand for gigabytes."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 4 * width)) for _ in range(min(height, 200))) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (65_535, 65_535), (2**31 - 1, 1), (8_001, 8_001)])
def test_image_bombs_cost_neither_time_nor_memory(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(
        png_bomb(width, height)
        if width < 10**6
        else png_bomb(9, 9)[:16] + struct.pack(">II", width, height) + bytes(40)
    )
    started = time.monotonic()
    with at_most_gb_more(0.2), pytest.raises(ImageError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")
    assert time.monotonic() - started < SECONDS


# ---------------------------------------------------------------- configurations

BOMBS = {
    "doubling": "a0: xxxxxxxxxx\n" + "".join(f"a{i + 1}: ${{a{i}}}${{a{i}}}\n" for i in range(38)),
    "doubling from near": "s:\n  a0: xxxxxxxxxx\n" + "".join(f"  a{i + 1}: ${{.a{i}}}${{.a{i}}}\n" for i in range(38)),
    "sections": "s0: {a: x, b: y}\n" + "".join(f"s{i + 1}: {{a: '${{s{i}}}', b: '${{s{i}}}'}}\n" for i in range(38)),
    "a circle": "a: ${b}\nb: ${a}\n",
    "itself": "a: ${a}\n",
    "many times a text": "a: '${mul:xxxxxxxxxx,1000000000}'\n",
    "many times a list": "a: [1, 2]\nb: '${mul:${a},1000000000}'\n",
    "a large power": "a: '${calc_exp_lr_decay_rate:10,0.0000001}'\n",
    "many long spaces": "a: '${rmspace:" + "x y " * 20_000 + "," + "z" * 50_000 + "}'\n",
    "names in names": "a: b\nb: c\nd: ${${a}}\n",
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
    "deep": "a: " + "[" * 20_000 + "]" * 20_000,
    "deep by lines": "".join(" " * i + "a:\n" for i in range(1000)),
    "ten megabytes": "a: " + "x" * 10_000_000,
    "many keys": "".join(f"k{i}: {i}\n" for i in range(60_000)),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_configuration_bombs_are_refused_soon(tmp_path, text):
    (tmp_path / "bomb.yaml").write_text(text)
    started = time.monotonic()
    with at_most_gb_more(0.3), pytest.raises(ConfigError):
        resolve(load_config(tmp_path / "bomb.yaml").cfg)
    assert time.monotonic() - started < SECONDS


def test_honest_references_still_work(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "a: 2\nb: ${a}\ns: {c: '${b}', d: '${.c}', e: '${mul:${a},3}', f: ['${...a}', '${s.d}']}\n"
    )
    assert resolve(load_config(tmp_path / "a.yaml").cfg).s == {"c": 2, "d": 2, "e": 6, "f": [2, 2]}


WORDS = ["a", "b", "base", "profiles", ": ", "\n", "  ", "- ", "[", "]", "{", "}", "${", "}", ",", "'", '"', "|", ">", "!!",
         "!!python/object/apply:os.system", "&x", "*x", "0x1", "1e999", ".nan", "<<", "?", "%", "@", "\t", "é", "\x00", "mul:"]  # fmt: skip
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run_command(read):
    """Return the sentence that refuses, or an empty string."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


@quick
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join) | st.text(max_size=200))
def test_any_text_is_a_configuration_or_one_sentence(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "\n" not in run_command(lambda: resolve(load_config(path).cfg))


# ---------------------------------------------------------------- transforms.json

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
FRAMES = st.fixed_dictionaries(
    {"camera_angle_x": JSON},
    optional={
        "frames": JSON | st.lists(st.fixed_dictionaries({"file_path": JSON, "transform_matrix": JSON}), max_size=2)
    },
)


@quick
@given(FRAMES | JSON)
def test_any_json_is_views_or_one_sentence(tmp_path, content):
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"transforms\.json"):
        assert not read_transforms(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"frames": [' + '{"a":' * 5000, "NaN", '{"frames": [{}]}', "\x00"])
def test_odd_json_is_one_sentence(tmp_path, text):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(ConfigError, match=r"transforms\.json"):
        read_transforms(tmp_path / "transforms.json")


@pytest.mark.parametrize("angle", ["1e400", "0", "-1", "4", "NaN", '"wide"', "1" + "0" * 400])
def test_an_impossible_field_of_view_is_refused(tmp_path, angle):
    matrix = json.dumps(np.eye(4).tolist())
    frames = f'[{{"file_path": "a", "transform_matrix": {matrix}}}]'
    (tmp_path / "transforms.json").write_text(f'{{"camera_angle_x": {angle}, "frames": {frames}}}')
    with pytest.raises(ConfigError, match=r"transforms\.json"):
        read_transforms(tmp_path / "transforms.json")


# ---------------------------------------------------------------- meshes


def meshes(folder):
    """A small textured box in every format that is read."""
    box = trimesh.creation.box()
    uv = np.random.default_rng(0).random((len(box.vertices), 2))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, image=Image.new("RGB", (8, 8), (200, 80, 10)))
    found = {}
    for suffix in ("glb", "obj", "ply", "stl"):
        box.export(folder / f"box.{suffix}")
        found[suffix] = (folder / f"box.{suffix}").read_bytes()
    found["ascii.ply"] = trimesh.exchange.ply.export_ply(trimesh.creation.box(), encoding="ascii")
    return found


def check_meshes(n, folder):
    rng = random.Random(int(os.environ.get("ZERO123S_SEED", "0")))
    sources = meshes(folder)
    before = sorted(folder.parent.rglob("*"))
    read = refused = 0
    slowest = 0.0
    with at_most_gb_more(1.5):
        for _ in range(n):
            suffix, content = rng.choice(sorted(sources.items()))
            path = folder / f"box.{suffix}"
            path.write_bytes(mutated(content, rng))
            started = time.monotonic()
            try:
                scene = load_mesh(path)
            except MeshError:
                refused += 1
            else:
                assert np.isfinite(scene.vertices).all()
                read += 1
            slowest = max(slowest, time.monotonic() - started)
            path.write_bytes(content)
    print({"read": read, "refused": refused, "slowest_s": round(slowest, 2)})
    assert slowest < SECONDS
    assert sorted(folder.parent.rglob("*")) in (before, sorted([*before, folder / "box.ascii.ply"])), (
        "reading wrote something"
    )
    return read, refused


def test_mutated_meshes_are_read_or_refused(tmp_path):
    (tmp_path / "in").mkdir()
    read, refused = check_meshes(150, tmp_path / "in")
    assert read > 4
    assert refused > 30


@pytest.mark.slow
def test_three_thousand_mutated_meshes(tmp_path):
    (tmp_path / "in").mkdir()
    check_meshes(3000, tmp_path / "in")


def test_a_texture_bomb_in_a_mesh_is_refused(tmp_path):
    """A glb of 400 kB with an image of 64 million pixels and more."""
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, format="PNG")
    mesh = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.open(io.BytesIO(buffer.getvalue())))
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(mesh.vertices), 2)), material=material)
    mesh.export(tmp_path / "bomb.glb")
    with pytest.raises(MeshError, match="9000x9000 pixels"):
        load_mesh(tmp_path / "bomb.glb")
