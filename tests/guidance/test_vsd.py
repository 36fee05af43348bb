"""VSD with Zero123, on small models of random weights: one that predicts noise, one that predicts v and lifts poses."""

import copy
import functools
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from test_zero123 import SIZES
from tiny_run import SMALL

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.commands.launch import main
from zero123s.config.parse import parse
from zero123s.diffusion.checkpoint.load_zero123 import save_zero123
from zero123s.diffusion.checkpoint.locate import REPOSITORY, locate_checkpoint
from zero123s.diffusion.model import Zero123Model, build_model
from zero123s.diffusion.model_config import parse_model_config, read_model_config
from zero123s.diffusion.shared import sharing_networks
from zero123s.errors import CheckpointError, MissingDependencyError
from zero123s.guidance import vsd
from zero123s.guidance.sds import step_weight
from zero123s.guidance.stable_diffusion import StableDiffusionGuidance
from zero123s.guidance.vsd import VSD, float32_copy
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.ops.cameras import orbit_cameras
from zero123s.structures import ReferenceView

TINY_LIFTED = Path(__file__).parents[1] / "helpers" / "tiny_lifted.yaml"
CAMERAS = orbit_cameras(10.0, torch.tensor([0.0, 40.0, 90.0, 200.0, 300.0]))
KINDS = {"eps": parse_model_config(SIZES), "v": read_model_config(TINY_LIFTED)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    paths = {}
    for kind, config in KINDS.items():
        torch.manual_seed(0)
        paths[kind] = tmp_path_factory.mktemp(kind) / "stable_zero123.safetensors"
        save_zero123(build_model(config), paths[kind])
    return {kind: str(path) for kind, path in paths.items()}


@pytest.fixture(params=KINDS)
def checkpoint(request, checkpoints):
    return checkpoints[request.param]


def guidance(checkpoint, **settings):
    rgb = torch.rand(1, 32, 32, 3, generator=seeded(5))
    reference = ReferenceView(orbit_cameras(5.0, 0.0, height=32, width=32), rgb, torch.ones(1, 32, 32, 1))
    settings = {"variant": "vsd", "lora_lr": 1e-2, "checkpoint": checkpoint, **settings}
    return StableZero123Guidance(StableZero123Guidance.Config(**settings), reference)


def renderings(n=5, seed=1):
    return torch.rand(n, 24, 24, 3, generator=seeded(seed))


def guide_views(guide, step=0, n=5, generator=None):
    """One step: the guidance's output, and its gradient on the renderings."""
    rgb = renderings(n).requires_grad_()
    out = guide(rgb, CAMERAS.select(slice(0, n)), step, generator or seeded(step))
    return out, torch.autograd.grad(out.loss, rgb)[0]


@functools.cache
def state_of_three_steps(checkpoint):
    guide = guidance(checkpoint)
    for step in range(3):
        guide_views(guide, step)
    return guide.state()


def taught(checkpoint, **settings):
    """A guidance whose adapters have learned three steps."""
    guide = guidance(checkpoint, **settings)
    guide.load_state(copy.deepcopy(state_of_three_steps(checkpoint)))
    return guide


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


# ---------------------------------------------------------------- the gradient


@pytest.mark.parametrize(
    ("settings", "most"),
    [({}, 1e-5), ({"fast": False}, 1e-5), ({"channels_last": True}, 1e-5), ({"dtype": "bf16"}, 0.05), ({"micro_batch": 2}, 1e-5)],
    ids=str,
)  # fmt: skip
def test_untrained_adapters_predict_as_the_denoiser(checkpoint, settings, most):
    """At scale 1 both networks agree, so VSD's gradient is zero, where SDS's is not."""
    sds = guide_views(guidance(checkpoint, variant="sds", guidance_scale=1.0, **settings))[0].grad_norm
    guide = guidance(checkpoint, guidance_scale=1.0, **settings)
    assert float(guide_views(guide)[0].grad_norm) < most * float(sds)
    assert float(guide_views(guide, 1)[0].grad_norm) > 1e-3 * float(sds), "the adapters have learned a step"


def merged(guide):
    """The model's own denoiser with the products of the adapters added to its weights by hand."""
    unet = copy.deepcopy(guide.model.unet)
    adapted = 0
    for name, module in guide.variant.score.unet.named_modules():
        if hasattr(module, "lora_A"):
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            weight = unet.get_submodule(name).weight
            weight.data += (b.flatten(1) @ a.flatten(1)).detach().view_as(weight)
            adapted += 1
    assert adapted
    return unet


@pytest.mark.parametrize("weighting", ["sds", "uniform"])
def test_the_gradient_is_the_formula(checkpoint, weighting):
    guide = taught(checkpoint, guidance_scale=3.0, weighting=weighting)
    unet = merged(guide)
    out, grad = guide_views(guide, 3)

    model = guide.model
    posterior_noise, t, noise, _ = guide.draw(5, 3, seeded(3))
    rgb = renderings().requires_grad_()
    latents = guide.encode(rgb, posterior_noise)
    a = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    noised = (a.sqrt() * latents + (1 - a).sqrt() * noise).detach()
    context, concat = guide.condition(CAMERAS)

    def eps(denoiser, context, concat):
        with torch.no_grad():
            said = denoiser(torch.cat([noised, concat], 1), t, context).sample
        return said if model.config.parameterization == "eps" else a.sqrt() * said + (1 - a).sqrt() * noised

    prior = eps(model.unet, context, concat)
    nothing = eps(model.unet, torch.zeros_like(context), torch.zeros_like(concat))
    expected = step_weight(a.flatten(), weighting).view(-1, 1, 1, 1) * (
        nothing + 3.0 * (prior - nothing) - eps(unet, context, concat)
    )
    assert relative(grad, torch.autograd.grad(latents, rgb, expected / 5)[0]) < 1e-4
    torch.testing.assert_close(out.grad_norm, expected.norm(), rtol=1e-4, atol=0)


def test_the_adapted_copy_is_conditioned_on_the_camera(checkpoint, monkeypatch):
    guide, conditions = guidance(checkpoint), []
    method = Zero123Model.predict_noise

    def record(self, latents, t, context, concat, *, unet=None):
        if unet is guide.variant.score.unet:
            conditions.append((context, concat))
        return method(self, latents, t, context, concat, unet=unet)

    monkeypatch.setattr(Zero123Model, "predict_noise", record)
    guide_views(guide)
    context, concat = guide.condition(CAMERAS)
    assert len(conditions) == 2, "once to predict, once to learn"
    assert all(torch.equal(c, context) and torch.equal(k, concat) for c, k in conditions)
    assert not torch.equal(context[0], context[1])


def test_sds_is_as_it_was(checkpoint):
    """Same draws, same bits as without a word of VSD."""
    guide, generator = guidance(checkpoint, variant="sds", guidance_scale=3.0), seeded()
    out, grad = guide_views(guide, generator=generator)
    again = seeded()
    posterior_noise, t, noise, _ = guide.draw(5, 0, again)
    assert torch.equal(generator.get_state(), again.get_state()), "nothing else is drawn"
    rgb = renderings().requires_grad_()
    latents = guide.encode(rgb, posterior_noise)
    with torch.no_grad():
        noised = guide.model.add_noise(latents, noise, t)
        noise_pred = guide.model.guided_noise(noised, t, *guide.condition(CAMERAS), 3.0)
        target = torch.nan_to_num((1 - guide.model.alphas_cumprod[t]).view(-1, 1, 1, 1) * (noise_pred - noise))
    loss = 0.5 * (latents - (latents - target).detach()).square().sum() / 5
    assert torch.equal(grad, torch.autograd.grad(loss, rgb)[0])
    assert torch.equal(out.loss, loss)
    assert not isinstance(guide.variant, VSD)
    assert guide.state() == {}


# ---------------------------------------------------------------- what the adapters learn


def test_adapters_learn_the_renderings_and_the_prior_stays(checkpoint):
    with sharing_networks():
        guide = guidance(checkpoint)
        before = {name: tensor.clone() for name, tensor in guide.model.state_dict().items()}
        latents = guide.encode(renderings(), torch.zeros(5, 4, 8, 8))
        condition, losses = guide.condition(CAMERAS), []
        for step in range(30):
            guide.variant.begin(step, CAMERAS)
            losses.append(
                guide.variant.score.accumulate(
                    latents, condition, *guide.variant.score.draw(latents.shape, seeded(step % 3))
                )
            )
        assert sum(losses[-6:]) < 0.9 * sum(losses[:6])

        other = guidance(checkpoint, variant="sds")
        assert other.model is guide.model, "runs of one process share the prior"
        after = guide.model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert not any(p.requires_grad or p.grad is not None for p in guide.model.parameters())
        shared = guide_views(other)[1]
    assert torch.equal(shared, guide_views(guidance(checkpoint, variant="sds"))[1])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_adapters_are_float32_whatever_the_model_is(checkpoints, dtype):
    guide = guidance(checkpoints["v"], dtype=dtype)
    assert {p.dtype for p in guide.model.unet.parameters()} == {torch.bfloat16 if dtype == "bf16" else torch.float16}
    assert {p.dtype for p in guide.variant.score.unet.parameters()} == {torch.float32}
    guide_views(guide)
    assert all(bool(p.grad.isfinite().all()) for p in guide.variant.score.adapters.values() if p.grad is not None)
    assert {v.dtype for v in guide.state()["adapters"].values()} == {torch.float32}


def test_a_float32_denoiser_lies_in_memory_once(checkpoints):
    guide = guidance(checkpoints["v"])
    own = {p.data_ptr() for p in guide.model.unet.parameters()}
    added = [name for name, p in guide.variant.score.unet.named_parameters() if p.data_ptr() not in own]
    assert added == list(guide.variant.score.adapters)


def test_a_compiled_denoiser_is_copied_uncompiled():
    module = torch.nn.Linear(2, 2)
    module.compile(backend="eager")
    copied = float32_copy(module)
    assert module._compiled_call_impl is not None
    assert copied._compiled_call_impl is None
    assert torch.equal(copied(torch.ones(1, 2)), module(torch.ones(1, 2)))


def gathered(guide):
    return {name: p.grad.clone() for name, p in guide.variant.score.adapters.items() if p.grad is not None}


def test_mixed_precision_does_not_reach_what_is_learned(checkpoints):
    guide = taught(checkpoints["v"])
    latents, condition = torch.randn(2, 4, 8, 8, generator=seeded()), guide.condition(CAMERAS.select(slice(0, 2)))
    draws = guide.variant.score.draw(latents.shape, seeded(1))
    guide.variant.score.accumulate(latents, condition, *draws)
    plain = gathered(guide)
    guide.variant.score.optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        guide.variant.score.accumulate(latents, condition, *draws)
    assert all(torch.equal(grad, plain[name]) for name, grad in gathered(guide).items())


def test_non_finite_gradients_are_skipped_and_reported(checkpoints, caplog):
    guide = taught(checkpoints["v"])
    before = guide.state()
    guide(torch.full((1, 24, 24, 3), float("nan")), CAMERAS.select(slice(0, 1)), 3, seeded())
    with caplog.at_level(logging.WARNING):
        after = guide.state()
    assert "the gradient of VSD's adapters is not finite; their step was skipped" in caplog.text
    assert all(torch.equal(after["adapters"][name], before["adapters"][name]) for name in before["adapters"])
    assert bool(guide_views(guide, 4)[1].isfinite().all())


# ---------------------------------------------------------------- in parts, again, and in several processes


def updates(state):
    """How often every adapter that learns has learned."""
    return {int(moments["step"]) for moments in state["optimizer"]["state"].values()}


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_equal_the_whole_batch(checkpoint, size):
    whole = taught(checkpoint)
    parts = guidance(checkpoint, micro_batch=size)
    parts.load_state(whole.state())
    generators = seeded(7), seeded(7)
    (out, grad), (out_parts, grad_parts) = (
        guide_views(guide, 3, generator=g) for guide, g in zip((whole, parts), generators, strict=True)
    )
    assert relative(grad_parts, grad) < 1e-5
    torch.testing.assert_close(out_parts.loss, out.loss, rtol=1e-5, atol=0)
    assert torch.equal(*(g.get_state() for g in generators)), "the draws do not depend on the split"
    taught_by_whole, taught_by_parts = gathered(whole), gathered(parts)
    assert taught_by_whole.keys() == taught_by_parts.keys()
    most = max(float(g.abs().max()) for g in taught_by_whole.values())
    assert all(float((taught_by_parts[n] - g).abs().max()) < 1e-5 * most for n, g in taught_by_whole.items())
    assert updates(whole.state()) == updates(parts.state()) == {4}, "one step of learning for a step of training"


def test_a_step_done_again_is_learned_once(checkpoints):
    """Memory that runs out behind the guidance makes the step begin anew, in smaller parts."""
    short, plenty = taught(checkpoints["v"]), taught(checkpoints["v"])
    guide_views(short, 3)
    short.n_parts = plenty.n_parts = 2
    for step in (3, 4):
        assert torch.equal(guide_views(short, step)[1], guide_views(plenty, step)[1])
    a, b = short.state(), plenty.state()
    assert updates(a) == {5}
    assert all(torch.equal(a["adapters"][name], b["adapters"][name]) for name in a["adapters"])


def test_accumulated_batches_are_one_step(checkpoints):
    guide = taught(checkpoints["v"])
    sums = []
    for n in (2, 3):  # views
        guide_views(guide, 3, n)
        sums.append(gathered(guide))
    first, both = sums
    assert any(not torch.equal(both[name], first[name]) for name in first)
    assert updates(guide.state()) == {4}


def test_several_processes_learn_what_one_learns(checkpoints, monkeypatch):
    """Each has half of the views, and all of them the mean of the gradients; the sum over processes is a stand-in."""
    one, ours, theirs = (taught(checkpoints["v"]) for _ in range(3))
    latents, cameras = torch.randn(4, 4, 8, 8, generator=seeded()), CAMERAS.select(slice(0, 4))
    t, noise = one.variant.score.draw(latents.shape, seeded(1))
    for guide, part in ((one, slice(0, 4)), (ours, slice(0, 2)), (theirs, slice(2, 4))):
        guide.variant.score.accumulate(latents[part], guide.condition(cameras.select(part)), t[part], noise[part])
    learned = one.state()["adapters"]
    others = iter(gathered(theirs).values())
    monkeypatch.setattr(vsd, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda grad: grad.add_(next(others)))
    mean = ours.state()["adapters"]
    monkeypatch.undo()
    alone = theirs.state()["adapters"]
    apart = lambda a: float(torch.cat([(a[name] - learned[name]).flatten() for name in learned]).norm())  # noqa: E731
    assert apart(mean) < 1e-3 * apart(alone)


# ---------------------------------------------------------------- going on, and mistakes


def test_going_on_is_bit_exact(checkpoint, tmp_path):
    guide = taught(checkpoint)
    guide_views(guide, 3)
    torch.save(guide.state(), tmp_path / "state.pt")
    resumed = guidance(checkpoint)
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in (4, 5):
        assert torch.equal(guide_views(resumed, step)[1], guide_views(guide, step)[1])
    a, b = guide.state(), resumed.state()
    assert updates(a) == updates(b) == {6}
    assert all(torch.equal(a["adapters"][name], b["adapters"][name]) for name in a["adapters"])


def test_another_rank_is_refused_another_rate_accepted(checkpoints):
    state = taught(checkpoints["v"]).state()
    with pytest.raises(CheckpointError, match=r"do not fit system\.guidance\.lora_rank=8"):
        guidance(checkpoints["v"], lora_rank=8).load_state(state)
    slower = guidance(checkpoints["v"], lora_lr=1e-5)
    slower.load_state(state)
    assert [group["lr"] for group in slower.variant.score.optimizer.param_groups] == [1e-5]
    guidance(checkpoints["v"], variant="sds").load_state(state)  # an override may switch it off


def test_a_missing_package_is_reported_before_loading(checkpoints, tiny_text_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    zero123 = StableZero123Guidance.Config(checkpoint=checkpoints["v"], variant="vsd")
    text = {"prompt": "a ball", "checkpoint": str(tiny_text_model), "variant": "vsd"}
    for guide, cfg in (
        (StableZero123Guidance, zero123),
        (StableDiffusionGuidance, parse(StableDiffusionGuidance.Config, text)),
    ):
        with pytest.raises(MissingDependencyError, match=r"need peft: pip install 'zero123s\[lora\]'"):
            guide.requirements(cfg)
        cfg.variant = "sds"
        guide.requirements(cfg)


@pytest.mark.skipif(
    not locate_checkpoint("auto").bundled, reason="a full-size checkpoint stands before the bundled one"
)
def test_the_main_recipe_with_vsd_resumes_exactly(tmp_path):
    overrides = ["--config", str(REPOSITORY / "configs" / "stable-zero123.yaml"), "--train", *SMALL, "threads=1"]
    overrides += [f"exp_root_dir={tmp_path}", "use_timestamp=false", "system.guidance.variant=vsd"]
    overrides += ["system.guidance.lora_lr=1e-2", "checkpoint.every_n_train_steps=1", "trainer.val_check_interval=0"]
    # One export: equal weights make equal meshes, as end_to_end/test_kill.py tests.
    assert main([*overrides, "tag=whole", "trainer.max_steps=2", "export_after_train=false"]) == 0
    assert main([*overrides, "tag=halves", "trainer.max_steps=1", "export_after_train=false"]) == 0
    assert main([*overrides, "tag=halves", "trainer.max_steps=2", "resume=last", "export_after_train=true"]) == 0
    runs = [tmp_path / "stable-zero123" / tag for tag in ("whole", "halves")]
    whole, halves = (AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt") for run in runs)
    for part in (lambda c: c["state_dict"], lambda c: c["guidance"]["adapters"]):
        assert part(whole).keys() == part(halves).keys()
        assert all(torch.equal(part(whole)[name], part(halves)[name]) for name in part(whole))
    assert updates(whole["guidance"]) == {2}
    for run in runs:
        record = json.loads((run / "run.json").read_text())
        assert (record["state"], record["step"], record["model"]["bundled"]) == ("finished", 2, True)
    assert (runs[1] / "export" / "model.glb").is_file()
