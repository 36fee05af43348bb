"""docs/architecture.md: its list of files follows one training step, and its table names files that exist."""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import pytorch_lightning as pl
from tiny_run import SMALL
from torch.utils.data import DataLoader

from zero123s.run.plan import plan_run
from zero123s.run.runner import StepBatches

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "zero123s"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAX_FILES = 15
SLOTS_AND_ABOVE = {"data", "geometry", "material", "background", "renderer", "guidance", "losses", "system", "run"}
BENEATH = {"system/exposure.py", "geometry/encoding.py", "background/solid.py"}
"""Files of slots that the text below the list names: parameters of an op, a constant."""
EMPTY_HOOKS = {"on_step", "before_step"}
"""Functions in a slot's base.py that may run: they do nothing."""
ENTRY = re.compile(r"^\d+\. \[([^\]]+)\]\(\.\./zero123s/([^)]+)\)", re.M)


def listed_files() -> list[str]:
    """Return the files of the numbered list, in order."""
    section = DOCUMENT.split("## One training step, file by file")[1].split("\n## ")[0]
    found = ENTRY.findall(section)
    assert all(text == link for text, link in found)
    return [link for _, link in found]


class Recorder(pl.Callback):
    """Records which functions of which files run in the second step, from its batch to the end of its optimiser."""

    def __init__(self) -> None:
        self.functions: dict[str, set[str]] = defaultdict(set)
        self.step = 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.step += 1
        sys.setprofile(self.record if self.step == 1 else None)

    def record(self, frame, event, arg):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            self.functions[path.relative_to(PACKAGE).as_posix()].add(frame.f_code.co_name)


@pytest.fixture(scope="module")
def functions(disc_path, tiny_zero123):
    overrides = [*SMALL, f"data.image_path={disc_path}", "trainer.val_check_interval=0", "seed=0", *tiny_zero123]
    _, plan = plan_run(ROOT / "configs" / "stable-zero123.yaml", overrides, "none")
    system, recorder = plan.build(), Recorder()
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    try:
        trainer = pl.Trainer(max_steps=2, accelerator="cpu", callbacks=[recorder], **options)
        trainer.fit(system, DataLoader(StepBatches(system), batch_size=None))
    finally:
        sys.setprofile(None)
    return recorder.functions


def test_the_list_is_short_and_true(functions):
    listed = listed_files()
    print(f"{len(listed)} files to open, {len(functions)} that run code")
    assert 10 <= len(listed) == len(set(listed)) <= MAX_FILES
    assert not [path for path in listed if path not in functions]


def test_no_file_above_the_operations_runs_unlisted(functions):
    above = {path for path in functions if path.split("/")[0].removesuffix(".py") in SLOTS_AND_ABOVE}
    bases = {path for path in above if re.fullmatch(r"(?!system)\w+/base\.py", path)}
    unlisted = above - bases - set(listed_files()) - BENEATH
    assert not unlisted, f"docs/architecture.md lacks {sorted(unlisted)}"
    assert not {(path, name) for path in bases for name in functions[path] - EMPTY_HOOKS}
    assert all(f"(../zero123s/{path})" in DOCUMENT for path in BENEATH)


def test_files_named_in_the_tables_exist():
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", row)}
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
