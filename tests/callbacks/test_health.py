"""Health checks: what is not finite never reaches the weights, and warnings name what to change."""

import json
import math

import numpy as np
import pytest
import tiny_system
import torch

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.callbacks.health import Health
from zero123s.callbacks.health_checks import HealthMonitor, count_components, measure
from zero123s.config.experiment import HealthConfig
from zero123s.structures import StepDiagnostics


@pytest.fixture
def launch(tmp_path, capsys):
    def launch(*overrides, out="out"):
        code = tiny_system.launch(tmp_path, "trainer.max_steps=8", *overrides, out=tmp_path / out)
        return code, capsys.readouterr().err, json.loads((tmp_path / out / "tiny" / "run" / "run.json").read_text())

    launch.checkpoint = lambda out="out": AtomicCheckpointIO().load_checkpoint(
        tmp_path / out / "tiny" / "run" / "ckpts" / "last.ckpt"
    )
    return launch


def adam(state):
    return state["optimizer_states"][0]["state"][0]


# ---------------------------------------------------------------- numbers that are not finite


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_non_finite_step_changes_only_the_rate(launch, what):
    """The optimiser takes one step fewer than an undisturbed run, and its rate is half from then on."""
    code, err, record = launch("system.nan_at=[3]", f"system.nan_in={what}")
    assert code == 0
    assert f"warning: step 3: {'the loss walk' if what == 'loss' else 'a gradient'} is not finite" in err
    assert record["health"]["skipped_steps"] == [3]
    state = launch.checkpoint()
    assert int(adam(state)["step"]) == 7
    assert torch.isfinite(state["state_dict"]["walker"]).all()
    rate = state["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == (0.1 if what == "loss" else 0.05), "a term that is at fault is halved itself"
    assert record["health"]["halved"] == ({"walk": 1} if what == "loss" else {"learning rate": 1})
    assert record["warnings"][0].startswith("step 3: ")


def test_three_non_finite_steps_stop_with_a_diagnosis(launch):
    code, err, record = launch("system.nan_at=[3,4,6]", "system.nan_in=gradient")
    assert code == 3
    assert err.splitlines()[-1].startswith(
        "error: stopped at step 6: a gradient is not finite; steps that failed: [3, 4, 6]"
    )
    assert "system.optimizer.args.lr" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert record["state"] == "lost"
    assert launch.checkpoint()["global_step"] == 6, "what is left is good"
    code, _, record = launch("resume=last", "system.nan_at=[]", "health.max_failures=5")
    assert (code, record["state"], record["step"]) == (0, "finished", 8)


def test_failures_far_apart_are_forgotten(launch):
    code, _, record = launch("system.nan_at=[0,3,6]", "system.nan_in=gradient", "health.failure_window=3")
    assert (code, record["health"]["skipped_steps"]) == (0, [0, 3, 6])


def test_non_finite_weights_return_to_the_checkpoint(launch):
    code, err, record = launch("system.nan_at=[5]", "system.nan_in=weight")
    assert code == 0
    assert "the weights are not finite; back to those of step 4" in err
    assert torch.isfinite(launch.checkpoint()["state_dict"]["walker"]).all()
    assert int(adam(launch.checkpoint())["step"]) == 4 + 2, "step 5 was lost, 6 and 7 were done"
    assert record["health"]["halved"] == {"learning rate": 1}


def test_without_a_checkpoint_bad_weights_end_the_run(launch):
    code, err, record = launch("system.nan_at=[0]", "system.nan_in=weight")
    assert code == 3
    assert "there is no checkpoint to go back to yet" in err.splitlines()[-1]
    assert record["state"] == "lost"


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_resuming_after_a_failure_equals_an_uninterrupted_run(launch, what):
    overrides = ["system.nan_at=[2]", f"system.nan_in={what}"]
    assert launch(*overrides, out="whole")[0] == 0
    assert launch(*overrides, "trainer.max_steps=5", out="parts")[0] == 0
    code, _, record = launch(*overrides, "resume=last", "trainer.max_steps=8", out="parts")
    assert code == 0
    assert record["health"]["skipped_steps"] == [2]
    whole, parts = launch.checkpoint("whole"), launch.checkpoint("parts")
    assert torch.equal(whole["state_dict"]["walker"], parts["state_dict"]["walker"])
    assert torch.equal(adam(whole)["exp_avg"], adam(parts)["exp_avg"])


# ---------------------------------------------------------------- the exported mesh


def test_a_mesh_unlike_the_silhouette_is_warned_of(launch):
    code, err, record = launch("system.mesh_silhouette_iou=0.912")
    assert code == 0
    assert err.count("warning: export: the mesh does not fill the image's silhouette: IoU 0.91") == 1
    assert "health.min_mesh_silhouette_iou=0.95" in err
    (sentence,) = record["warnings"]
    assert "system.loss.lambda_mask" in sentence


@pytest.mark.parametrize("overrides", [["system.mesh_silhouette_iou=0.951"], ["health.min_mesh_silhouette_iou=0.9"]])
def test_a_mesh_of_the_right_silhouette_is_not(launch, overrides):
    iou = [] if "system" in overrides[0] else ["system.mesh_silhouette_iou=0.912"]
    code, err, record = launch(*overrides, *iou)
    assert (code, record["warnings"]) == (0, [])
    assert "silhouette" not in err


def test_earlier_warnings_of_the_mesh_are_replaced():
    health = Health(HealthConfig())
    earlier = ["step 3: a gradient is not finite", "export: the mesh does not fill the image's silhouette: IoU 0.5"]
    assert health.check_mesh({"silhouette_iou": 0.99}, earlier) == earlier[:1]
    assert health.check_mesh({}, earlier) == earlier[:1]
    again = health.check_mesh({"silhouette_iou": 0.6}, earlier)
    assert again[0] == earlier[0]
    assert "IoU 0.60" in again[1]


# ---------------------------------------------------------------- measurements


def test_a_fatal_run_stops_with_advice(launch):
    code, err, record = launch("system.is_empty=true", "health.every=1", "health.after=2", "health.lost_after=3")
    assert code == 3
    last = err.splitlines()[-1]
    assert last.startswith("error: stopped at step 4, because the run is lost")
    assert "lower system.loss.lambda_sparsity" in last
    assert record["state"] == "lost"
    assert record["health"] == {"occupied": 0.0, "components": 0.0}
    assert len(record["warnings"]) == 1
    assert err.count("warning: step 2: the scene is empty") == 1, "reported once, not at every check"
    assert launch("system.is_empty=true", "health.every=1", "health.after=2", "health.lost_after=0", out="on")[0] == 0


GOOD = {
    "occupied": 0.1,
    "components": 1.0,
    "opacity": 0.9,
    "silhouette_iou": 0.95,
    "guidance_gradient": 30.0,
    "elevation_deg": 5.0,
}


@pytest.mark.parametrize(
    ("sign", "value", "name", "fatal"),
    [
        ("occupied", 0.0, "empty", True),
        ("occupied", 0.99, "full", True),
        ("opacity", 0.01, "opacity", True),
        ("opacity", 0.4, "opacity_drop", False),
        ("components", 30.0, "floaters", False),
        ("silhouette_iou", 0.3, "silhouette_iou", False),
        ("silhouette_iou", 0.05, "silhouette_iou", True),
        ("guidance_gradient", 0.0, "guidance", False),
        ("elevation_deg", -40.0, "elevation", False),
        ("elevation_deg", 85.0, "elevation", False),
    ],
)
def test_every_sign_has_its_threshold_and_its_advice(sign, value, name, fatal):
    monitor = HealthMonitor(HealthConfig())
    assert monitor.check(100, GOOD) == []
    (finding,) = monitor.check(125, {**GOOD, sign: value})
    assert (finding.name, finding.fatal) == (name, fatal)
    assert "health." in finding.message, "names the threshold"
    assert any(word in finding.message for word in ("system.", "data.")), "says what to change"
    assert monitor.check(150, GOOD) == []


def test_a_silhouette_that_still_rises_is_no_finding():
    monitor = HealthMonitor(HealthConfig(after=0))
    found = [monitor.check(25 * i, {"silhouette_iou": iou}) for i, iou in enumerate([0.1, 0.2, 0.3, 0.301])]
    assert [len(f) for f in found] == [0, 0, 0, 1]


def test_only_lasting_findings_end_a_run():
    monitor = HealthMonitor(HealthConfig(after=0, lost_after=2))
    verdicts = [monitor.lost(monitor.check(i, {"occupied": share})) for i, share in enumerate([0.0, 0.5, 0.0, 0.0])]
    assert [v is not None for v in verdicts] == [False, False, False, True]


def test_measurements_come_from_the_diagnostics():
    mask = torch.zeros(1, 8, 8, 1)
    mask[:, :4] = 1
    opacity = torch.zeros(1, 8, 8, 1)
    opacity[:, 2:6] = 0.75
    cells = torch.zeros(8, 8, 8, dtype=torch.bool)
    cells[0, 0, :4] = cells[4, 4, :2] = cells[7, 7, 7] = True
    found = measure(StepDiagnostics(0, {}, {}, opacity, mask, cells, torch.tensor(2.0), 7.0))
    assert found == pytest.approx(
        {
            "occupied": 7 / 512,
            "components": 2.0,
            "opacity": 0.375,
            "silhouette_iou": 2 / 6,
            "guidance_gradient": 2.0,
            "elevation_deg": 7.0,
        }
    )
    assert measure(StepDiagnostics()) == {}
    assert not math.isnan(
        measure(StepDiagnostics(opacity=opacity, mask=torch.zeros_like(mask), occupancy=cells))["occupied"]
    )


def test_cells_touching_at_a_corner_are_connected():
    cells = np.zeros((4, 4, 4), bool)
    cells[0, 0, 0] = cells[1, 1, 1] = True
    assert count_components(cells) == 1
    cells[1, 1, 1] = False
    assert count_components(cells) == 0, "a single cell is not a piece"
