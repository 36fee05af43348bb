"""Predict how long the main recipe takes on a GPU, from measured operations, counts and arithmetic. Not a measurement.

    python benchmarks/gpu/predict.py

The host starts operations one after the other while the GPU works them off. At the field it reads numbers in between and waits
for them, so that takes the host's time plus the GPU's, as it did where both were measured; the guidance reads none before its end,
so it takes the longer of both. The field's operations take what check.py measured of each on an H200 for 2^20 points, on
other cards in proportion to the bandwidth of their cache, which gathers wait for; of the guidance every operation of the
full-size networks is counted here, without computing it, and takes the longer of its arithmetic and its bytes, but at
least what was measured on the H200. Assumptions are documented at each constant. Samples are those of a run of all 600
steps on a CPU, samples_per_ray.py.
"""

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.flop_counter import flop_registry  # noqa: E402

from zero123s.diffusion.model import Zero123Model, build_model  # noqa: E402
from zero123s.diffusion.model_config import ModelConfig  # noqa: E402
from zero123s.diffusion.speed import speed_up  # noqa: E402
from zero123s.ops.compositing import AT_ONCE, FRONT_TO_BACK  # noqa: E402


@dataclass(frozen=True)
class Card:
    """Figures of a data sheet; of the cache, of published micro-benchmarks."""

    name: str
    bandwidth: float
    """Bytes per second of the memory."""
    cache_bandwidth: float
    """Bytes per second of the second-level cache, which holds most of what a step touches of the hash table (50 MB)."""
    half_flops: float
    """Per second, float16 with float32 sums, dense."""

    def field_seconds(self, measured: float) -> float:
        """Return the seconds of a step's field where its operations take so many on the measured card."""
        slower = MEASURED_ON.cache_bandwidth / self.cache_bandwidth
        return slower * measured + STREAMED_PER_STEP / (REACHED_BANDWIDTH * self.bandwidth)


CARDS = (Card("RTX 4090", 1.008e12, 5.0e12, 165e12), Card("H200", 4.8e12, 5.5e12, 989e12))
MEASURED_ON = CARDS[1]
REACHED_FLOPS, REACHED_BANDWIDTH = 0.4, 0.7
"""Shares of these that large convolutions and long streams are assumed to reach."""
MEASURED_LAUNCHES, MEASURED_STEPS = 1790, (108, 231, 444)
"""Launches and milliseconds of a step by stage on the H200 with the bundled model's guidance, whose kernels took 2 ms."""
MEASURED_PER_LAUNCH = 60e-6
"""Seconds of the host, everything between included: in the first of these steps the H200 was idle for two thirds."""
SECONDS_PER_LAUNCH = (108e-3 - 9e-3) / MEASURED_LAUNCHES
"""The same without what a step's logging took then and not any more: 9 ms, measured on two cores of a Sapphire Rapids
(script not kept).
"""

FIELD_LAUNCHES = 615
"""Of a step without guidance: step_counts.py --triton --profile none."""
EVALUATION_LAUNCHES = 16
"""Of every further evaluation of `AT_ONCE` candidates, counted there with `AT_ONCE` lowered to some fifty (not kept)."""
FRONT_TO_BACK_LAUNCHES = 16
"""Of choosing twice which candidates are evaluated, counted likewise."""
ENCODE, POSITION_GRADIENT, COMPOSITE, MARCH = 3.5e-3, 3.9e-3, 1.2e-3, 1.1e-3
"""Seconds for 2^20 points, forward and backward pass, Triton kernels (docs/performance.md)."""
NETWORK, NETWORK_FORWARD, INPUT_GRADIENT = 1.7e-3, 0.35e-3, 2.3e-3
"""The same of the fused networks of two hidden layers of 64."""
FORWARD_SHARE = 1 / 3
"""Of the encoding's time that its forward pass takes, assumed: it reads once, the gradient reads and writes."""
MEASURED_GUIDANCE = {12: 86e-3, 8: 72e-3, 4: 60e-3}
"""Seconds of denoiser, encoder and its gradient by batch on that card, host and GPU together; at batch 4 the host limited them."""
NEAR_SHARE = 0.25
"""Of the shaded samples have a point near by (perturbed_share of the recipe); in the measured steps all had."""
STREAMED_PER_STEP = 10 * 4 * 12.6e6
"""Bytes. Adam reads four numbers per parameter and writes three, health sums weights and gradients, and the gradient is zeroed."""
START_SECONDS = 25.0
"""Assumed: import, 8 GB of weights from a local disk, 20 kernels compiled."""
EXPORT_SECONDS = 22.0 - 5.7 - 3.5
"""Measured on that machine, less what has been saved since, on two cores: unwrapping in parts, 50,000 faces (unwrap.py), and
tracing visibility on all threads (script not kept).
"""


