"""Full-size Zero123 on this machine: memory to load it, seconds and memory of an SDS step against the plain loop.

Writes checkpoints of random weights in the original layout (8.6 GB fp32 with averages, 2.6 GB fp16 without) into a
temporary folder, measures each figure in a process of its own, and deletes them. Seconds are process CPU seconds on
one thread, because a machine is seldom idle.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/full_size.py
"""

import argparse
import io
import json
import pickle
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zero123s.diffusion.checkpoint import layout
from zero123s.diffusion.checkpoint.load_zero123 import COMPONENTS, load_zero123
from zero123s.diffusion.checkpoint.weights_file import open_weights
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.model_config import ModelConfig
from zero123s.guidance.sds import sds_loss, weighted_gradient
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.ops.cameras import orbit_cameras
from zero123s.structures import ReferenceView

SCALE, TIMESTEP = 3.0, 500
MAX_LOAD_RATIO, MAX_SDS_GB, MIN_SPEEDUP = 1.15, 4.5, 1.8
FP32_TOLERANCE, BF16_TOLERANCE = 1e-3, 5e-2  # of the image gradient, relative in the Euclidean norm


# ---- the checkpoint ----


def original_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every key and shape of a released file: networks, averages, schedule, and CLIP's unused text side."""
    with torch.device("meta"):
        model = Zero123Model(config)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(layout.SCHEDULE_BUFFERS, (config.timesteps,))
    for component in COMPONENTS[:-1]:
        own = {name: tuple(tensor.shape) for name, tensor in getattr(model, component).state_dict().items()}
        for name, source in layout.weight_sources(config, component, own).items():
            shapes[source.key] = source.original_shape(own[name])
    text = "cond_stage_model.model."
    shapes |= {text + "positional_embedding": (77, 768), text + "text_projection": (768, 768), text + "logit_scale": ()}
    shapes |= {
        text + "token_embedding.weight": (49408, 768),
        text + "ln_final.weight": (768,),
        text + "ln_final.bias": (768,),
    }
    averages = {layout.ema_name(key): shape for key, shape in shapes.items() if key.startswith(layout.UNET)}
    return shapes | averages | {"model_ema.decay": (), "model_ema.num_updates": ()}


def write_checkpoint(path: Path, dtype: torch.dtype, averages: bool, config: ModelConfig | None = None) -> None:
    """Write random weights that keep activations of order one, record by record: never the whole file in memory."""
    shapes = {
        k: s for k, s in original_shapes(config or ModelConfig()).items() if averages or not k.startswith("model_ema.")
    }
    stored = {key: StoredShape(str(number), shape, dtype) for number, (key, shape) in enumerate(shapes.items())}
    index = io.BytesIO()
    IndexPickler(index, 2).dump({"state_dict": stored})
    pool = np.random.default_rng(0).uniform(-(3**0.5), 3**0.5, 1 << 24).astype(np.float32)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", index.getvalue())
        for key, tensor in stored.items():
            info = zipfile.ZipInfo(f"archive/data/{tensor.record}")
            # As PyTorch does: an extra field that starts the record at a multiple of 64 bytes.
            padding = -(archive.fp.tell() + 34 + len(info.filename)) % 64
            info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
            with archive.open(info, "w") as record:
                for chunk in random_values(key, shapes[key], pool):
                    record.write(torch.from_numpy(chunk).to(dtype).numpy().tobytes())
        archive.writestr("archive/version", "3\n")


class StoredShape:
    """Pickles as a tensor whose bytes lie in a record of the archive."""

    def __init__(self, record: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.record, self.shape, self.dtype = record, shape, dtype

    def __reduce__(self) -> tuple[Any, ...]:
        stride = tuple(int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape)))
        return torch._utils._rebuild_tensor_v2, (Bytes(self), 0, self.shape, stride, False, OrderedDict())


class Bytes:
    """The storage of a `StoredShape`."""

    def __init__(self, tensor: StoredShape) -> None:
        self.tensor = tensor


class IndexPickler(pickle.Pickler):
    """Writes storages as torch.save does: by the record that holds them."""

    def persistent_id(self, obj: Any) -> Any:
        """Return what stands for a storage in the pickle, None for all else."""
        if not isinstance(obj, Bytes):
            return None
        kind = {torch.float32: torch.FloatStorage, torch.float16: torch.HalfStorage}[obj.tensor.dtype]
        return "storage", kind, obj.tensor.record, "cpu", int(np.prod(obj.tensor.shape))


