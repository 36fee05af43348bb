"""What `--dry-run` refuses because the run itself would: folders that cannot be made, doubtful cut-outs."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from tiny_run import SMALL

from zero123s.commands.launch import main

CONFIGS = Path(__file__).parents[2] / "configs"


def dry_run(*overrides, config="stable-zero123"):
    return main(["--config", str(CONFIGS / f"{config}.yaml"), "--train", "--dry-run", *SMALL, *overrides])


@pytest.fixture
def doubtful(tmp_path):
    """A photo whose object touches two edges: it may be cut off, or the background itself."""
    photo = Image.new("RGB", (240, 160), (225, 225, 215))
    photo.paste((200, 40, 10), (0, 0, 200, 150))
    photo.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("root", ["/dev/null", "/dev/null/below", "FILE", "FILE/below"])
def test_a_run_folder_that_cannot_be_made(root, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert dry_run(f"exp_root_dir={root.replace('FILE', str(tmp_path / 'file'))}") == 2
    assert "is a file" in capsys.readouterr().err


def test_a_run_folder_without_permission(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zero123s.run.folder.os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    assert dry_run(f"exp_root_dir={tmp_path / 'new'}") == 2
    assert f"no permission in '{tmp_path}'" in capsys.readouterr().err


def test_a_doubtful_cut_out_is_refused(doubtful, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    for overrides in ([f"data.image_path={doubtful}"], [f"data.pictures.front={doubtful}"]):
        config = "few-views" if "pictures" in overrides[0] else "stable-zero123"
        assert dry_run(*overrides, config=config) == 2
        assert "data.cut_out.force=true" in capsys.readouterr().err
    assert dry_run(f"data.image_path={doubtful}", "data.cut_out.force=true") == 0


def test_no_network_runs(doubtful, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace())  # any use of it raises
    assert dry_run(f"data.image_path={doubtful}") == 0
