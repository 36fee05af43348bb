"""Coverage-guided fuzzing of this project's own parsers, with atheris (Linux, x86_64): no part of the test suite.

pip install atheris
python tests/hostile/fuzz.py yaml -max_total_time=600       # or transforms, mesh, picture, weights, checkpoint

Takes libFuzzer's options. A crash is whatever is neither an answer nor a UserError; the input that made it is written
to crash-* in the present folder, and the same command with that file as argument repeats it.
"""

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np
import safetensors.torch
import torch
import trimesh
from PIL import Image, ImageCms

with atheris.instrument_imports(include=["zero123s"]):
    from zero123s.callbacks.checkpoints import AtomicCheckpointIO
    from zero123s.config.load import load_config, resolve
    from zero123s.data.multi_view import read_transforms
    from zero123s.diffusion.checkpoint.weights_file import open_weights
    from zero123s.errors import UserError
    from zero123s.images.io import FORMATS, read_image
    from zero123s.mesh.readers import load_mesh

SUFFIXES = ("glb", "gltf", "obj", "ply", "stl")
REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(tempfile.mkdtemp())


def _file(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def _mesh(data: bytes) -> object:
    # The first byte chooses the format, so that one corpus serves all.
    return load_mesh(_file(f"a.{SUFFIXES[data[0] % len(SUFFIXES)]}", data[1:])) if data else None


def _weights(data: bytes) -> object:
    return open_weights(_file(f"a.{'ckpt' if data[:1] == b'P' else 'safetensors'}", data))


def _picture(data: bytes) -> None:
    rgba = read_image(_file("a.png", data)).rgba  # the content tells the format, not the name
    assert rgba.dtype == np.float32
    assert rgba.ndim == 3
    assert rgba.shape[2] == 4
    assert 0 <= rgba.min() <= rgba.max() <= 1, "NaN fails as well"


TARGETS: dict[str, Callable[[bytes], object]] = {
    "yaml": lambda data: resolve(load_config(_file("a.yaml", data)).cfg),
    "transforms": lambda data: read_transforms(_file("transforms.json", data)),
    "mesh": _mesh,
    "picture": _picture,
    "weights": _weights,
    "checkpoint": lambda data: AtomicCheckpointIO().load_checkpoint(_file("last.ckpt", data)),
}


def seeds(name: str) -> list[bytes]:
    """Return small honest files for the fuzzer to begin with."""
    if name == "yaml":
        return [p.read_bytes() for p in (REPOSITORY / "configs").glob("*.yaml")]
    if name == "transforms":
        return [(REPOSITORY / "load/images/multi_view_sample/transforms.json").read_bytes()]
    buffer = io.BytesIO()
    if name == "picture":
        return _pictures()
    if name == "checkpoint":
        torch.save({"state_dict": {"w": torch.ones(3)}, "global_step": 1}, buffer)
    elif name == "weights":
        torch.save({"state_dict": {"w": torch.ones(3)}}, buffer)
        return [buffer.getvalue(), safetensors.torch.save({"w": torch.ones(3)})]
    else:
        box = trimesh.creation.box()
        exported = {suffix: box.export(file_type=suffix) for suffix in ("glb", "obj", "ply", "stl")}
        content = {k: v.encode() if isinstance(v, str) else v for k, v in exported.items()}
        return [bytes([SUFFIXES.index(k)]) + v for k, v in content.items()]
    return [buffer.getvalue()]


def _pictures() -> list[bytes]:
    """Return a picture in every format that is read, and some of the kinds that are converted."""
    exif, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif[0x0112] = 6  # turned
    kinds = [(fmt, "RGB", {}) for fmt in FORMATS]
    kinds += [("PNG", mode, {}) for mode in ("RGBA", "LA", "L", "I;16", "P", "1")]
    kinds += [("JPEG", "CMYK", {}), ("TIFF", "CMYK", {}), ("JPEG", "RGB", {"exif": exif, "icc_profile": profile})]
    found = []
    for fmt, mode, extras in kinds:
        buffer = io.BytesIO()
        Image.new("RGB" if mode == "CMYK" else "L" if mode == "I;16" else "RGBA", (12, 10), 200).convert(mode).save(
            buffer, format=fmt, **extras
        )
        found.append(buffer.getvalue())
    return found


def main() -> None:
    """Fuzz the target that the first argument names."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: python tests/hostile/fuzz.py {{{','.join(TARGETS)}}} [libFuzzer's options]")
    target = TARGETS[name]

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except UserError:
            return

    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for i, content in enumerate(seeds(name)):
        (corpus / f"seed{i}").write_bytes(content)
    if not [word for word in sys.argv[1:] if not word.startswith("-")]:
        sys.argv.append(str(corpus))
    if not any(word.startswith("-rss_limit_mb") for word in sys.argv):
        sys.argv.append("-rss_limit_mb=4096")  # program and libraries, and the largest picture that is read
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