@dataclass(frozen=True)
class PerRay:
    """Samples of a ray: those in occupied cells; those of them whose density is evaluated where there are many; those shaded."""

    candidates: float
    evaluated: float
    samples: float

    def seconds(self, near_share: float, front_to_back: bool) -> float:
        """Return the seconds of a step for one ray, points near its samples included, on the measured card."""
        sample = ENCODE + POSITION_GRADIENT + 2 * NETWORK + INPUT_GRADIENT + COMPOSITE
        near = ENCODE + POSITION_GRADIENT + INPUT_GRADIENT
        density = FORWARD_SHARE * ENCODE + NETWORK_FORWARD
        evaluated = self.evaluated if front_to_back else self.candidates
        marched = self.candidates * MARCH + evaluated * density
        return (self.samples * (sample + near_share * near) + marched) / 2**20


@dataclass(frozen=True)
class Stage:
    """One of the recipe's three: steps, novel views of so many pixels per edge, and pixels per edge of the reference."""

    steps: int
    views: int
    novel: int
    reference: int
    per_ray: PerRay
    """Means over its steps, counted by samples_per_ray.py with the bundled model's guidance."""

    @property
    def passes(self) -> tuple[int, int]:
        """Rays of the novel and of the reference pass."""
        return self.views * self.novel**2, self.reference**2

    @property
    def launches(self) -> int:
        """Operations of a step without guidance."""
        total = FIELD_LAUNCHES
        for rays in self.passes:
            candidates, evaluated = rays * self.per_ray.candidates, rays * self.per_ray.evaluated
            calls = math.ceil(candidates / AT_ONCE)
            if candidates > FRONT_TO_BACK:
                calls = math.ceil(0.9 * evaluated / AT_ONCE) + math.ceil(0.1 * evaluated / AT_ONCE)
                total += FRONT_TO_BACK_LAUNCHES
            total += EVALUATION_LAUNCHES * (calls - 1)
        return total

    def field_seconds(self, card: Card) -> float:
        """Return the seconds of the GPU for the field of a step."""
        passes = (
            rays * self.per_ray.seconds(NEAR_SHARE, rays * self.per_ray.candidates > FRONT_TO_BACK)
            for rays in self.passes
        )
        return card.field_seconds(sum(passes))


STAGES = (
    Stage(200, 12, 64, 128, PerRay(50.7, 49.3, 17.6)),
    Stage(100, 8, 128, 256, PerRay(41.8, 33.8, 11.0)),
    Stage(300, 4, 256, 512, PerRay(39.0, 23.9, 8.9)),
)
FIRST_STEPS = PerRay(54.9, 54.9, 21.7)
"""The same of the first hundred: the measured run took twenty steps in each stage, and evaluated all candidates."""


