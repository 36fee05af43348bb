"""The parts of check.py, each of which returns its results. Figures are of this machine's card, named by `backends`."""

import contextlib
import csv
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from recipes import run_all

from zero123s.api import Progress, image_to_mesh
from zero123s.commands.launch import main as launch
from zero123s.diffusion.model import Zero123Model, build_model
from zero123s.diffusion.model_config import ModelConfig
from zero123s.diffusion.speed import speed_up
from zero123s.errors import MissingDependencyError
from zero123s.ops import backends as ops_backends
from zero123s.ops.compositing import composite
from zero123s.ops.encoded_networks import can_evaluate_together, evaluate_together
from zero123s.ops.hash_grid import HashGrid, encode, position_gradient
from zero123s.ops.memory import is_out_of_memory
from zero123s.ops.networks import MLP
from zero123s.ops.ray_marching import march, pack_info
from zero123s.run.devices import set_tf32

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = str(REPOSITORY / "load" / "images" / "hamburger_rgba.png")
CONFIG = "configs/stable-zero123.yaml"
Result = dict[str, Any]


class Check:
    """Where, on what and how large the parts run."""

    def __init__(self, out: Path, device: str, small: bool) -> None:
        self.runs, self.device, self.small = out / "runs", device, small

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to wait for."""
        return self.device == "cuda"

    def wait(self) -> None:
        """Wait until the GPU has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def peak_gb(self) -> float:
        """Return the GPU's peak memory since the last call, 0 without a GPU."""
        if not self.on_gpu:
            return 0.0
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return round(peak, 2)

    def milliseconds(self, work: Callable[[], Any], repeats: int = 5) -> float:
        """Return the median time of a call, after two to warm up."""
        times = []
        for i in range(repeats + 2):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times += [time.perf_counter() - started] if i >= 2 else []
        return round(1000 * statistics.median(times), 3)

    def words(self, tag: str, steps: int) -> list[str]:
        """Return the overrides of every run of the main recipe."""
        accelerator = "gpu" if self.on_gpu else "cpu"
        words = [f"tag={tag}", f"trainer.max_steps={steps}", f"trainer.accelerator={accelerator}",
                 "use_timestamp=false", f"exp_root_dir={self.runs}", "trainer.enable_progress_bar=false",
                 "data.random_camera.n_test_views=4", "data.random_camera.n_val_views=2",
                 "system.exporter.isosurface_resolution=128"]  # fmt: skip
        if self.small:
            words += ["system.geometry.pos_encoding_config.log2_hashmap_size=12", *self.square(24)]
            words += ["system.renderer.num_samples_per_ray=64", "system.exporter.isosurface_resolution=32"]
        return words

    def square(self, size: int) -> list[str]:
        """Return the words for one stage of small images."""
        camera = "data.random_camera."
        sizes = [f"{where}{side}={size}" for where in ("data.", camera) for side in ("height", "width")]
        sizes += [f"{camera}eval_height={size}", f"{camera}eval_width={size}", f"{camera}batch_size=2"]
        return [*sizes, "data.resolution_milestones=[]", f"{camera}resolution_milestones=[]"]


def backends(check: Check) -> Result:
    """Return the card, the versions and what each operation runs on."""
    found: Result = {"torch": torch.__version__, "device": check.device}
    if check.on_gpu:
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "gb": round(card.total_memory / 1e9, 1), "capability": [card.major, card.minor]}
    found["auto"] = {op: ops_backends.resolve(op, "auto", check.device) for op in ops_backends.IMPLEMENTED}
    return found


def vendors(check: Check) -> Result:
    """Return which vendors' libraries work; nerfacc is compiled here at its first import, which takes minutes."""
    return {vendor: _refusal(op, vendor, check) or "works" for op, vendor in ops_backends.VENDORS.items()}


def _refusal(op: str, backend: str, check: Check) -> str | None:
    try:
        ops_backends.resolve(op, backend, check.device)
    except MissingDependencyError as error:
        return str(error)
    return None


def tests(check: Check) -> Result:
    """Run the tests that are marked gpu."""
    processes = str(min(4, os.cpu_count() or 1))  # most of the time is the compiler's, on one core each
    words = ["-m", "gpu", "-n", processes, "-v", "-rs", "--durations=10", "--no-header", "-p", "no:cacheprovider"]
    # Into the part's log as it comes: where the part ends at its limit, the log shows what has passed.
    done = subprocess.run([sys.executable, "-u", "-m", "pytest", *words, "tests/ops"], cwd=REPOSITORY, check=False)
    none_selected = 5
    return {} if done.returncode in (0, none_selected) else {"failed": f"exit code {done.returncode}"}


