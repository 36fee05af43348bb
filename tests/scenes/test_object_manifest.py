import csv
import json

import numpy as np
import pytest
import trimesh

from zero123s.commands.render import main
from zero123s.errors import ImageError, MeshError
from zero123s.scenes.dataset import load_object
from zero123s.scenes.object_manifest import manifest_objects

COLUMNS = ("path", "licence", "creator", "name", "library", "split", "model_rotation")
UP_TO_FRONT = "1 0 0 0 0 -1 0 1 0"
"""In a y up file: +y becomes +z."""


def write_manifest(folder, color=(200, 50, 100), **changed):
    """Write two boxes, 1 x 2 x 3 in the file's axes, and their table."""
    boxes = folder / "models" / "boxes"
    boxes.mkdir(parents=True)
    rows = []
    for name, split in (("one", "train"), ("two", "val")):
        box = trimesh.creation.box((1, 2, 3))
        box.visual.face_colors = [*color, 255]
        box.export(boxes / f"{name}.obj")
        rows.append((f"boxes/{name}.obj", "CC-BY-3.0", f"maker of {name}", f"Box {name}", "Boxes", split, ""))
    rows = [dict(zip(COLUMNS, row, strict=True)) | changed for row in rows]
    with (folder / "objects.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder / "objects.csv"


def test_rows_of_a_split_bring_their_licence(tmp_path):
    path, out = write_manifest(tmp_path), tmp_path / "out"
    overrides = ["--manifest", str(path), "--root", str(tmp_path / "models"), "--split", "val"]
    assert main([str(out), *overrides, "--views", "2", "--size", "16"]) == 0
    (record,) = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    assert record["object_id"] == "boxes__two"
    assert (record["licence"], record["creator"]) == ("CC-BY-3.0", "maker of two")
    assert (record["title"], record["library"]) == ("Box two", "Boxes")


@pytest.mark.parametrize(("rotation", "height"), [("", 2), (UP_TO_FRONT, 3)])
def test_rotation_is_applied_in_the_files_axes(tmp_path, rotation, height):
    path = write_manifest(tmp_path, model_rotation=rotation)
    scene = load_object(manifest_objects(path, tmp_path / "models")[0])
    size = np.ptp(scene.vertices, axis=0)
    assert size[2] / size.min() == pytest.approx(height, rel=1e-4)
    assert size[1] / size.min() == pytest.approx(1, rel=1e-4)  # x of the file is y here, about which it was turned


def test_variants_have_names_and_shapes_of_their_own(tmp_path):
    path = write_manifest(tmp_path)
    items = manifest_objects(path, tmp_path / "models", variants=3)
    assert [item.object_id for item in items[:4]] == [
        "boxes__one~001",
        "boxes__one~002",
        "boxes__one~003",
        "boxes__two~001",
    ]
    first, again, other = (load_object(items[i]).vertices for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize(("color", "count"), [((200, 50, 100), 8), ((120, 125, 118), 4)])
def test_objects_of_few_colours_count_half(tmp_path, color, count):
    path, out = write_manifest(tmp_path, color), tmp_path / "out"
    overrides = ["--manifest", str(path), "--root", str(tmp_path / "models"), "--variants", "4"]
    assert main([str(out), *overrides, "--views", "2", "--size", "16", "--supersample", "1"]) == 0
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert sum(record["row"] is not None for record in records) == count
    assert sum("few colours" in record.get("error", "") for record in records) == 8 - count


def test_attribution_names_every_object_once(tmp_path):
    path, out, credits = write_manifest(tmp_path), tmp_path / "out", tmp_path / "ATTRIBUTION.md"
    overrides = ["--manifest", str(path), "--root", str(tmp_path / "models"), "--variants", "2", "--procedural", "0:3"]
    assert main([str(out), *overrides, "--views", "2", "--size", "16", "--supersample", "1"]) == 0
    assert main([str(out), "--attribution", str(credits)]) == 0
    text = credits.read_text()
    assert "images of 16 x 16 pixels from 2 sides, also in variants: mirrored" in text
    assert "## Boxes: 2 objects under CC-BY-3.0, https://creativecommons.org/licenses/by/3.0/" in text
    assert "- maker of one: Box one\n- maker of two: Box two\n" in text
    assert "3 further objects were generated" in text


def test_attribution_refuses_objects_of_unknown_licence(tmp_path):
    path, out = write_manifest(tmp_path, licence=""), tmp_path / "out"
    overrides = ["--manifest", str(path), "--root", str(tmp_path / "models"), "--views", "2", "--size", "16"]
    assert main([str(out), *overrides]) == 0
    with pytest.raises(ImageError, match=r"licence of 2 objects is not known \(boxes__one"):
        main([str(out), "--attribution", str(tmp_path / "ATTRIBUTION.md")])
    with pytest.raises(ImageError, match=r"has no manifest\.jsonl"):
        main([str(tmp_path), "--attribution", str(tmp_path / "ATTRIBUTION.md")])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"path": "../objects.csv"}, r"line 2: '\.\./objects.csv' lies outside"),
        ({"path": "boxes/three.obj"}, r"line 2: 'boxes/three.obj' is not a mesh file.*--root"),
        ({"model_rotation": "1 0 0"}, r"line 2: model_rotation '1 0 0' should be nine numbers"),
        ({"model_rotation": "2 0 0 0 1 0 0 0 1"}, "nine numbers of a rotation"),
        ({"model_rotation": "-1 0 0 0 1 0 0 0 1"}, "nine numbers of a rotation"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, changed, message):
    path = write_manifest(tmp_path, **changed)
    with pytest.raises(MeshError, match=message):
        manifest_objects(path, tmp_path / "models")


def test_unknown_splits_and_missing_columns_are_named(tmp_path):
    path = write_manifest(tmp_path)
    with pytest.raises(MeshError, match=r"no rows of split 'trian'; it has train, val"):
        manifest_objects(path, tmp_path / "models", split="trian")
    path.write_text("path,creator\na.obj,me\n")
    with pytest.raises(MeshError, match=r"the columns path and licence; licence is missing"):
        manifest_objects(path)
