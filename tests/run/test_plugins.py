"""Code from outside comes in by name, by folder and by entry point; its errors stay its own."""

from importlib import metadata

import pytest

from zero123s.errors import ConfigError
from zero123s.run.plugins import GROUP, load_plugins


def test_the_entry_point_group_keeps_its_name():
    assert GROUP == "zero123s.plugins", "installed packages declare it"


def test_custom_folder_entry_points_and_imports(tmp_path, monkeypatch):
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "mine.py").write_text("import builtins; builtins.ran = getattr(builtins, 'ran', 0) + 1")
    (tmp_path / "some_package.py").write_text("VALUE = 3")
    (tmp_path / "pointed_at.py").write_text("import builtins; builtins.pointed = True")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = metadata.EntryPoint("x", "pointed_at", GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == GROUP else [])
    import builtins

    for _ in range(2):
        assert load_plugins(["some_package"]) == ["pointed_at", "custom/mine.py", "some_package"]
    assert builtins.ran == 1, "a file is run once"
    assert builtins.pointed


def test_only_a_broken_package_is_a_traceback(tmp_path, monkeypatch):
    (tmp_path / "custom").mkdir()
    (tmp_path / "broken_package.py").write_text("import something_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no package 'not_here\.below'"):
        load_plugins(["not_here.below"])
    with pytest.raises(ModuleNotFoundError, match="something_that_is_not_there"):
        load_plugins(["broken_package"])
    (tmp_path / "custom" / "bad.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_plugins()