def recipe(check: Check) -> Result:
    """Train the main recipe through its three stages; return time and memory of a step by stage, scores and faces."""
    third = 2 if check.small else 20
    times: list[float] = []
    memory: list[float] = []

    def record_stage(progress: Progress) -> None:
        check.wait()
        times.append(time.perf_counter())
        print(f"step {progress.step} after {times[-1] - times[0]:.1f} s", flush=True)
        if progress.step % third == 0:
            memory.append(check.peak_gb())

    stages = f"[{third},{2 * third}]"
    words = [*check.words("recipe", 3 * third), f"data.resolution_milestones={stages}",
             f"data.random_camera.resolution_milestones={stages}", f"trainer.val_check_interval={third}",
             f"checkpoint.every_n_train_steps={third}"]  # fmt: skip
    if check.small:
        words += check.square(24)  # instead of the stages
    record = image_to_mesh(IMAGE, CONFIG, words, record_stage, profile="none").record
    steps = [1000 * (b - a) for a, b in pairwise(times)]
    # The first steps of a stage compile kernels and allocate; a preview stands at its end.
    inside = [steps[i * third + third // 4 : (i + 1) * third - 1] for i in range(3)]
    table = {f"stage {i}": {"median_ms": round(statistics.median(s), 1)} for i, s in enumerate(inside) if s}
    return {"steps": table, "peak_gb": memory, "stage_seconds": record["stage_seconds"], "metrics": record["metrics"],
            "faces": record["export"].get("faces_before_simplification")}  # fmt: skip


def resume(check: Check) -> Result:
    """Go on for two steps from the checkpoint of `recipe`."""
    run = check.runs / "stable-zero123" / "recipe"
    steps = 8 if check.small else 62
    words = [*check.words("recipe", steps), f"resume={run}", "trainer.val_check_interval=0"]
    return {"step": image_to_mesh(IMAGE, CONFIG, words, profile="none").record["step"]}


def recipes(check: Check) -> Result:
    """Run every other recipe, the second stages and the modes without training for a few steps; see recipes.py."""
    accelerator = ["--gpu", "0"] if check.on_gpu else ["trainer.accelerator=cpu"]
    found = run_all(check.runs, accelerator, limit=90 if check.on_gpu else 900)
    failed = [name for name, result in found.items() if result]
    return {"recipes": found, **({"failed": f"{len(failed)} of {len(found)}: {', '.join(failed)}"} if failed else {})}


def parity(check: Check) -> Result:
    """Return how far the losses of three small steps in float32 are from the CPU's, as shares of each."""
    rows = []
    for tag, device in (("parity-on-cpu", "cpu"), ("parity-here", check.device)):
        words = [*check.words(tag, 3), *check.square(32), "system.guidance.dtype=fp32",
                 "trainer.tf32=false", "trainer.val_check_interval=0", "export_after_train=false",
                 f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"]  # fmt: skip
        image_to_mesh(IMAGE, CONFIG, words, profile="none")
        folder = check.runs / "stable-zero123" / tag
        lines = csv.DictReader(next(folder.glob("csv_logs/*/metrics.csv")).open())
        rows.append([{k: float(v) for k, v in line.items() if k.startswith("loss/") and v} for line in lines])
    pairs = zip(*rows, strict=True)
    return {f"step {i}": {k: abs(a[k] - b[k]) / max(abs(a[k]), 1e-6) for k in a} for i, (a, b) in enumerate(pairs)}


def field(check: Check) -> Result:
    """Return the time of each of the field's operations at a million points, forward and backward, by backend."""
    n, device, grid = 2000 if check.small else 1 << 20, check.device, HashGrid()
    set_tf32(True, torch.device(device))  # as in a run
    g = torch.Generator().manual_seed(0)
    x, grad = torch.rand(n, 3, generator=g).to(device), torch.randn(n, 32, generator=g).to(device)
    table = (1e-4 * torch.randn(grid.n_rows, 2, generator=g)).to(device).requires_grad_()
    rays_d = torch.nn.functional.normalize(torch.randn(n // 16, 3, generator=g), dim=-1).to(device)
    occupied = (torch.rand(32, 32, 32, generator=g) < 0.1).to(device)
    box = torch.tensor([-1.0, -1, -1, 1, 1, 1], device=device)
    info = pack_info(torch.arange(n // 16, device=device).repeat_interleave(16), n // 16)
    sigma = torch.rand(n, generator=g).to(device).requires_grad_()
    rgb, t = torch.rand(n, 3, generator=g).to(device).requires_grad_(), torch.arange(n, device=device) % 16 * 0.1
    network = MLP([32, 64, 64, 1], "ReLU", "none").to(device)
    features = grad.t().contiguous().t().requires_grad_()  # column by column, as the encoding gives them
    direct = features.detach()
    work: dict[str, tuple[str, Callable[[str], Any]]] = {
        "encode": ("hash_grid", lambda b: encode(x, table, grid, b).backward(grad)),
        "normals": ("hash_grid", lambda b: position_gradient(x, table, grad, grid, b).square().sum().backward()),
        "march": ("ray_marching", lambda b: march(-2 * rays_d, rays_d, box, occupied, 0.01, backend=b)),
        "composite": ("compositing", lambda b: composite(sigma, t, t + 0.1, info, rgb, 0.0, b)[3].sum().backward()),
        "network": ("mlp", lambda b: _back(_run(network, features, b), [features, *network.weights])),
        "network, half precision": (
            "mlp",
            lambda b: _back(_in_half(network, features, b), [features, *network.weights]),
        ),
        "network, forward alone": ("mlp", lambda b: _without_gradients(network, direct, b)),
        "network, by input": ("mlp", lambda b: _back(_run(network, direct, b, by_input=True), network.weights)),
    }
    found: Result = {"points": n, "float32 products": torch.get_float32_matmul_precision()}
    for name, (op, function) in work.items():
        usable = [b for b in ops_backends.IMPLEMENTED[op] if _refusal(op, b, check) is None]
        for backend in usable:
            found[f"{name}, {backend}"] = _timed(check, f"{name}, {backend}", lambda f=function, b=backend: f(b))
    network.backend = "auto"
    found["encode + normals, separate"] = _timed(
        check, "encode + normals, separate", lambda: _train_separately(x, table, grid, network)
    )
    if can_evaluate_together(x, table, network.weights, gradient=True):
        found["encode + normals, joint"] = _timed(
            check, "encode + normals, joint", lambda: _train_jointly(x, table, grid, network)
        )
    return found


def _timed(check: Check, name: str, work: Callable[[], Any]) -> Result:
    """Return the time and memory of a call, or how it failed."""
    check.peak_gb()
    try:
        found: Result = {"ms": check.milliseconds(work), "peak_gb": check.peak_gb()}
    except Exception as error:  # what a vendor's library or a compiler raises; the others go on
        found = {"failed": repr(error)[:500]}
    print(name, found, flush=True)
    return found


def _train_separately(x: torch.Tensor, table: torch.Tensor, grid: HashGrid, network: MLP) -> None:
    """Evaluate a network on the encoding and its gradient by position, forward and backward, one after the other."""
    buffer = _empty_gradient(table)
    encoded = encode(x, table, grid, grad_buffer=lambda: buffer)
    by_encoding = network.input_gradient(encoded)
    slope = position_gradient(x, table, by_encoding, grid, grad_buffer=lambda: buffer)
    (network(encoded).sum() + slope.square().sum()).backward()


def _train_jointly(x: torch.Tensor, table: torch.Tensor, grid: HashGrid, network: MLP) -> None:
    """Do the same as one function of autograd, with one table gradient."""
    buffer = _empty_gradient(table)
    value, _, slope = evaluate_together(x, table, grid, network.weights, (), True, lambda: buffer)
    assert slope is not None
    (value.sum() + slope.square().sum()).backward()


def _empty_gradient(table: torch.Tensor) -> torch.Tensor:
    """Return the table's gradient set to zero, to be added to, as in a run."""
    table.grad = torch.zeros_like(table) if table.grad is None else table.grad.zero_()
    return table.grad


def _run(network: MLP, x: torch.Tensor, backend: str, by_input: bool = False) -> torch.Tensor:
    """Return the network's output, or its gradient by the input, of one backend."""
    network.backend = backend
    return network.input_gradient(x) if by_input else network(x)


def _in_half(network: MLP, x: torch.Tensor, backend: str) -> torch.Tensor:
    with torch.autocast(x.device.type, torch.float16):
        return _run(network, x, backend)


def _back(y: torch.Tensor, leaves: list[torch.Tensor]) -> Any:
    """Return the gradients, without adding them to those of earlier calls."""
    return torch.autograd.grad(y, leaves, torch.ones_like(y))


def _without_gradients(network: MLP, x: torch.Tensor, backend: str) -> torch.Tensor:
    with torch.no_grad():
        return _run(network, x, backend)


def full_size(check: Check) -> Result:
    """Return the time of the full-size network's parts, random weights in half precision, as the guidance calls them."""
    if check.small:
        return {"left out": "it takes minutes on a CPU"}
    found: Result = {}
    plain_norms = patch("zero123s.ops.group_norm.agreement.kernels_agree", lambda *_: False)
    for variant in ("", ", norms in plain torch", ", channels last"):
        with torch.device(check.device):
            model = build_model(ModelConfig()).half().eval().requires_grad_(False)
        speed_up(model, True, channels_last=variant == ", channels last")
        for batch in (12, 8, 4):
            key = f"batch {batch}{variant}"
            try:
                with plain_norms if "norms" in variant else contextlib.nullcontext():
                    found[key] = _time_networks(check, model, batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                found[key] = {"out of memory": True}
            found[key]["peak_gb"] = check.peak_gb()
        del model
        torch.cuda.empty_cache()
    return found


def _time_networks(check: Check, model: Zero123Model, batch: int) -> Result:
    """Return the time of the denoiser with guidance, and of the encoder and its gradient, at one batch size."""
    device = check.device
    z, t = torch.randn(batch, 4, 32, 32, device=device), torch.full((batch,), 500, device=device)
    context = torch.randn(batch, 1, model.config.unet.context_dim, device=device)
    rgb = torch.rand(batch, 3, 256, 256, device=device, requires_grad=True)

    def denoise() -> torch.Tensor:
        with torch.no_grad():
            return model.guided_noise(z, t, context, z, 3.0)

    def encode_and_back() -> Any:
        return torch.autograd.grad(model.encode_image(rgb), rgb, 0.01 * z)

    return {"denoise_ms": check.milliseconds(denoise, 3), "encode_and_back_ms": check.milliseconds(encode_and_back, 3)}


def finetune(check: Check) -> Result:
    """Fine-tune the bundled model for a few steps on rendered objects, with a validation."""
    if importlib.util.find_spec("embreex") is None:
        return {"left out": "rendering needs embreex"}
    from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset

    folder = check.runs / "rendered"
    settings = RenderSettings(views=4, size=64, supersample=1, shard_size=8)
    render_dataset(procedural_objects(0, 12), folder, settings)
    words = [f"data.root={folder}", "data.held_out=4", "data.batch_size=4", "trainer.max_steps=3", "use_timestamp=false",
             "system.checkpoint=load/zero123/small_zero123.safetensors", "system.n_validation=4", "system.n_samples=2",
             "system.sample_steps=4", "trainer.val_check_interval=2", f"exp_root_dir={check.runs}",
             "trainer.enable_progress_bar=false", f"trainer.accelerator={'gpu' if check.on_gpu else 'cpu'}"]  # fmt: skip
    code = launch(["--config", "configs/train-zero123.yaml", "--train", *words])
    return {} if code == 0 else {"failed": f"exit code {code}"}


def mixed(check: Check) -> Result:
    """Train three small steps in mixed precision, on a GPU in half and on a CPU in bfloat16."""
    precision = "16-mixed" if check.on_gpu else "bf16-mixed"
    words = [
        *check.words("mixed", 3),
        *check.square(32),
        f"trainer.precision={precision}",
        "trainer.val_check_interval=2",
    ]
    return {"precision": precision, "metrics": image_to_mesh(IMAGE, CONFIG, words, profile="none").metrics}


def profile(check: Check) -> Result:
    """Record where the time of five steps goes; the table stands in the part's log."""
    words = [*check.words("profile", 10), "trainer.val_check_interval=0", "export_after_train=false"]
    arguments = ["--config", CONFIG, "--train", "--profile", "none", "--profile-run", f"data.image_path={IMAGE}"]
    code = launch([*arguments, *words])
    return {} if code == 0 else {"failed": f"exit code {code}"}


PARTS: dict[str, Callable[[Check], Result]] = {
    part.__name__: part
    for part in (backends, tests, recipe, resume, recipes, parity, vendors, field, full_size, finetune, mixed, profile)
}
