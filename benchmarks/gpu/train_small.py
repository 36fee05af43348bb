"""Train the bundled small Zero123 further on one GPU, for a stated number of seconds, in one command.

    python benchmarks/gpu/train_small.py --data real.pack.safetensors:0.4 --data generated:0.6 --val val.pack.safetensors \\
        --seconds 300 --out out --state state.pt
    python benchmarks/gpu/train_small.py join out                  # out/zero123.part0, .part1 -> out/zero123.safetensors

DATA is a file of pack_renders.py or a folder of `zero123s render`, with its share of the draws after a colon; a folder may still
be filled, or even be made, by a renderer in the background: new shards are taken in every 20 seconds. Everything is kept on the device as 8-bit
images; batches are drawn, recoloured, mirrored and encoded there. Some 20 steps in, the rate determines how many steps the time
allows: the learning rate rises over 30 steps, stays, and falls to zero over the last third of them.

Every minute and at the end it writes to --out, in files of at most 16 MB: the averaged weights (zero123.part0, .part1, parts.json),
a line of scores in log.jsonl, and sheet.png (rows: input, truth, lift, one step, sampled; sheet_start.png is that of the weights at
the start). --state holds all of the training, about 150 MB: `--resume` goes on from it exactly, on any device, with the same
schedule. From the parts alone training goes on too, as `--weights out/zero123.safetensors`, but without the optimiser's momentum:
a warm restart. If memory runs out at the first step, the number of objects is halved, and the log says so.
"""

import time

START = time.perf_counter()  # the time for loading counts too

import argparse  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout, where it is not installed

import torch  # noqa: E402
from device_views import DeviceViews, Source  # noqa: E402
from small_losses import ColourError, draw_noising, losses, validate  # noqa: E402

from zero123s.diffusion.checkpoint.load_zero123 import load_zero123, save_zero123  # noqa: E402
from zero123s.diffusion.training import WeightAverage, parameter_groups  # noqa: E402
from zero123s.errors import UserError  # noqa: E402
from zero123s.ops.memory import free_cached_memory, is_out_of_memory  # noqa: E402
from zero123s.runtime.files import replacing  # noqa: E402
from zero123s.system.muon import MuonAdamW  # noqa: E402

WARM_UP = 30
"""Steps."""
DECAY = 0.35
"""Share of the steps over which the learning rate falls to zero."""
LOG_EVERY = 20
LOOK_EVERY = 20.0
"""Seconds between checks for new renders."""
FIRST_TIMED = 10
"""Step from which the rate is measured: before it kernels are chosen and caches filled."""
PART_BYTES = 15_000_000
COLOUR_IMAGES = 512
WEIGHTS = Path(__file__).resolve().parents[2] / "load/zero123/small_zero123.safetensors"


def lr_factor(step: int, total: int) -> float:
    """Return the factor on the learning rate: up over WARM_UP steps, constant, down to zero at `total`."""
    return max(0.0, min(1.0, (step + 1) / WARM_UP, (total - step) / (DECAY * total)))


