"""threestudio's stable-zero123.yaml and this project's mean the same, key by key, but for differences with a reason."""

from pathlib import Path

import pytest

from zero123s.config.load import load_config
from zero123s.run.folder import plain
from zero123s.run.plan import check_experiment

REPOSITORY = Path(__file__).parents[2]
OURS = REPOSITORY / "configs" / "stable-zero123.yaml"
THEIRS = Path(__file__).parent / "threestudio" / "stable-zero123.yaml"
REASONS = {
    "name": "each project's folder has its own name",
    "tag": "empty is the image's name here; threestudio's has spaces and brackets in it",
    "system.guidance.checkpoint": "auto is that very file where it is there, else the bundled small model",
    "system.loggers.wandb.project": "each project's name",
    "data.random_camera.n_val_views": "a strip of four previews in place of a film of thirty, every 100 steps",
    "system.geometry.perturbed_share": "a quarter of a million samples estimates the mean of the 3-D smoothness as well as all",
    "system.renderer.early_stop": "the same meshes with a quarter fewer samples (docs/results.md)",
    "checkpoint.save_top_k": "the newest checkpoint is enough to go on; threestudio keeps all of them",
}
"""Keys whose resolved values differ, and why."""


def leaves(value, key=""):
    """Every value below a section by its full key."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


@pytest.fixture(scope="module")
def differences():
    """Key -> (threestudio's value, this project's), where they are not the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        theirs, ours = (dict(leaves(plain(check_experiment(load_config(p)).experiment))) for p in (THEIRS, OURS))
    return {k: (theirs.get(k), ours.get(k)) for k in theirs | ours if theirs.get(k) != ours.get(k)}


def test_every_difference_has_its_reason(differences):
    for key, (theirs, ours) in differences.items():
        print(f"{key}: threestudio {theirs!r}, here {ours!r}: {REASONS.get(key, 'NO REASON')}")
    assert set(differences) == set(REASONS)
