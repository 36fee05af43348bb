"""What `zero123s new` writes works as it is."""

import pytest

from zero123s.commands.main import main
from zero123s.commands.new_templates import CODE, CONFIG, KINDS, SMALL, TEST
from zero123s.run.plugins import load_plugins


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_extension_passes_its_own_test(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = f"fresh-{kind}"
    assert main(["new", kind, name]) == 0
    module = name.replace("-", "_")
    assert f"pytest custom/test_{module}.py" in capsys.readouterr().out
    scope = {"__file__": str(tmp_path / "custom" / f"test_{module}.py")}
    exec((tmp_path / "custom" / f"test_{module}.py").read_text(), scope)
    scope["test_it_takes_two_steps"](tmp_path / "out", monkeypatch)
    assert load_plugins() == [f"custom/{module}.py"], "the test file is no plugin"


def test_names_are_checked_and_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("My SDF", "../x", "class", "1st"):
        assert main(["new", "geometry", name]) == 2
        assert "is no name for a geometry" in capsys.readouterr().err
    assert main(["new", "geometry", "mine"]) == 0
    assert main(["new", "geometry", "mine"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "custom").iterdir()) == ["mine.py", "mine.yaml", "test_mine.py"]


def test_every_kind_has_its_texts():
    assert set(CODE) == set(CONFIG) == set(SMALL) == set(KINDS)
    assert "@module@" in TEST
