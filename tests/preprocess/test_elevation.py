"""The elevation of an image; benchmarks/elevation.py measures its errors."""

import numpy as np
import pytest
import torch

from zero123s.errors import CheckpointError
from zero123s.ops.cameras import orbit_cameras
from zero123s.preprocess.elevation import estimate_elevation, from_scores, score_panel
from zero123s.preprocess.elevation_net import CANDIDATES_DEG, framed, labels, load_elevation_net, train
from zero123s.scenes.procedural import generate
from zero123s.scenes.render import render_views


def test_labels_are_read_back():
    for elevation_deg in (-6.0, 13.0, 41.5):
        estimate = from_scores(labels(torch.tensor([elevation_deg]))[0].numpy())
        assert estimate.elevation_deg == pytest.approx(elevation_deg, abs=0.3)
        assert estimate.confidence > 0.8
        assert not estimate.warnings


def test_a_flat_score_is_admitted():
    estimate = from_scores(np.full(len(CANDIDATES_DEG), 1 / len(CANDIDATES_DEG)))
    assert estimate.elevation_deg == pytest.approx(22.5)
    assert estimate.confidence == pytest.approx(0, abs=1e-6)
    assert "cannot be estimated well" in estimate.warnings[0]
    assert estimate.record()["warnings"] == list(estimate.warnings)
    assert np.isfinite(score_panel(estimate)).all()


def test_the_network_that_ships_beats_a_constant():
    """24 objects that no training saw: medians of 11.8 to 15.9 degrees were measured for constants over such sets."""
    rng = np.random.default_rng(0)
    errors, constant = [], []
    for seed in range(9_400_000, 9_400_024):
        elevation_deg = float(rng.uniform(-5, 50))
        camera = orbit_cameras(elevation_deg, float(rng.uniform(0, 360)), height=96, width=96)
        estimate = estimate_elevation(render_views(generate(seed), camera).rgba[0])
        errors.append(abs(estimate.elevation_deg - elevation_deg))
        constant.append(abs(22.5 - elevation_deg))
    assert np.median(errors) < 0.75 * np.median(constant)


def test_place_and_size_do_not_matter():
    rgba = torch.zeros(2, 4, 80, 80)
    rgba[0, :, 10:30, 20:60] = 0.8
    rgba[1, :, 35:75, 0:80] = 0.8
    images = framed(rgba)
    assert float((images[0] - images[1]).abs().mean()) < 0.02
    covered = (images[0, 3] > 0.4).any(0).sum()
    assert int(covered) == pytest.approx(50, abs=1)  # 200 of 256


def test_training_learns_and_writes_what_is_loaded(rendered_views, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zero123s.preprocess.elevation_net.HELD_OUT", 2)
    path = tmp_path / "net.safetensors"
    trained = train(rendered_views, path, steps=3, batch=8)
    assert "step 3: loss" in capsys.readouterr().out
    image = torch.rand(1, 4, 64, 64)
    torch.testing.assert_close(load_elevation_net(path)(image), trained(image), atol=0.02, rtol=0)


def test_a_damaged_file_is_reported(tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="not an elevation network"):
        load_elevation_net(tmp_path / "net.safetensors")
