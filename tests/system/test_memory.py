"""Memory that runs out: the same step in smaller parts, with the same random numbers and the same gradients."""

import pytest
import torch
from test_zero123_system import SDF, FakeGuidance, build, train

from zero123s.errors import OutOfMemoryError
from zero123s.losses import TERMS
from zero123s.ops.cameras import generate_rays
from zero123s.ops.memory import is_out_of_memory, recomputed
from zero123s.system import zero123
from zero123s.system.signs import vital_signs

SGD = {"name": "SGD", "args": {"lr": 0.02}}
"""Adam would blow up the last bit of a gradient near zero to a whole step."""
EVERYTHING = {name: 1.0 for name in ("sds", *TERMS) if name != "eikonal"}
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
SHORTAGES = [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to"), MemoryError(), RuntimeError(ALLOCATOR)]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda e: type(e).__name__)
def test_shortages_are_told_from_other_errors(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_recomputed_function_has_the_gradients_of_the_kept_one():
    w = torch.rand(3, 3, requires_grad=True)
    unused = torch.rand(2, requires_grad=True)
    calls = []

    def function():
        calls.append(1)
        return (w @ w).sum(0), w.exp(), torch.ones(2)

    a, b, c = recomputed(function, [w, unused])
    assert len(calls) == 1
    got = torch.autograd.grad(a.square().sum() + b.sum() + 0 * c.sum(), [w, unused], allow_unused=True)
    assert len(calls) == 2
    (wanted,) = torch.autograd.grad((w @ w).sum(0).square().sum() + w.exp().sum(), w)
    torch.testing.assert_close(got[0], wanted)
    assert got[1] is None


def gradients(data, chunk, **words):
    system = build(data, **words)
    system.sample_chunk = chunk
    system.renderer.update(system.field(), 0, system.generator("occupancy"))
    system.training_step(data.batch_at(0), 0).backward()
    return {name: p.grad for name, p in system.named_parameters() if p.grad is not None}


CASES = {
    "analytic": {"geometry": {"normal_type": "analytic"}},
    "finite differences": {"geometry": {"normal_type": "finite_difference"}},
    "predicted": {"geometry": {"normal_type": "pred"}},
    "a quarter perturbed": {"geometry": {"normal_type": "analytic", "perturbed_share": 0.25}},
    "signed distance": {**SDF, "loss": {**EVERYTHING, "eikonal": 1.0}},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_parts_of_the_samples_give_the_gradients_of_the_whole(disc_data, case):
    words = {"loss": EVERYTHING, **case}
    whole, parts = gradients(disc_data, 0, **words), gradients(disc_data, 300, **words)
    assert whole.keys() == parts.keys()
    for name, wanted in whole.items():
        torch.testing.assert_close(parts[name], wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()), msg=name)


class Hungry(FakeGuidance):
    """Runs out of memory at some calls."""

    def __init__(self, error, at):
        super().__init__()
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, *args):
        self.calls += 1
        if self.calls in self.at:
            raise self.error
        return super().__call__(*args)

    def back_off(self):
        if self.micro_batch:
            return None
        self.micro_batch = 1
        return "views through the guidance at once: 1"


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda e: type(e).__name__)
def test_a_step_that_ran_out_of_memory_is_done_again_in_parts(disc_data, caplog, error, monkeypatch):
    monkeypatch.setattr(zero123, "FIRST_SAMPLES", 512)
    monkeypatch.setattr(zero123, "MIN_SAMPLES", 128)
    plenty = build(disc_data, EVERYTHING, optimizer=SGD)
    train(plenty, 2)  # in more steps rounding grows: 2 % of the way after 4
    short = build(disc_data, EVERYTHING, guided=False, optimizer=SGD)
    short._guidance.append(Hungry(error, at=(2, 3)))
    trainer = train(short, 2)
    assert trainer.global_step == 2
    assert short.sample_chunk == 256, "halved twice"
    assert (
        "step 1: memory ran out; views through the guidance at once: 1, samples in the field at once: 512"
        in caplog.text
    )
    start = build(disc_data, EVERYTHING)
    for (name, a), b, c in zip(plenty.named_parameters(), short.parameters(), start.parameters(), strict=True):
        assert (a - b).norm() < 1e-3 * (a - c).norm(), name
    kept = {}
    short.on_save_checkpoint(kept)
    resumed = build(disc_data, EVERYTHING)
    resumed.on_load_checkpoint(kept)
    assert (resumed.sample_chunk, resumed.guidance.micro_batch) == (256, 1)


