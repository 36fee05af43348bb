"""benchmarks/model_kits.py: which models of unpacked kits are whole single objects."""

import csv
import importlib.util
from pathlib import Path

import pytest
import trimesh

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "model_kits.py"


@pytest.fixture(scope="module")
def kits():
    spec = importlib.util.spec_from_file_location("model_kits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_box(path, *extents):
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box(extents).export(path)


def test_whole_objects_are_listed_once(kits, tmp_path, monkeypatch):
    kit = tmp_path / "kits" / "Kenney Toy Kit"
    write_box(kit / "GLTF" / "block.glb", 1, 1, 1)
    write_box(kit / "OBJ" / "block.obj", 1, 1, 1)  # the same model in another format
    write_box(kit / "GLTF" / "block-copy.glb", 2, 2, 2)  # the same shape
    write_box(kit / "GLTF" / "brick.glb", 1, 1, 2)
    write_box(kit / "GLTF" / "sheet.glb", 1, 1, 0.01)
    write_box(kit / "GLTF" / "stick.glb", 0.1, 0.1, 1)
    write_box(kit / "GLTF" / "wall_corner.glb", 1, 1, 1.5)
    out = tmp_path / "kits.csv"
    monkeypatch.setattr("sys.argv", ["model_kits.py", str(tmp_path / "kits"), "--out", str(out)])
    assert kits.main() == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["block-copy", "brick"]
    assert rows[0] | {"name": ""} == {
        "path": "Kenney Toy Kit/GLTF/block-copy.glb",
        "licence": "CC0-1.0",
        "creator": "Kenney",
        "name": "",
        "library": "Kenney Toy Kit",
    }


def test_kits_of_unknown_makers_are_refused(kits, tmp_path, monkeypatch, capsys):
    (tmp_path / "Somebody's Kit").mkdir()
    monkeypatch.setattr("sys.argv", ["model_kits.py", str(tmp_path)])
    assert kits.main() == 2
    assert "begins with its maker" in capsys.readouterr().err
