"""Batches on a local Ray: what comes out, what is skipped, what survives the death of a worker."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import tiny_batch

from zero123s.cluster.manifest import MANIFEST, read_checked
from zero123s.commands.batch import main
from zero123s.errors import ConfigError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

pytestmark = pytest.mark.end_to_end


REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def loads(tmp_path_factory):
    """One Ray for the file, because starting it takes longer than a batch; and the file that counts loaded networks."""
    path = tmp_path_factory.mktemp("loads") / "loads.txt"
    env = {"PYTHONPATH": f"{REPOSITORY / 'tests/helpers'}:{REPOSITORY}", tiny_batch.LOADS: str(path)}
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 (what else runs here is not our business)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (15 by default: they would wait for all else that runs here)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=10**8,
        runtime_env={"env_vars": env},
    )
    yield path
    ray.shutdown()


def batch(source, out, config, *overrides):
    return main([str(source), "--out", str(out), "--config", str(config), "--profile", "none", *overrides])


def read_manifest(out):
    content = read_checked(out / MANIFEST)
    assert content is not None
    return content


def result(out, name):
    return (out / "items" / name / "export" / "walker.txt").read_text()


def test_every_image_gets_result_record_and_row(image_folder, batch_config, tmp_path, loads, capsys):
    out = tmp_path / "out"
    assert batch(image_folder, out, batch_config) == 0
    assert "4 of 4 finished, 0 of them before" in capsys.readouterr().out
    items = read_manifest(out)["items"]
    assert [i["name"] for i in items] == ["p0", "p1", "p2", "p3"]
    assert all(i["state"] == "finished" and i["metrics"]["distance"] < 1 and len(i["sha256"]) == 1 for i in items)
    assert len(loads.read_text().split()) == len({i["process"] for i in items}) <= 2, (
        "networks are loaded once for each worker"
    )
    page = (out / "index.html").read_text()
    assert page.count("<tr>") == 5
    assert all(
        f'src="items/p{i}/thumbnail.png"' in page and (out / f"items/p{i}/thumbnail.png").is_file() for i in range(4)
    )

    stamps = {i: (out / "items" / f"p{i}" / "export" / "walker.txt").stat().st_mtime_ns for i in range(4)}
    (out / "items" / "p1" / "export" / "walker.txt").write_text("damaged")
    before = result(out, "p2")
    assert batch(image_folder, out, batch_config, "--workers", "1") == 0
    assert "4 of 4 finished, 3 of them before" in capsys.readouterr().out
    assert {i: (out / "items" / f"p{i}" / "export" / "walker.txt").stat().st_mtime_ns == stamps[i] for i in range(4)} == {
        0: True, 1: False, 2: True, 3: True}  # fmt: skip
    assert result(out, "p2") == before

    assert batch(image_folder / "p0.png", out, batch_config, "seed=1") == 0
    assert "1 of 1 finished, 0 of them before" in capsys.readouterr().out
    assert (out / "items" / "p0.before1").is_dir(), "other settings start anew and destroy nothing"

    manifest = json.loads((out / "manifest.json").read_text())
    manifest["items"][0]["state"] = "failed"
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert read_checked(out / MANIFEST) is None
    assert batch(image_folder / "p0.png", out, batch_config, "seed=1") == 0
    assert "1 of 1 finished, 1 of them before" in capsys.readouterr().out
    assert read_manifest(out)["items"][0]["state"] == "finished"


def test_killed_workers_lose_nothing(image_folder, batch_config, tmp_path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    assert batch(image_folder, calm, batch_config, "--workers", "2") == 0
    # The two brightest images kill their workers in step 5; the last checkpoint is that of step 4.
    assert batch(image_folder, stormy, batch_config, "--workers", "2", "system.kill_above=0.5") == 0
    items = {i["name"]: i for i in read_manifest(stormy)["items"]}
    assert {name: i["attempts"] for name, i in items.items()} == {"p0": 1, "p1": 1, "p2": 2, "p3": 2}
    assert all(result(stormy, f"p{i}") == result(calm, f"p{i}") for i in range(4)), "to the last digit"
    log = (stormy / "items" / "p3" / "cmd.txt").read_text()
    assert len(log.splitlines()) == 2


@pytest.mark.slow
def test_bugs_are_retried_and_mistakes_are_not(image_folder, batch_config, tmp_path, capsys):
    (image_folder / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert batch(image_folder, out, batch_config, "system.fail_at=3", "--retries", "1", "--workers", "1") == 1
    items = {i["name"]: i for i in read_manifest(out)["items"]}
    assert Counter((i["state"], i["attempts"]) for i in items.values()) == {("finished", 2): 4, ("failed", 1): 1}
    assert "is not an image that can be read" in items["bad"]["error"]
    assert "bad: failed: " in capsys.readouterr().err
    none = tmp_path / "none"
    assert batch(image_folder / "p1.png", none, batch_config, "system.fail_at=3", "--retries", "0") == 1
    assert "ArithmeticError: the walker fell over" in read_manifest(none)["items"][0]["error"]
    assert "fell over" in (none / "items" / "p1" / "error.txt").read_text()


@pytest.mark.slow
def test_a_timed_out_item_finishes_when_resumed(image_folder, batch_config, tmp_path):
    csv = tmp_path / "slow.csv"
    csv.write_text("image,elevation,system.seconds_per_step\npictures/p0.png,0,0\npictures/p1.png,10,6\n")
    out = tmp_path / "out"
    assert batch(csv, out, batch_config, "--timeout", "30", "--workers", "1", "checkpoint.every_n_train_steps=1") == 1
    items = {i["name"]: i for i in read_manifest(out)["items"]}
    assert (items["p0"]["state"], items["p1"]["state"]) == ("finished", "timed out")
    assert "longer than 30 s" in items["p1"]["error"]
    assert batch(csv, out, batch_config, "--workers", "1", "checkpoint.every_n_train_steps=1") == 0
    (before,) = [i for i in read_manifest(out)["items"] if i.get("skipped")]
    assert before["name"] == "p0"
    assert len((out / "items" / "p1" / "cmd.txt").read_text().splitlines()) == 2, "gone on with, not begun anew"


def test_what_does_not_fit_is_reported(image_folder, batch_config, tmp_path):
    with pytest.raises(ConfigError, match="needs 64 CPUs and 0 GPUs, and the cluster has 2"):
        batch(image_folder, tmp_path / "out", batch_config, "--cpus", "64")
