"""The model that ships: it loads by default, depends on the camera, and guides the README's first command."""

import json
from pathlib import Path

import pytest
import trimesh

from zero123s.commands.launch import main
from zero123s.data.rendered_views import RenderedViews
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import BUNDLED, REPOSITORY, locate_checkpoint
from zero123s.diffusion.validation import image_scores, lift_scores, pose_sensitivity
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset

pytestmark = pytest.mark.skipif(
    not locate_checkpoint("auto").bundled, reason="load/zero123/stable_zero123.ckpt stands before the bundled model"
)


@pytest.fixture(scope="module")
def unseen_views(tmp_path_factory):
    """24 generated objects whose seeds no training saw, one pair of views each."""
    folder = tmp_path_factory.mktemp("unseen")
    render_dataset(procedural_objects(9_200_000, 25), folder, RenderSettings(views=2, seed=1))
    data = RenderedViews(RenderedViews.Config(root=str(folder), held_out=24))
    data.prepare()
    return data.validation_batch(0, 24)


def test_it_is_small_and_records_what_it_is():
    located = locate_checkpoint("auto")
    assert located.path.resolve() == REPOSITORY / BUNDLED
    assert located.path.stat().st_size <= 25_000_000
    model = load_zero123(located.path)
    assert (model.family, model.info["name"], model.image_size) == ("stable-zero123", "small-zero123", 64)


def test_its_predictions_depend_on_the_camera(unseen_views):
    model = load_zero123(locate_checkpoint("auto").path, dtype="fp32")
    gates = pose_sensitivity(model, unseen_views)
    # Measured 3.03 and 1.78, in images 3.92 and 1.97, with these 24 pairs; 3.45 and 2.06, 4.10 and 2.45 with 48. The
    # gates are 2.0 and 1.6. The weights before had 2.04 and 1.37, 2.37 and 1.50, with 48.
    assert gates["shuffled_ratio"] > 2.4
    assert gates["mirrored_ratio"] > 1.6
    assert gates["picture_shuffled_ratio"] > 2.9
    assert gates["picture_mirrored_ratio"] > 1.8
    lifted = lift_scores(model, unseen_views)
    copied = image_scores(unseen_views.on_white()[:, 0], unseen_views)
    # Measured 0.85 and 21.9 dB; copying the input 0.59 and 14.8 dB.
    assert lifted["lift_iou"] > copied["mask_iou"] + 0.18
    assert lifted["lift_psnr"] > copied["psnr"] + 5.5


def test_the_main_job_makes_a_mesh(tmp_path):
    overrides = ["--config", str(Path(REPOSITORY) / "configs" / "stable-zero123.yaml"), "--train"]
    overrides += [
        f"exp_root_dir={tmp_path}",
        "use_timestamp=false",
        "trainer.max_steps=8",
        "trainer.val_check_interval=0",
    ]
    overrides += [
        "data.random_camera.n_test_views=2",
        "trainer.enable_progress_bar=false",
        "system.exporter.isosurface_resolution=64",
        "system.exporter.max_faces=4000",
        "system.exporter.texture_size=128",
        "system.exporter.poster=false",
        "system.warm_start.steps=120",
    ]
    assert main(overrides) == 0
    run = tmp_path / "stable-zero123" / "hamburger_rgba"
    record = json.loads((run / "run.json").read_text())
    assert record["model"]["bundled"]
    assert record["warm_start"]["type"] == "lift"
    assert record["metrics"]["psnr"] > 18
    assert record["metrics"]["mask_iou"] > 0.95
    mesh = trimesh.load(run / "export" / "model.glb", force="mesh")
    assert 100 < len(mesh.faces) <= 4000
    assert (run / "save" / "it8-test.mp4").stat().st_size > 1000