class Trainer:
    """The state of a run, and one step of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device(args.device)
        state = torch.load(args.state, map_location="cpu", weights_only=True) if args.resume else None
        self.model = load_zero123(str(args.weights), dtype="fp32").to(self.device).train().requires_grad_(False)
        components = ["lift", *(["unet", "image_encoder", "cc_projection"] if args.denoise_weight else [])]
        for name in components:
            getattr(self.model, name).requires_grad_(True)
        if not args.denoise_weight:
            assert self.model.lift is not None
            self.model.lift.to_maps.requires_grad_(False)  # only the denoiser reads the maps
        self.views = DeviceViews(args.data, self.device, state and state["files"])
        self.n_objects: int = state["n_objects"] if state else args.objects
        self.step: int = state["step"] if state else 0
        self.total: int = state["total"] if state else args.steps
        """Steps of the whole schedule; 0 = not measured yet."""
        sample = self.views.draw(args.seed, -1, COLOUR_IMAGES, 1).on_white()[:, 1]
        self.colour = ColourError(self.model, sample, args.colour_share)
        groups = parameter_groups(self.model, components, args.lr, 1.0)
        self.optimizer = MuonAdamW(groups, lr=args.lr)
        self.parameters = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        self.average = WeightAverage(self.model, args.ema_decay)
        if state:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.load_state_dict(state["average"])

    def gradients(self, step: int) -> torch.Tensor:
        """Compute the gradients of a step; return its loss and terms on the device."""
        args, k = self.args, self.args.targets
        views = self.views.draw(args.seed, step, self.n_objects, k)
        shape = (self.n_objects * k, self.model.latent_channels, self.model.latent_size, self.model.latent_size)
        noising = (
            draw_noising(self.model, shape, args.high_noise_share, args.seed, step) if args.denoise_weight else None
        )
        terms = losses(self.model, views, noising, self.colour, bf16=not args.fp32)
        weights = {"lift": args.lift_weight, "denoise": args.denoise_weight}
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        total.backward()
        return torch.stack([total, *terms.values()]).detach()

    def advance(self) -> torch.Tensor:
        """Take one step; return loss, terms and the gradient's norm on the device, without waiting for it."""
        measured = self.gradients(self.step)
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)  # one bad value must not end an unattended run; the log shows it
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.lr * lr_factor(self.step, self.total or 10**9)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1
        return torch.cat([measured, norm.detach().reshape(1)])

    def save(self) -> None:
        """Write the whole state atomically."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
            "total": self.total,
            "n_objects": self.n_objects,
            "files": self.views.files,
        }
        with replacing(self.args.state) as file:
            torch.save(state, file)

    def fit_memory(self) -> None:
        """Try the gradients of a step, with half the objects as often as memory runs out."""
        while True:
            try:
                seconds = self._seconds()
                break
            except Exception as error:
                if not is_out_of_memory(error) or self.n_objects < 2:
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            free_cached_memory()
            report(
                f"note: {self.n_objects} objects a step need more memory than there is; taking {self.n_objects // 2}"
            )
            self.n_objects //= 2
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**30
            report(f"gradients of {self.n_objects} objects: {seconds:.3f} s; at most {peak:.1f} GiB")

    def _seconds(self) -> float:
        """Return the time of one step's gradients, which are dropped."""
        for number in range(5):
            if number == 2 or self.device.type != "cuda":
                synchronize(self.device)
                began = time.perf_counter()
            self.gradients(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type != "cuda":
                break
        synchronize(self.device)
        return (time.perf_counter() - began) / max(1, number - 1)


def synchronize(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def elapsed() -> float:
    """Return the seconds since the start."""
    return time.perf_counter() - START


def report(text: str) -> None:
    """Print with the time, at once."""
    print(f"[{elapsed():6.1f} s] {text}", flush=True)


def export(model: Any, out: Path, step: int) -> None:
    """Write a model as half precision safetensors in parts that may travel."""
    whole = out / ".zero123.safetensors"
    save_zero123(model, whole, torch.float16, {"name": "small-zero123", "license": "Apache-2.0"})
    data = whole.read_bytes()
    whole.unlink()
    parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
    for number, part in enumerate(parts):
        (out / f"zero123.part{number}.new").write_bytes(part)
    for number in range(len(parts)):
        os.replace(out / f"zero123.part{number}.new", out / f"zero123.part{number}")
    about = {"step": step, "parts": len(parts), "sha256": hashlib.sha256(data).hexdigest()}
    (out / "parts.json").write_text(json.dumps(about) + "\n")


def join(out: Path) -> int:
    """Join the parts of an export; return 0, or 1 where they do not belong together."""
    about = json.loads((out / "parts.json").read_text())
    data = b"".join((out / f"zero123.part{number}").read_bytes() for number in range(about["parts"]))
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        print(f"{out}: the parts are not those of parts.json; copy all of them again.", file=sys.stderr)
        return 1
    (out / "zero123.safetensors").write_bytes(data)
    print(f"{out}/zero123.safetensors: step {about['step']}, {len(data) / 1e6:.1f} MB")
    return 0


def check_point(trainer: Trainer, val: DeviceViews | None) -> float:
    """Save, export, score the average; return the seconds that it took."""
    began, out = time.perf_counter(), trainer.args.out
    model = trainer.average.averaged(trainer.model)
    if trainer.step:
        trainer.save()
        export(model, out, trainer.step)
    torch.backends.cudnn.benchmark = False  # the sizes of validation come once a minute
    scores = {}
    if val is not None:
        sheet = out / ("sheet.png" if trainer.step else "sheet_start.png")
        scores = validate(model, val.fixed_pairs(), sheet)  # type: ignore[arg-type]
    torch.backends.cudnn.benchmark = True
    line = {"step": trainer.step, "seconds": round(elapsed(), 1), "objects": len(trainer.views.images)}
    line |= {name: round(value, 4) for name, value in scores.items()}
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    report(f"step {trainer.step}: {json.dumps(scores and line)}")
    return time.perf_counter() - began


def planned_steps(trainer: Trainer, rate: float, checkpoint_seconds: float) -> int:
    """Return how many steps the whole run takes at `rate` steps per second, checkpoints left out of the time."""
    left = trainer.args.seconds - elapsed()
    n_checkpoints = math.floor(left / trainer.args.every) + 1
    return trainer.step + max(1, int(rate * (left - n_checkpoints * checkpoint_seconds)))


def train(trainer: Trainer, val: DeviceViews | None) -> None:
    """Run until the schedule or the time ends."""
    args = trainer.args
    checkpoint_seconds = check_point(trainer, val)
    trainer.fit_memory()
    fixed = trainer.total > 0
    window = torch.zeros((), device=trainer.device)
    timed = logged = (trainer.step, time.perf_counter())
    first, last_checkpoint = trainer.step, time.perf_counter()
    last_look = last_checkpoint
    while not trainer.total or trainer.step < trainer.total:
        window = window + trainer.advance()
        done = trainer.step - first
        if done == FIRST_TIMED:
            synchronize(trainer.device)
            timed = (trainer.step, time.perf_counter())
        if done % LOG_EVERY:
            continue
        means = (window / LOG_EVERY).tolist()  # waits for the device
        now, window = time.perf_counter(), torch.zeros_like(window)
        rate = (trainer.step - timed[0]) / (now - timed[1])
        if not fixed and trainer.step < (1 - DECAY) * (trainer.total or 10**9) - LOG_EVERY:
            trainer.total = planned_steps(trainer, rate, checkpoint_seconds)  # until the decay begins
        names = ("loss", "lift", "denoise", "norm") if args.denoise_weight else ("loss", "lift", "norm")
        values = " ".join(f"{name} {value:.4f}" for name, value in zip(names, means, strict=True))
        seconds = (now - logged[1]) / (trainer.step - logged[0])
        report(f"step {trainer.step} of {trainer.total}: {values}; {seconds:.3f} s a step")
        logged = (trainer.step, now)
        if trainer.step < trainer.total and elapsed() > args.seconds:
            report("note: the time is over before the schedule")
            break
        if now - last_look >= LOOK_EVERY:
            last_look = now
            if added := trainer.views.grow():
                report(f"{added} more objects, {len(trainer.views.images)} now")
        if now - last_checkpoint >= args.every and trainer.step < trainer.total:
            spent = check_point(trainer, val)
            last_checkpoint = time.perf_counter()
            timed, logged = (timed[0], timed[1] + spent), (logged[0], time.perf_counter())
    check_point(trainer, val)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Source.parse, nargs="+", action="extend", required=True, metavar="DATA[:SHARE]")
    add("--val", type=Source.parse, metavar="DATA", help="held-out objects: 3 s per validation on a GPU")
    add("--seconds", type=float, default=300.0, help="for everything after the start of Python (300)")
    add("--out", type=Path, required=True, help="folder for what shall come back")
    add(
        "--state",
        type=Path,
        default=Path("train_small_state.pt"),
        help="file of the whole state (train_small_state.pt)",
    )
    add("--resume", action="store_true", help="go on from --state; give the same other options")
    add("--weights", type=Path, default=WEIGHTS, help="where to start (the bundled weights)")
    add("--device", default="cuda", choices=["cuda", "cpu"])
    add("--objects", type=int, default=256, help="per step (256)")
    add("--targets", type=int, default=3, help="target views of each (3)")
    add("--lr", type=float, default=1e-3, help="highest learning rate (1e-3)")
    add("--lift-weight", type=float, default=1.0)
    add("--denoise-weight", type=float, default=1.0, help="0: train the lift alone, at a third of the cost")
    add("--high-noise-share", type=float, default=0.4, help="of the timesteps, from the noisier half (0.4)")
    add("--colour-share", type=float, default=0.5, help="of the denoising loss, on what shows as colour (0.5)")
    add("--ema-decay", type=float, default=0.995, help="of the averaged weights, per step (0.995)")
    add("--every", type=float, default=60.0, help="seconds between checkpoints (60)")
    add("--steps", type=int, default=0, help="of the schedule, instead of as many as the time allows")
    add("--fp32", action="store_true", help="no half precision")
    add("--seed", type=int, default=0)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Train; return 0, or 2 where the input is of no use."""
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["join"] and len(words) == 2:
        return join(Path(words[1]))
    args = parse(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA device here; give --device cpu.", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark_limit = 4  # of the ways to compute a convolution, how many are tried
    try:
        trainer = Trainer(args)
        val = DeviceViews([args.val], trainer.device) if args.val else None
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    report(
        f"{len(trainer.views.images)} objects of {len(trainer.views.files)} files; the colours' linear map leaves out "
        f"{trainer.colour.unexplained:.1%}; {trainer.n_objects} objects x {args.targets} targets a step"
    )
    train(trainer, val)
    return 0


if __name__ == "__main__":
    sys.exit(main())
