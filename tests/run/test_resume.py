"""A run goes on from its own newest checkpoint, wherever its folder lies, and no run takes another's folder."""

import json
import shutil

import pytest
import tiny_system
import torch

from zero123s.callbacks.checkpoints import checkpoint_files, read_head

RUN = "tiny/run"


@pytest.fixture
def launch(tmp_path):
    def launch(*overrides, out="out"):
        return tiny_system.launch(tmp_path, *overrides, out=tmp_path / out)

    return launch


@pytest.fixture
def stopped(launch):
    """Train to a step, as far as a process gets that is killed after it."""

    def stopped(step, *overrides):
        with pytest.raises(ArithmeticError):
            launch(f"system.fail_at={step}", "trainer.max_steps=20", *overrides)

    return stopped


def step_of(run):
    return max(read_head(path).step for path in checkpoint_files(run / "ckpts"))


def record_of(run):
    return json.loads((run / "run.json").read_text())


def test_a_folder_that_holds_another_run_is_refused(launch, tmp_path, capsys):
    assert launch("seed=2") == 0
    before = {p: p.read_bytes() for p in (tmp_path / "out" / RUN).rglob("*") if p.is_file()}
    assert launch("seed=3") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"'{tmp_path / 'out' / RUN}' holds another run (state finished, step 4" in error
    assert "overwrite=true" in error
    assert {p: p.read_bytes() for p in (tmp_path / "out" / RUN).rglob("*") if p.is_file()} == before


def test_overwrite_clears_what_the_other_run_wrote(launch, stopped, tmp_path):
    run = tmp_path / "out" / RUN
    assert launch("seed=2", "trainer.max_steps=9") == 0
    (run / "notes.txt").write_text("mine")
    first = record_of(run)["run_id"]
    stopped(4, "seed=3", "overwrite=true")
    assert {read_head(path).step for path in checkpoint_files(run / "ckpts")} == {4}
    assert record_of(run)["run_id"] != first
    assert (run / "notes.txt").read_text() == "mine"
    assert "overwrite: false" in (run / "config.yaml").read_text(), "the word counts for one start"
    assert launch(f"resume={run}", "system.fail_at=-1", "trainer.max_steps=6") == 0
    assert record_of(run)["step"] == 6


def test_a_run_without_a_checkpoint_restarts(launch, stopped, tmp_path):
    stopped(1)
    assert launch() == 0


@pytest.mark.parametrize("how", ["moved", "copied", "link"])
def test_a_moved_run_advances_at_every_kill(launch, stopped, tmp_path, how):
    run = tmp_path / "out" / RUN
    stopped(3)
    for n, step in enumerate((5, 7, 9)):
        place = tmp_path / f"place{n}" / "job"
        place.parent.mkdir()
        if how == "moved":
            run = shutil.move(run, place)
        elif how == "copied":
            run = shutil.copytree(run, place)
        else:
            place.symlink_to(run)
            run = place
        stopped(step, f"resume={run}")
        assert step_of(run) == step - 1
        assert not list(run.glob("ckpts/last-v*")), "last.ckpt is replaced"
        assert len(checkpoint_files(run / "ckpts")) == 2, "the newest under its step, and last.ckpt"
    assert launch(f"resume={run}", "system.fail_at=-1", "trainer.max_steps=10") == 0
    assert read_head(run / "ckpts" / "last.ckpt").step == 10


def test_checkpoints_may_lie_on_another_disk(launch, stopped, tmp_path):
    """Neither a linked ckpts folder nor a linked checkpoint makes a second run folder."""
    run, disk = tmp_path / "out" / RUN, tmp_path / "disk" / "of-my-runs"
    stopped(3)
    disk.parent.mkdir()
    shutil.move(run / "ckpts", disk)
    (run / "ckpts").symlink_to(disk)
    stopped(5, f"resume={run}")
    (tmp_path / "latest.ckpt").symlink_to(run / "ckpts" / "last.ckpt")
    assert step_of(run) == 4
    assert launch(f"resume={run / 'ckpts' / 'last.ckpt'}", "system.fail_at=-1", "trainer.max_steps=6") == 0
    assert record_of(run)["step"] == 6
    assert [p.name for p in (tmp_path / "out" / "tiny").iterdir() if p.is_dir()] == ["run"]


def test_the_checkpoint_of_the_newest_step_counts(launch, stopped, tmp_path):
    run = tmp_path / "out" / RUN
    stopped(3, "checkpoint.save_top_k=-1")
    old = (run / "ckpts" / "last.ckpt").read_bytes()
    stopped(7, f"resume={run}")
    (run / "ckpts" / "last.ckpt").write_bytes(old)
    stopped(9, f"resume={run}", "system.seconds_per_step=0")
    assert read_head(run / "ckpts" / "last.ckpt").step == 8
    assert launch(f"resume={run}", "trainer.max_steps=8", "system.fail_at=-1") == 0


def test_going_back_is_going_on_from_there(launch, stopped, tmp_path):
    """What lies ahead of a checkpoint that was named is of a run that was given up."""
    run = tmp_path / "out" / RUN
    stopped(9, "checkpoint.save_top_k=-1")
    stopped(5, f"resume={run / 'ckpts' / 'epoch=0-step=2.ckpt'}", "system.size=1")
    assert read_head(run / "ckpts" / "last.ckpt").step == 4
    assert launch(f"resume={run}", "trainer.max_steps=5", "system.fail_at=-1") == 0
    assert record_of(run)["step"] == 5
    assert read_head(run / "ckpts" / "last.ckpt").step == 5


