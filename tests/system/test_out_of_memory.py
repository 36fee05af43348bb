"""Steps that run out of memory are repeated in more parts, with the same random numbers and the same gradients."""

import re
from pathlib import Path

import pytest
import torch
from test_zero123_system import SDF, build, train

from zero123s.config.load import load_config
from zero123s.losses import TERMS
from zero123s.ops.cameras import generate_rays
from zero123s.run.plan import check_experiment

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = Path(__file__).parents[1] / "helpers" / "tiny_lifted.yaml"
SGD = {"name": "SGD", "args": {"lr": 0.02}}
"""Adam would blow up the last bit of a gradient near zero to a whole step."""
EVERYTHING = {"sds": 1.0} | {n: 1.0 for n, term in TERMS.items() if n != "eikonal" and "mesh" not in term.needs}
SHORTAGE = torch.cuda.OutOfMemoryError("CUDA out of memory")


def gradients(system, n_parts, batch):
    """The gradients of the first step, computed in `n_parts`."""
    system.n_parts = n_parts
    system.training_step(batch, 0).backward()
    return {name: p.grad for name, p in system.named_parameters() if p.grad is not None}


def assert_alike(parts, whole):
    assert whole.keys() == parts.keys()
    # Some gradients are nothing but rounding: a normalisation follows.
    rounding = 1e-6 * max(float(g.norm()) for g in whole.values())
    for name, expected in whole.items():
        assert (parts[name] - expected).norm() <= 1e-4 * expected.norm() + rounding, name


CASES = {
    "analytic": {"geometry": {"normal_type": "analytic"}},
    "finite differences": {"geometry": {"normal_type": "finite_difference"}},
    "predicted": {"geometry": {"normal_type": "pred"}},
    "a quarter perturbed": {"geometry": {"normal_type": "analytic", "perturbed_share": 0.25}},
    "signed distance": {**SDF, "loss": {**EVERYTHING, "eikonal": 1.0}},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_field_in_parts_has_the_same_gradients(disc_data, case):
    found = []
    for n_parts in (1, 4):
        system = build(disc_data, **{"loss": EVERYTHING, **case})
        system.renderer.update(system.field(), 0, system.generator("occupancy"))
        found.append(gradients(system, n_parts, disc_data.batch_at(0)))
    assert_alike(*found[::-1])


@pytest.mark.parametrize("name", ["finetune", "autoencoder"])
def test_a_network_in_parts_has_the_same_gradients(name, rendered_views, tiny_autoencoder):
    overrides = [
        f"data.root={rendered_views}",
        "data.batch_size=4",
        "data.held_out=4",
        f"system.model={TINY}",
        "seed=1",
    ]
    if name == "finetune":
        overrides += ["data.n_targets=2", f"system.autoencoder={tiny_autoencoder}", "system.dropout=0.2"]
    config = {"finetune": "train-small-zero123.yaml", "autoencoder": "train-autoencoder.yaml"}[name]
    found = []
    for n_parts in (1, 3):
        system = check_experiment(load_config(str(CONFIGS / config), overrides)).build()
        system.n_parts, batch = n_parts, system.data_source.batch_at(0)
        if name == "finetune":
            terms = system.losses(batch, 0)
        else:
            terms = system.losses(batch.on_white().flatten(0, 1), batch.rgba[..., 3].flatten(0, 1)[:, None], 0)
        sum(terms.values()).backward()
        found.append({n: p.grad for n, p in system.named_parameters() if p.grad is not None})
    assert_alike(*found[::-1])


def fail_in(system, where, times):
    """Let a step run out of memory: after its forward pass, or in the middle of its backward pass, so many times."""
    left = [times]

    def run_out(grad=None):
        if left[0] and system.global_step == 1:
            left[0] -= 1
            raise SHORTAGE

    if where == "backward":
        list(system.geometry.parameters())[-1].register_hook(run_out)
        return left
    step = system.training_step

    def training_step(batch, batch_idx):
        loss = step(batch, batch_idx)
        run_out()
        return loss

    system.training_step = training_step
    return left


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_is_repeated_in_more_parts(disc_data, where, caplog):
    undisturbed, short, start = (build(disc_data, EVERYTHING, optimizer=SGD) for _ in range(3))
    train(undisturbed, 2)
    left = fail_in(short, where, times=2)
    assert train(short, 2).global_step == 2
    assert (left, short.n_parts) == ([0], 4)
    assert "memory ran out; steps are computed in 2 parts, with the same gradients, from now on" in caplog.text
    for (name, a), b, c in zip(undisturbed.named_parameters(), short.parameters(), start.parameters(), strict=True):
        assert (a - b).norm() < 1e-3 * (a - c).norm(), name
    kept = {}
    short.on_save_checkpoint(kept)
    start.on_load_checkpoint(kept)
    assert start.n_parts == 4


def test_the_guidance_gets_the_number_of_parts(disc_data):
    system = build(disc_data, EVERYTHING)
    system.n_parts = 8
    system.training_step(disc_data.batch_at(0), 0)
    assert system.guidance.n_parts == 8


@pytest.mark.parametrize(("accumulated", "times"), [(2, 1), (1, 1000)], ids=["accumulated", "nothing left"])
def test_what_cannot_be_repeated_raises(disc_data, accumulated, times):
    system = build(disc_data, {"rgb": 1.0}, guided=False)
    fail_in(system, "forward", times)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        train(system, 2, accumulate_grad_batches=accumulated)
    assert system.n_parts == (1 if accumulated > 1 else 64)


@pytest.mark.parametrize(
    ("loss", "keys"),
    [({"sds": 1.0}, r"data\.random_camera\.batch_size or data\.random_camera\.height"), ({"rgb": 1.0}, r"data\.batch_size or")],
)  # fmt: skip
def test_the_sentence_names_two_keys(disc_data, loss, keys):
    sentence = str(build(disc_data, loss).out_of_memory(SHORTAGE))
    assert sentence.startswith("Memory ran out at step 0 (CUDA out of memory): lower ")
    assert re.search(keys, sentence)


def test_images_are_rendered_in_smaller_chunks(disc_data, monkeypatch, caplog):
    system = build(disc_data, {"rgb": 1.0}, guided=False)
    train(system, 2)
    system.eval()
    camera = disc_data.reference().cameras.resized(40, 40)
    with torch.no_grad():
        whole = system.render(camera, frozenset({"normal"}))
        render = system.renderer._render

        def short(rays_o, *args):
            if len(rays_o) > 500:
                raise SHORTAGE
            return render(rays_o, *args)

        monkeypatch.setattr(system.renderer, "_render", short)
        parts = system.renderer(generate_rays(camera), system.field(), system.background, frozenset({"normal"}))
    assert system.renderer.eval_chunk_size == 400
    assert "rendering 400 rays at once from now on" in caplog.text
    torch.testing.assert_close(parts.comp_rgb, whole.comp_rgb)
    torch.testing.assert_close(parts.comp_normal, whole.comp_normal)