class Tally(TorchDispatchMode):
    """Arithmetic and bytes of every operation that writes memory."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation; on the device "meta" nothing is computed."""
        out = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not is_view and not func.name().startswith(("aten::empty", "aten::new_empty", "aten::_unsafe_view")):
            count = flop_registry.get(func._overloadpacket)
            flops = count(*args, **(kwargs or {}), out_val=out) if count else 0
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.operations.append((flops, sum(t.numel() * t.element_size() for t in tensors)))
        return out

    def launch(self, kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
        """Count one start of a Triton kernel: each of its tensors once, as for torch's norms, which read theirs twice, too."""
        tensors = {id(a): a for a in args if isinstance(a, torch.Tensor)}
        self.operations.append((0, sum(t.numel() * t.element_size() for t in tensors.values())))

    def seconds(self, card: Card) -> float:
        """Return how long the GPU works at it."""
        flops, bandwidth = REACHED_FLOPS * card.half_flops, REACHED_BANDWIDTH * card.bandwidth
        return sum(max(f / flops, b / bandwidth) for f, b in self.operations)


def full_size_model() -> Zero123Model:
    """Return Stable Zero123's networks without numbers."""
    with torch.device("meta"):
        model = build_model(ModelConfig()).half().eval().requires_grad_(False)
    return speed_up(model)


@contextlib.contextmanager
def operations_of_cuda(tally: "Tally | None" = None, fused_norms: bool = True) -> Iterator[None]:
    """Let networks on the device "meta" take the operations of CUDA: attention as one, norm and activation as one."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention
    with (
        patch("torch.nn.functional.scaled_dot_product_attention", lambda q, k, v, **_: attention(q, k, v)[0]),
        patch("zero123s.ops.backends._is_usable", lambda backend, *_: backend in ("reference", "triton")),
        patch("zero123s.ops.group_norm.agreement.kernels_agree", lambda *_: fused_norms),
        patch("zero123s.ops.group_norm.triton.launch", (tally or Tally()).launch),
    ):
        yield


def guidance(model: Zero123Model, views: int) -> Tally:
    """Return the GPU work of a step's guidance: both branches of the denoiser, the encoder and its gradient."""
    with torch.device("meta"):
        z, t = torch.randn(views, 4, 32, 32), torch.full((views,), 500)
        context, rgb = (
            torch.randn(views, 1, model.config.unet.context_dim),
            torch.rand(views, 3, 256, 256).requires_grad_(),
        )
    tally = Tally()
    with tally, operations_of_cuda(tally):
        latents = model.encode_image(rgb)
        with torch.no_grad():
            model.guided_noise(z, t, context, z, 3.0)
        torch.autograd.grad(latents, rgb, torch.ones_like(latents))
    return tally


def kept_bytes(model: Zero123Model, views: int, fused_norms: bool) -> int:
    """Return the bytes that the encoder keeps for its gradient."""
    weights, kept = {p.untyped_storage()._cdata for p in model.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with operations_of_cuda(fused_norms=fused_norms), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        latents = model.encode_image(torch.rand(views, 3, 256, 256, device="meta").requires_grad_())
    assert latents.requires_grad
    return sum(storage.nbytes() for key, storage in kept.items() if key not in weights)


def step_seconds(stage: Stage, tally: Tally, card: Card) -> tuple[float, float, float]:
    """Return the seconds of a step: of the host at the field, of the GPU there, of both at the guidance."""
    host = SECONDS_PER_LAUNCH * stage.launches
    return host, stage.field_seconds(card), max(tally.seconds(card), MEASURED_GUIDANCE[stage.views])


def turntable_seconds(card: Card) -> float:
    """Return the seconds of 120 frames and 24 images of previews of 512 pixels."""
    rays = (120 + 24) * 512**2 * MEASURED_ON.cache_bandwidth / card.cache_bandwidth
    forward = FORWARD_SHARE * ENCODE + NETWORK_FORWARD
    last = STAGES[-1].per_ray
    # All candidates: images are rendered in chunks, each of too few for FRONT_TO_BACK.
    return rays * (last.candidates * (MARCH + forward) + last.samples * (forward + NETWORK_FORWARD)) / 2**20


def main() -> None:
    """Print a table per card."""
    model = full_size_model()
    before, now = (kept_bytes(model, STAGES[0].views, fused) / 1e9 for fused in (False, True))
    print(f"The encoder keeps {now:.1f} GB for its gradient at batch 12, with norms in plain torch {before:.1f}.\n")
    tallies = [guidance(model, stage.views) for stage in STAGES]
    for card in CARDS:
        print(f"{card.name}, predicted\nsteps  samples   host ms  field ms  guidance ms  step ms  seconds")
        total = START_SECONDS + EXPORT_SECONDS + turntable_seconds(card)
        for stage, tally in zip(STAGES, tallies, strict=True):
            host, field, guided = step_seconds(stage, tally, card)
            step = host + field + guided
            total += stage.steps * step
            print(
                f"{stage.steps:5}  {sum(stage.passes) * stage.per_ray.samples / 1e6:5.2f} M  {1e3 * host:7.1f}  {1e3 * field:8.1f}  "
                f"{1e3 * guided:11.1f}  {1e3 * step:7.1f}  {stage.steps * step:7.1f}"
            )
        if card is MEASURED_ON:
            host, per_ray = MEASURED_PER_LAUNCH * MEASURED_LAUNCHES, FIRST_STEPS.seconds(1.0, front_to_back=False)
            steps = (host + card.field_seconds(sum(stage.passes) * per_ray) + 2e-3 for stage in STAGES)
            print(
                f"with the bundled model {', '.join(f'{1e3 * s:.0f}' for s in steps)} ms a step; measured: {MEASURED_STEPS}"
            )
        parts = f"start {START_SECONDS:.0f}, previews and turntable {turntable_seconds(card):.1f}, export {EXPORT_SECONDS:.0f}"
        print(f"{parts}; all in all {total:.0f} s = {total / 60:.1f} minutes\n")


if __name__ == "__main__":
    main()