def test_a_checkpoint_of_another_run_is_refused(launch, stopped, tmp_path, capsys):
    run, other = tmp_path / "out" / RUN, tmp_path / "other" / RUN
    assert launch(out="other") == 0
    stopped(3)
    shutil.copy(other / "ckpts" / "last.ckpt", run / "ckpts" / "foreign.ckpt")
    stopped(5, f"resume={run}")
    assert read_head(run / "ckpts" / "last.ckpt").step == 4, "gone on from 2, not from the other run's 4"
    assert launch(f"resume={run / 'ckpts' / 'foreign.ckpt'}", "system.fail_at=-1") == 2
    assert "was written by another run" in capsys.readouterr().err
    (run / "run.json").unlink()
    assert launch(f"resume={run}") == 2
    assert "holds checkpoints of several runs" in capsys.readouterr().err


def test_an_interrupted_copy_or_save_is_passed_over(launch, stopped, tmp_path, capsys):
    run = tmp_path / "out" / RUN
    stopped(5)
    whole = (run / "ckpts" / "last.ckpt").read_bytes()
    (run / "ckpts" / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    (run / "ckpts" / ".last.ckpt.part").write_bytes(whole[:100])
    (run / "ckpts" / "._last.ckpt").write_bytes(b"a companion that another system's copy leaves")
    assert launch(f"resume={run}", "system.fail_at=-1", "trainer.max_steps=6") == 0
    assert "passed over" in capsys.readouterr().err
    assert step_of(run) == 6
    assert not list(run.glob("ckpts/*.part"))


def test_resuming_a_finished_run_changes_nothing(launch, tmp_path):
    assert launch() == 0
    last = tmp_path / "out" / RUN / "ckpts" / "last.ckpt"
    before = torch.load(last, weights_only=True)
    assert launch("resume=last") == 0
    after = torch.load(last, weights_only=True)
    for kind in ("python", "numpy", "torch"):
        assert str(before["random_states"][kind]) == str(after["random_states"][kind])
    assert torch.equal(before["random_states"]["torch"], after["random_states"]["torch"])


def test_last_may_be_a_link_to_the_newest(launch, stopped, tmp_path):
    run = tmp_path / "out" / RUN
    stopped(5, "checkpoint.save_last=link")
    assert (run / "ckpts" / "last.ckpt").readlink().name == "epoch=0-step=4.ckpt"
    copy = shutil.copytree(run, tmp_path / "copy", symlinks=True)
    (copy / "ckpts" / "last.ckpt").unlink()
    (copy / "ckpts" / "last.ckpt").symlink_to("gone.ckpt")
    assert launch(f"resume={copy}", "system.fail_at=-1", "trainer.max_steps=6") == 0
    assert step_of(copy) == 6


def test_the_newest_few_are_kept(launch, tmp_path):
    assert launch("trainer.max_steps=9", "checkpoint.save_top_k=2") == 0
    names = [p.name for p in checkpoint_files(tmp_path / "out" / RUN / "ckpts")]
    assert names == ["epoch=0-step=6.ckpt", "epoch=0-step=8.ckpt", "last.ckpt"]


def test_checkpoints_without_a_run_identity_still_work(launch, stopped, tmp_path, capsys):
    run = tmp_path / "out" / RUN
    stopped(5, "checkpoint.save_top_k=-1")
    for old, new in (("epoch=0-step=2.ckpt", "last.ckpt"), ("epoch=0-step=4.ckpt", "last-v1.ckpt")):
        state = torch.load(run / "ckpts" / old, weights_only=True)
        (run / "ckpts" / old).unlink()
        del state["run"]
        torch.save(state, run / "ckpts" / new)
    record = record_of(run)
    del record["run_id"]
    (run / "run.json").write_text(json.dumps(record))
    assert {p.name: read_head(p).step for p in checkpoint_files(run / "ckpts")} == {"last.ckpt": 2, "last-v1.ckpt": 4}
    assert launch(f"resume={run}", "system.fail_at=-1", "trainer.max_steps=6") == 0
    assert "last-v1.ckpt, step 4" in capsys.readouterr().err
    assert record_of(run)["step"] == 6


def test_a_moved_run_takes_its_own_input_along(launch, tmp_path):
    """Paths inside the run folder follow it; those outside do not."""
    assert launch("description=kept") == 0
    run = tmp_path / "out" / RUN
    config = (run / "config.yaml").read_text()
    assert f"trial_dir: {run}" in config
    (run / "config.yaml").write_text(config.replace("description: kept", f"description: {run}/input/a.png"))
    moved = shutil.move(run, tmp_path / "elsewhere")
    assert launch(f"resume={moved}", "trainer.max_steps=6") == 0
    assert f"description: {moved}/input/a.png" in (moved / "config.yaml").read_text()


def test_a_checkpoint_from_elsewhere_begins_a_run(launch, stopped, tmp_path, capsys):
    stopped(3)
    lonely = tmp_path / "downloads" / "good.ckpt"
    lonely.parent.mkdir()
    shutil.copy(tmp_path / "out" / RUN / "ckpts" / "last.ckpt", lonely)
    assert launch(f"resume={lonely}", "seed=5", out="new") == 0
    assert record_of(tmp_path / "new" / RUN)["step"] == 4
    assert [p.name for p in lonely.parent.iterdir()] == ["good.ckpt"]
    assert launch(f"resume={lonely}", out="new") == 2, "the place is taken now"
    assert "holds another run" in capsys.readouterr().err
    assert launch(f"resume={lonely}", "overwrite=true", out="new") == 0
