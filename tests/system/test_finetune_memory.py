"""Fine-tuning when memory runs out: fewer objects at once, the same random numbers, the same gradients."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from zero123s.config.load import load_config
from zero123s.errors import OutOfMemoryError
from zero123s.run.plan import check_experiment
from zero123s.run.runner import StepBatches
from zero123s.system.finetune import Zero123FinetuneSystem

TINY = Path(__file__).parents[1] / "tiny_lifted.yaml"
CONFIG = Path(__file__).parents[2] / "configs" / "train-small-zero123.yaml"


@pytest.fixture
def build(rendered_views, tiny_autoencoder):
    def make() -> Zero123FinetuneSystem:
        words = [
            f"data.root={rendered_views}", "data.batch_size=4", "data.held_out=4", "data.n_targets=2", "seed=1",
            f"system.model={TINY}", f"system.autoencoder={tiny_autoencoder}", "system.dropout=0.2",
            "system.optimizer={name: SGD, args: {lr: 0.01}}", "system.scheduler.name=''",
        ]  # fmt: skip
        system = check_experiment(load_config(str(CONFIG), words)).build()
        assert isinstance(system, Zero123FinetuneSystem)
        return system

    return make


def train(system, steps):
    import pytorch_lightning as pl

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_steps=steps, accelerator="cpu", **quiet)
    trainer.fit(system, DataLoader(StepBatches(system), batch_size=None, num_workers=0))
    return trainer


@pytest.mark.parametrize("at_once", [1, 3])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(build, at_once):
    found = []
    for parts in (None, at_once):
        system = build()
        system.at_once = parts
        sum(system.losses(system.data_source.batch_at(0), 0).values()).backward()
        found.append({name: p.grad for name, p in system.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    # Some gradients are nothing but rounding (1e-9): a normalisation follows.
    rounding = 1e-7 * max(float(whole.norm()) for whole in found[0].values())
    for name, whole in found[0].items():
        assert (found[1][name] - whole).norm() <= 1e-4 * whole.norm() + rounding, name


def test_a_step_that_ran_out_of_memory_is_done_again_with_fewer_objects(build, monkeypatch, caplog):
    plenty, short = build(), build()
    train(plenty, 3)
    start = build()
    losses = short._losses

    def hungry(views, drawn, weights):
        if len(views.rgba) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
        return losses(views, drawn, weights)

    monkeypatch.setattr(short, "_losses", hungry)
    assert train(short, 3).global_step == 3
    assert "objects at once: 1" in caplog.text
    learned = [name for name, p in plenty.named_parameters() if p.requires_grad]
    a, b, c = (
        torch.cat([dict(s.named_parameters())[n].detach().flatten() for n in learned]) for s in (plenty, short, start)
    )
    assert (a - b).norm() < 1e-3 * (a - c).norm()
    kept = {}
    short.on_save_checkpoint(kept)
    resumed = build()
    resumed.on_load_checkpoint(kept)
    assert resumed.at_once == 1


def test_one_object_too_many_is_one_sentence(build, monkeypatch):
    short = build()
    monkeypatch.setattr(short, "_losses", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemoryError, match=r"Memory ran out at step 0 .*data\.batch_size"):
        train(short, 1)