class Weight(torch.autograd.Function):
    """The identity, whose backward pass runs out of memory as often as told."""

    left = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if Weight.left:
            Weight.left -= 1
            raise RuntimeError(ALLOCATOR)
        return grad


def test_running_out_in_the_backward_pass_leaves_no_half_gradient(disc_data, monkeypatch):
    plenty = build(disc_data, {"rgb": 1.0}, guided=False, optimizer=SGD)
    train(plenty, 3)
    short = build(disc_data, {"rgb": 1.0}, guided=False, optimizer=SGD)
    reference_losses = short.reference_losses

    def heavy(reference, step):
        terms = reference_losses(reference, step)
        return {n: zero123.LossTerm(Weight.apply(t.value), t.weight) for n, t in terms.items()}

    monkeypatch.setattr(short, "reference_losses", heavy)
    Weight.left = 1
    train(short, 3)
    assert Weight.left == 0
    start = build(disc_data, {"rgb": 1.0}, guided=False)
    for a, b, c in zip(plenty.parameters(), short.parameters(), start.parameters(), strict=True):
        assert (a - b).norm() <= 1e-3 * (a - c).norm()


@pytest.mark.parametrize("words", [{}, {"accumulate_grad_batches": 2}], ids=["alone", "accumulated"])
def test_when_nothing_is_left_to_save_one_sentence_says_so(disc_data, words):
    short = build(disc_data, EVERYTHING, guided=False)
    short._guidance.append(Hungry(MemoryError(), at=range(1000)))
    with pytest.raises(OutOfMemoryError, match=r"Memory ran out at step \d .*random_camera\.batch_size"):
        train(short, 3, **words)


def test_other_errors_stay_what_they_are(disc_data):
    short = build(disc_data, EVERYTHING, guided=False)
    short._guidance.append(Hungry(RuntimeError("shapes differ"), at=(2,)))
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(short, 3)


def test_pictures_are_drawn_in_smaller_parts_when_memory_runs_out(disc_data, monkeypatch, caplog):
    system = build(disc_data, {"rgb": 1.0}, guided=False)
    train(system, 2)
    system.eval()
    camera = disc_data.reference().cameras.resized(40, 40)
    with torch.no_grad():
        whole = system.render(camera, frozenset({"normal"}))
        render = system.renderer._render

        def short(rays_o, *args):
            if len(rays_o) > 500:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return render(rays_o, *args)

        monkeypatch.setattr(system.renderer, "_render", short)
        parts = system.renderer(generate_rays(camera), system.field(), system.background, frozenset({"normal"}))
    assert system.renderer.eval_chunk_size == 400
    assert "rendering 400 rays at once from now on" in caplog.text
    torch.testing.assert_close(parts.comp_rgb, whole.comp_rgb)
    torch.testing.assert_close(parts.comp_normal, whole.comp_normal)


def test_a_step_leaves_the_signs_of_life(disc_data):
    system = build(disc_data, EVERYTHING)
    train(system, 1)
    signs = system.vital_signs()
    assert set(signs) == {"occupied", "components", "opacity", "silhouette_iou", "guidance_gradient", "elevation_deg"}
    assert 0 < signs["occupied"] < 1
    assert signs == {**signs, **vital_signs(system._seen)}
    before = system.loss_weights.weight("sds", 0)
    assert system.halve_loss("novel/sds")
    assert system.loss_weights.weight("sds", 0) == before / 2
