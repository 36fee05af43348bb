"""What starts runs or reads their state: the viewer's images, a job of the web page, an item of a batch."""

import json

import pytest
from tiny_run import SMALL

from pretend.on_device.commands import FIELD, REPOSITORY
from zero123s.callbacks.viewer_images import KINDS, render_view
from zero123s.cluster.batch import make_setup
from zero123s.cluster.items import Item
from zero123s.cluster.worker import run_item
from zero123s.run.plan import plan_run
from zero123s.run.runner import Runner
from zero123s.web.job_process import make_mesh

CONFIG = REPOSITORY / "configs" / "stable-zero123.yaml"
IMAGE = REPOSITORY / "load" / "images" / "hamburger_rgba.png"
WORDS = [*SMALL, *FIELD, "system.loss.lambda_sds=0"]


def test_the_viewers_images_are_rendered_on_the_device(tmp_path, counts):
    _, plan = plan_run(CONFIG, WORDS, "none")
    runner = Runner(plan, tmp_path / "run", None, gpu="0")
    system = runner.system.to(runner.device)
    for kind in KINDS:
        counts.clear()
        image, depth = render_view(system, system.data_source.eval_cameras("validate").select(slice(1)), kind)
        assert image.shape == (*depth.shape, 3)
        assert counts.n_launches > 0


@pytest.mark.slow
def test_a_web_job_runs_on_the_device(tmp_path, counts):
    task = {"config": str(CONFIG), "words": [*WORDS, f"exp_root_dir={tmp_path}"], "profile": "none"}
    found = make_mesh(tmp_path, task)
    assert found["step"] == 2
    assert (tmp_path / found["downloads"]["glb"]).is_file()
    assert counts.n_launches > 0


@pytest.mark.slow
def test_a_batch_item_runs_on_the_device(tmp_path, counts):
    setup = make_setup(tmp_path / "out", CONFIG, WORDS, "none", 1.0, cut_out=False)
    record = run_item(Item("toy", IMAGE), setup, 1, lambda progress: None)
    assert record["state"] == "finished", record.get("error")
    assert json.loads((tmp_path / "out" / "items" / "toy" / "run.json").read_text())["step"] == 2
    assert counts.n_launches > 0
