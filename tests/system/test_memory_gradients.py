"""Gradients of steps in which memory ran out, in the forward or the backward pass, against those of undisturbed steps."""

import weakref
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from test_zero123_system import FakeGuidance
from test_zero123_system import build as build_field
from torch.utils.data import DataLoader

from zero123s.config.load import load_config
from zero123s.errors import OutOfMemoryError
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.losses import TERMS
from zero123s.run.plan import check_experiment
from zero123s.run.runner import StepBatches
from zero123s.system import zero123

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
CONFIGS = Path(__file__).parents[2] / "configs"
TINY = Path(__file__).parents[1] / "tiny_lifted.yaml"
STILL = {"name": "SGD", "args": {"lr": 0.0}}
"""Weights that stay where they are: every step's gradients can be compared, whatever came before."""


class Gradients(pl.Callback):
    """Keeps what the optimiser gets in every step."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        found = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        self.steps.append(found)


def gradients(system, accumulated, **words):
    """Train two steps and return their gradients."""
    kept = Gradients()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(
        max_steps=2, accelerator="cpu", accumulate_grad_batches=accumulated, callbacks=[kept], **quiet, **words
    )
    trainer.fit(system, DataLoader(StepBatches(system), batch_size=None, num_workers=0))
    assert len(kept.steps) == 2
    return kept.steps


@pytest.fixture
def builders(disc_data, rendered_views, tiny_autoencoder, monkeypatch):
    monkeypatch.setattr(zero123, "FIRST_SAMPLES", 512)
    monkeypatch.setattr(zero123, "MIN_SAMPLES", 128)

    def field():
        weights = {name: 1.0 for name in ("sds", *TERMS) if name != "eikonal"}
        system = build_field(disc_data, weights, guided=False, optimizer=STILL)
        system._guidance.append(FakeGuidance())
        return system

    def launched(config, *words):
        small = [f"data.root={rendered_views}", "data.batch_size=4", "data.held_out=4", f"system.model={TINY}",
                 "system.optimizer={name: SGD, args: {lr: 0.0}}", "system.scheduler.name=''", "seed=1"]  # fmt: skip
        return check_experiment(load_config(str(CONFIGS / config), [*small, *words])).build()

    finetune = ["data.n_targets=2", f"system.autoencoder={tiny_autoencoder}", "system.dropout=0.2"]
    autoencoder = ["data.n_targets=1", "system.crop_size=16", "system.crop_until=1"]
    return {
        "field": field,
        "finetune": lambda: launched("train-small-zero123.yaml", *finetune),
        "autoencoder": lambda: launched("train-autoencoder.yaml", *autoencoder),
    }


SYSTEMS = ("field", "finetune", "autoencoder")
PARTS = {"field": "samples in the field at once: 512", "finetune": "objects at once: 2", "autoencoder": "pictures at once: 4"}  # fmt: skip


def fail_forward(system, at, monkeypatch):
    """Let the `at`-th piece of forward work run out of memory, at its end; returns what counts the pieces."""
    name = "_weigh" if isinstance(system, zero123.Zero123System) else "_losses"
    work, calls = getattr(system, name), []

    def short(*args):
        done = work(*args)
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError(ALLOCATOR)
        return done

    monkeypatch.setattr(system, name, short)
    return calls


def fail_backward(system, at):
    """Let the `at`-th backward pass run out of memory when it has added some gradients, and not all; returns how often."""
    learned = [p for p in system.parameters() if p.requires_grad]
    passes, failed, start = [], [], {}

    def remember(loss):
        passes.append(1)
        start.update({p: None if p.grad is None else p.grad.clone() for p in learned})

    def changed(p):
        return p.grad is not None and (start[p] is None or not torch.equal(p.grad, start[p]))

    def short(grad):
        # The kernels of the hash grid write to the gradient of its table: fail when they have begun.
        half = changed(system.geometry.encoding.table) if is_field else any(changed(p) for p in learned)
        if len(passes) == at and half and not failed:
            assert is_field or not all(changed(p) for p in learned)
            failed.append(1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to")

    def watched(x):
        features = encode(x)
        if features.requires_grad:
            features.register_hook(short)
        return features

    system.on_before_backward = remember
    is_field = isinstance(system, zero123.Zero123System)
    if is_field:
        encode = system.geometry.encoding.forward
        system.geometry.encoding.forward = watched
    else:
        learned[len(learned) // 2].register_hook(short)
    return failed


def assert_same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys()
        # Some gradients are nothing but rounding: a normalisation follows.
        rounding = 1e-6 * max(float(g.norm()) for g in b.values())
        for name, gradient in b.items():
            assert (a[name] - gradient).norm() <= 1e-4 * gradient.norm() + rounding, name


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_forward_pass_that_ran_out_of_memory(builders, name, accumulated, monkeypatch, caplog):
    wanted = gradients(builders[name](), accumulated)
    for at in (1, accumulated + 1):  # in the first batch, and in a later one
        caplog.clear()
        system = builders[name]()
        calls = fail_forward(system, at, monkeypatch)
        assert_same(gradients(system, accumulated), wanted)
        assert len(calls) > at
        assert PARTS[name] in caplog.text


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_backward_pass_that_ran_out_of_memory(builders, name, accumulated, caplog):
    wanted = gradients(builders[name](), accumulated)
    for at in (1, accumulated + 1):
        caplog.clear()
        system = builders[name]()
        failed = fail_backward(system, at)
        assert_same(gradients(system, accumulated), wanted)
        assert failed
        assert PARTS[name] in caplog.text


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_left_to_save_is_one_sentence(builders, name, monkeypatch):
    system = builders[name]()
    monkeypatch.setattr(system, "back_off", lambda: None)
    fail_backward(system, 2)
    with pytest.raises(OutOfMemoryError, match=r"Memory ran out at step 0 \(CUDA out of memory.*data\.batch_size"):
        gradients(system, 2)


def test_nothing_of_a_failed_backward_pass_is_kept_while_it_is_done_again(builders):
    """What its graph holds would be missing for the second attempt."""
    system = builders["field"]()
    failed = fail_backward(system, 1)
    graphs, weigh, kept = weakref.WeakSet(), system._weigh, []

    def watched(terms, where):
        loss = weigh(terms, where)
        held = Held()
        graphs.add(held)
        loss.grad_fn.metadata["held"] = held
        kept.append(len(graphs))
        return loss

    system._weigh = watched
    gradients(system, 1)
    assert failed
    assert kept[:4] == [1, 2, 1, 2], "two passes, and the same again"


class Held:
    """Something that can be referred to weakly."""


def test_in_mixed_precision_as_well(builders):
    found = []
    for at in (0, 1):  # never, at the first
        system = builders["autoencoder"]()
        system.at_once = 4
        system.back_off = lambda: "the same parts, and with them the same rounding"
        failed = fail_backward(system, at)
        found.append(gradients(system, 2, precision="bf16-mixed"))
    assert failed
    assert_same(*found)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_vsds_second_network_learns_once_from_a_batch_that_is_done_again(
    builders, disc_data, tiny_zero123, accumulated
):
    checkpoint, config = (word.split("=", 1)[1] for word in tiny_zero123)
    cfg = StableZero123Guidance.Config(checkpoint=checkpoint, config=config, variant="vsd")
    learned = []
    for at in (0, accumulated, accumulated + 1):  # never, in the last batch of a step, in the first of the next one
        system = builders["field"]()
        system._guidance[:] = [StableZero123Guidance(cfg, disc_data.conditioning_views())]
        system.back_off = lambda: "the same parts, and with them the same rounding"
        failed = fail_backward(system, at)
        gradients(system, accumulated)
        assert len(failed) == (at > 0)
        learned.append(system.guidance.state())
    wanted = learned[0]["adapters"]
    assert {int(moments["step"]) for moments in learned[0]["optimizer"]["state"].values()} == {2}
    assert all(torch.equal(found["adapters"][name], wanted[name]) for found in learned for name in wanted)


def test_no_room_for_the_optimiser_is_one_sentence(builders, monkeypatch):
    system = builders["field"]()

    def short(self, closure):
        closure()
        raise MemoryError

    monkeypatch.setattr(torch.optim.SGD, "step", short)
    with pytest.raises(OutOfMemoryError, match=r"Memory ran out at step 0 \(MemoryError\)"):
        gradients(system, 1)