def random_values(key: str, shape: tuple[int, ...], pool: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a tensor's values in pieces: 1 and 0 for norms and biases, else uniform of variance 1 / fan-in."""
    left = int(np.prod(shape))
    std = (left / shape[0]) ** -0.5 if len(shape) > 1 else 0.0
    if key.endswith("proj") or key.endswith("embedding"):
        std = 0.03
    start = sum(key.encode()) * 4099 % len(pool)
    while left:
        piece = pool[start : start + left]
        yield piece * std + float(len(shape) == 1 and key.endswith("weight")) if std or len(shape) < 2 else piece
        left -= len(piece)
        start = 0


# ---- what is measured, each in its own process ----


def peak_gb() -> float:
    """Highest resident memory of this process so far."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def bytes_of(model: torch.nn.Module) -> int:
    """Bytes of the weights that a model keeps."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def measure_load(path: Path, dtype: str) -> dict[str, Any]:
    """Load and compare the peak with the weights that were kept."""
    imports = peak_gb()
    started = time.process_time()
    model = load_zero123(path, family="stable-zero123", dtype=dtype, decoder=False)
    seconds, kept = time.process_time() - started, bytes_of(model) / 1e9
    peak = peak_gb()
    return {
        "file_gb": path.stat().st_size / 1e9,
        "kept_gb": kept,
        "imports_gb": imports,
        "peak_gb": peak,
        "ratio": (peak - imports) / kept,
        "ratio_with_imports": peak / kept,
        "cpu_seconds": seconds,
    }


def make_guidance(path: Path, dtype: str) -> tuple[StableZero123Guidance, ReferenceView]:
    """Return the project's guidance on a random image."""
    generator = torch.Generator().manual_seed(0)
    reference_rgb = torch.rand(1, 256, 256, 3, generator=generator)
    reference = ReferenceView(orbit_cameras(5.0, 0.0), reference_rgb, torch.ones(1, 256, 256, 1))
    cfg = StableZero123Guidance.Config(
        checkpoint=str(path),
        dtype=dtype,
        family="stable-zero123",
        guidance_scale=SCALE,
        min_step_percent=TIMESTEP / 1000,
        max_step_percent=TIMESTEP / 1000,
    )
    return StableZero123Guidance(cfg, reference), reference


def rendered() -> torch.Tensor:
    """The rendered view, smooth as renderings are."""
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    large = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic").clamp(0, 1)
    return large.permute(0, 2, 3, 1).contiguous().requires_grad_()


CAMERA = {"elevation_deg": 20.0, "azimuth_deg": 60.0, "distance": 3.8}


def guided_step(guidance: StableZero123Guidance) -> torch.Tensor:
    """One SDS step as the project does it; returns the gradient on the image."""
    image = rendered()
    cameras = orbit_cameras(CAMERA["elevation_deg"], CAMERA["azimuth_deg"], CAMERA["distance"])
    out = guidance(image, cameras, 0, torch.Generator().manual_seed(2))
    return torch.autograd.grad(out.loss, image)[0]


def plain_step(model: Zero123Model, reference: ReferenceView) -> torch.Tensor:
    """The same step as a plain loop over diffusers modules: fp32, two UNet calls, conditioning computed every time."""
    image, generator = rendered(), torch.Generator().manual_seed(2)
    shape = (1, 4, 32, 32)
    posterior_noise = torch.randn(shape, generator=generator)
    t = torch.randint(TIMESTEP, TIMESTEP + 1, (1,), generator=generator)
    noise = torch.randn(shape, generator=generator)
    posterior = model.vae.encode(image.permute(0, 3, 1, 2) * 2 - 1).latent_dist
    latents = (posterior.mean + posterior.std * posterior_noise) * model.scale_factor
    with torch.no_grad():
        reference_rgb = reference.rgb.permute(0, 3, 1, 2)
        pose = model.pose_vector(*CAMERA.values(), 5.0, 0.0, 3.8)
        context = model.project(model.embed_image(reference_rgb), pose)
        concat = model.vae.encode(reference_rgb * 2 - 1).latent_dist.mean
        noised = model.add_noise(latents, noise, t)
        cond = model.unet(torch.cat([noised, concat], 1), t, context).sample
        uncond = model.unet(torch.cat([noised, concat * 0], 1), t, context * 0).sample
        noise_pred = uncond + SCALE * (cond - uncond)
        grad = weighted_gradient(noise_pred - noise, model.alphas_cumprod[t])
    return torch.autograd.grad(sds_loss(latents, grad), image)[0]


def timed(step: Callable[[], torch.Tensor], repeats: int) -> tuple[float, torch.Tensor]:
    """Return the least CPU seconds of a few runs, and the last result."""
    seconds, result = [], torch.empty(0)
    for _ in range(repeats):
        started = time.process_time()
        result = step()
        seconds.append(time.process_time() - started)
    return min(seconds), result


def measure_memory(path: Path, dtype: str) -> dict[str, Any]:
    """Peak memory of a process that loads, conditions and takes an SDS step; then one novel view."""
    guidance, reference = make_guidance(path, dtype)
    guided_step(guidance)
    peak = peak_gb()
    model = load_zero123(path, family="stable-zero123", dtype=dtype)
    view = model.sample(reference.rgb.permute(0, 3, 1, 2), 20.0, 60.0, cond_elevation_deg=5.0, steps=1)
    return {"peak_gb": peak, "view_is_finite": bool(view.isfinite().all()), "view_shape": list(view.shape)}


def measure_speed(path: Path, repeats: int) -> dict[str, Any]:
    """The plain loop, then the project's guidance in fp32 and bf16, in this one process."""
    guidance, reference = make_guidance(path, "fp32")
    with torch.device("meta"):
        plain = Zero123Model(ModelConfig(), "stable-zero123")
    plain.vae.decoder = plain.vae.post_quant_conv = None
    plain.load_state_dict(guidance.model.state_dict(), assign=True)  # the very same tensors in plain modules
    plain.alphas_cumprod = guidance.model.alphas_cumprod
    plain.image_encoder.vision_model.embeddings.position_ids = torch.arange(257)[None]
    plain.requires_grad_(False).eval()
    found: dict[str, Any] = {}
    guided_step(guidance)  # compiles the numba kernels
    found["plain"], expected = timed(lambda: plain_step(plain, reference), repeats)
    found["fp32"], grad = timed(lambda: guided_step(guidance), repeats)
    found["fp32_off"] = float((grad - expected).norm() / expected.norm())
    del guidance, plain
    guidance, _ = make_guidance(path, "bf16")
    found["bf16"], grad = timed(lambda: guided_step(guidance), repeats)
    found["bf16_off"] = float((grad - expected).norm() / expected.norm())
    found["bf16_cosine"] = float((grad * expected).sum() / grad.norm() / expected.norm())
    return found


# ---- the whole ----


def in_own_process(*arguments: str) -> dict[str, Any]:
    """Run one measurement in a fresh Python and return what it prints."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Write, measure, print the figures and whether they keep their bounds, delete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=("load", "memory", "speed"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="fp32", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each step; the fastest counts")
    parser.add_argument("--folder", type=Path, help="where 11 GB fit; default: the system's temporary folder")
    arguments = parser.parse_args()
    if arguments.measure == "load":
        print(json.dumps(measure_load(arguments.file, arguments.dtype)))
    elif arguments.measure == "memory":
        print(json.dumps(measure_memory(arguments.file, arguments.dtype)))
    elif arguments.measure == "speed":
        print(json.dumps(measure_speed(arguments.file, arguments.repeats)))
    else:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measure_all(Path(folder), arguments.repeats)


def measure_all(folder: Path, repeats: int) -> None:
    """Print every figure, one a line."""
    whole, half = folder / "full.ckpt", folder / "half.ckpt"
    write_checkpoint(whole, torch.float32, averages=True)
    n_keys = len(open_weights(whole).tensors)
    print(f"wrote {whole.stat().st_size / 1e9:.3f} GB, {n_keys} tensors", flush=True)
    loads = in_own_process("--measure", "load", "--file", str(whole), "--dtype", "fp32")
    report_load("fp32 with averages", loads)
    whole.unlink()
    write_checkpoint(half, torch.float16, averages=False)
    report_load("fp16", in_own_process("--measure", "load", "--file", str(half), "--dtype", "fp16"))
    memory = in_own_process("--measure", "memory", "--file", str(half), "--dtype", "bf16")
    print(f"SDS step in bf16, batch 1: peak {memory['peak_gb']:.2f} GB {verdict(memory['peak_gb'] <= MAX_SDS_GB)}")
    print(f"novel view of shape {memory['view_shape']}, finite: {memory['view_is_finite']}", flush=True)
    speed = in_own_process("--measure", "speed", "--file", str(half), "--repeats", str(repeats))
    print(f"plain diffusers loop, fp32: {speed['plain']:.1f} CPU seconds per SDS step")
    for dtype, tolerance in (("fp32", FP32_TOLERANCE), ("bf16", BF16_TOLERANCE)):
        ratio, off = speed["plain"] / speed[dtype], speed[f"{dtype}_off"]
        print(
            f"zero123s, {dtype}: {speed[dtype]:.1f} s, {ratio:.2f} x as fast {verdict(ratio >= MIN_SPEEDUP)}", end="; "
        )
        print(f"gradient off by {off:.1e} {verdict(off <= tolerance)}")
    print(f"cosine of the bf16 gradient: {speed['bf16_cosine']:.5f}")


def report_load(name: str, found: dict[str, Any]) -> None:
    """Print one loading."""
    print(
        f"load {name}: file {found['file_gb']:.2f} GB, kept {found['kept_gb']:.2f} GB, peak {found['peak_gb']:.2f} GB "
        f"({found['imports_gb']:.2f} GB of it imports): {found['ratio']:.3f} x the kept weights above imports "
        f"{verdict(found['ratio'] <= MAX_LOAD_RATIO)}, {found['ratio_with_imports']:.3f} x with them; "
        f"{found['cpu_seconds']:.1f} CPU seconds",
        flush=True,
    )


def verdict(is_kept: bool) -> str:
    """Say whether a bound is kept."""
    return "(kept)" if is_kept else "(NOT KEPT)"


if __name__ == "__main__":
    main()
