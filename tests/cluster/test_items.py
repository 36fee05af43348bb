"""What a batch's source may be, and the table, page and records, without Ray."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from zero123s.cluster.batch import summary
from zero123s.cluster.items import read_items
from zero123s.cluster.manifest import file_hashes, finished_record, read_checked, write_checked
from zero123s.cluster.summary_page import write_page
from zero123s.commands.batch import main
from zero123s.errors import ConfigError


def test_folders_and_lists_name_images_in_order(image_folder, tmp_path):
    (image_folder / "p0_depth.png").write_bytes((image_folder / "p0.png").read_bytes())
    (image_folder / "notes.md").write_text("no image")
    assert [i.name for i in read_items(image_folder)] == ["p0", "p1", "p2", "p3"]
    (tmp_path / "list.txt").write_text("# mine\npictures/p2.png\n\npictures/p1.png\npictures/p2.png\n")
    assert [i.name for i in read_items(tmp_path / "list.txt")] == ["p2", "p1", "p2-2"]


def test_a_csv_has_settings_for_each(image_folder, tmp_path):
    (tmp_path / "a.csv").write_text(
        "image,name,elevation,seed,trainer.max_steps,overrides\n"
        "pictures/p0.png,front,20,,9,system.fail_at=2 tag='a b'\npictures/p1.png,,,7,,\n"
    )
    first, second = read_items(tmp_path / "a.csv")
    assert (first.name, second.name) == ("front", "p1")
    assert first.overrides == ("data.default_elevation_deg=20", "trainer.max_steps=9", "system.fail_at=2", "tag=a b")
    assert second.overrides == ("seed=7",)
    assert first.fingerprint("x") != second.fingerprint("x")
    assert first.fingerprint("x") != first.fingerprint("y")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "photo\np.png\n", "unknown column 'photo'"),
        ("a.csv", "name\nx\n", "no column 'image'"),
        ("a.csv", "image,elevatoin\np.png,3\n", "Did you mean 'elevation'"),
        ("a.csv", "image,seed\npictures/p0.png\n", "line 2: has not 2 fields"),
        ("a.csv", "image,overrides\npictures/p0.png,max_steps\n", "line 2: 'max_steps' is not an override"),
        ("a.csv", "image,elevation\npictures/p0.png,high\n", "line 2: column .elevation.: .*'high'"),
        ("a.csv", "image,seed\npictures/p0.png,abc\n", "line 2: column .seed.: expected a whole number"),
        ("a.csv", "image\nnowhere.png\n", "nowhere.png' is not a file"),
        ("a.txt", "\n", "names no image"),
    ],
)
def test_mistakes_in_lists_are_reported_with_their_line(name, text, message, image_folder, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_items(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "separator", "encoding", "above"),
    [
        ("a.csv", ";", "utf-8", ""),
        ("a.csv", "\t", "utf-16", ""),
        ("a.tsv", "\t", "utf-8", ""),
        ("a.csv", ";", "utf-8-sig", "sep=;\n"),
        ("a.csv", "|", "utf-8", ""),
    ],
)
def test_csv_dialects_of_spreadsheets_are_recognised(name, separator, encoding, above, image_folder, tmp_path):
    lines = "Image;Name;elevation\npictures/p0.png;front;12,5\n"
    (tmp_path / name).write_bytes((above + lines.replace(";", separator)).encode(encoding))
    (item,) = read_items(tmp_path / name)
    assert (item.name, item.overrides) == ("front", ("data.default_elevation_deg=12.5",))


def test_a_list_in_another_encoding_is_reported(tmp_path):
    (tmp_path / "a.csv").write_bytes("image\nü.png\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not text in UTF-8; save the list as CSV"):
        read_items(tmp_path / "a.csv")


def test_images_named_like_companions_are_not_lost(image_folder, tmp_path, batch_config, capsys):
    (image_folder / "stone_normal.png").write_bytes((image_folder / "p0.png").read_bytes())  # there is no stone.png
    (image_folder / "p0_steps.png").write_bytes(b"")
    (image_folder / "more").mkdir()
    (image_folder / "more" / "a.png").write_bytes((image_folder / "p0.png").read_bytes())
    assert [i.name for i in read_items(image_folder)] == ["p0", "p1", "p2", "p3", "stone_normal"]
    assert main([str(image_folder), "--out", str(tmp_path / "o"), "--config", str(batch_config), "--dry-run"]) == 0
    assert "1 folder left out: more." in capsys.readouterr().err


def test_a_dry_run_reads_every_image(image_folder, tmp_path, batch_config, capsys):
    (image_folder / "p1.png").write_bytes(b"")
    (image_folder / "page.jpg").write_text("<html>")
    assert main([str(image_folder), "--out", str(tmp_path / "o"), "--config", str(batch_config), "--dry-run"]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("run  ") == 3
    assert "p1.png' is empty" in printed.err
    assert "page.jpg' is not an image" in printed.err
    assert "2 of 5 images cannot be used" in printed.err


def test_a_dry_run_judges_cut_outs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    (tmp_path / "photos").mkdir()
    for name, corner in (("cut", (0, 0)), ("whole", (60, 40))):
        photo = Image.new("RGB", (240, 160), (225, 225, 215))
        photo.paste((200, 40, 10), (*corner, 200, 130))
        photo.save(tmp_path / "photos" / f"{name}.png")
    config = Path(__file__).parents[2] / "configs" / "stable-zero123.yaml"
    arguments = [str(tmp_path / "photos"), "--out", str(tmp_path / "o"), "--config", str(config), "--dry-run"]
    for prepare in ([], ["--prepare"]):
        assert main([*arguments, *prepare]) == 1
        printed = capsys.readouterr()
        assert [line.split()[:2] for line in printed.out.splitlines()] == [["bad", "cut"], ["run", "whole"]]
        assert "cut: The cut-out of" in printed.err
        assert "1 of 2 images cannot be used" in printed.err
    assert main([*arguments, "data.cut_out.force=true"]) == 0


def test_a_folder_names_the_files_it_leaves_out(image_folder, batch_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zero123s.cluster.items.readable_suffixes", lambda: (".png", ".jfif", ".gif"))  # no heif extra
    for name in ("a.jfif", "b.gif"):
        Image.open(image_folder / "p0.png").convert("RGB").save(image_folder / name)
    for name in ("IMG_1.HEIC", "IMG_2.heic", "notes.md"):
        (image_folder / name).write_bytes(b"x")
    assert main([str(image_folder), "--out", str(tmp_path / "o"), "--config", str(batch_config), "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("run ") == 6
    assert "3 files left out: IMG_1.HEIC, IMG_2.heic, notes.md. 2 of them HEIC" in printed.err
    assert "pip install -e '.[heif]'" in printed.err


def test_a_dry_run_checks_every_item_writing_nothing(image_folder, batch_config, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--config", str(batch_config), "--dry-run"]
    assert main([str(image_folder), *arguments]) == 0
    assert capsys.readouterr().out.count("run ") == 4
    assert not (tmp_path / "out").exists()
    (tmp_path / "a.csv").write_text("image,system.fial_at\npictures/p1.png,3\n")
    with pytest.raises(ConfigError, match=r"p1: Unknown key 'system.fial_at'. Did you mean 'system.fail_at'"):
        main([str(tmp_path / "a.csv"), *arguments])
    (tmp_path / "a.csv").write_text("image,seed\npictures/p1.png,1\npictures/p1.png,99999999999999999999\n")
    with pytest.raises(ConfigError, match="line 3: column 'seed': a number of 20 digits is out of range"):
        main([str(tmp_path / "a.csv"), *arguments])
    (tmp_path / "a.csv").write_text("image,trainer.max_steps\npictures/p1.png,five\n")
    with pytest.raises(ConfigError, match=r"got 'five'. \(set in .*a.csv\)"):
        main([str(tmp_path / "a.csv"), *arguments])
    with pytest.raises(ConfigError, match=r"without dashes: trainer\.max_steps=5"):
        main([str(image_folder), *arguments, "--trainer.max_steps=5"])
    with pytest.raises(ConfigError, match=r"a.csv: is a file"):
        main([str(image_folder), *arguments, "--out", str(tmp_path / "a.csv")])
    with pytest.raises(ConfigError, match="--retries"):
        main([str(image_folder), *arguments, "--retries", "-1"])
    with pytest.raises(ConfigError, match="does not exist"):
        main(["nowhere", *arguments])


def test_records_are_complete_only_with_unchanged_files(tmp_path):
    (tmp_path / "mesh.glb").write_bytes(b"mesh")
    record = {"state": "finished", "fingerprint": "f", "sha256": file_hashes(tmp_path, [tmp_path / "mesh.glb"])}
    write_checked(tmp_path / "item.json", record)
    assert finished_record(tmp_path, "f") == record
    assert finished_record(tmp_path, "g") is None
    (tmp_path / "mesh.glb").write_bytes(b"mess")
    assert finished_record(tmp_path, "f") is None
    text = (tmp_path / "item.json").read_text()
    (tmp_path / "item.json").write_text(text.replace("finished", "finisked"))
    assert read_checked(tmp_path / "item.json") is None
    (tmp_path / "item.json").write_text(text[:-9])
    assert read_checked(tmp_path / "item.json") is None


def test_the_summary_counts_items_and_lost_workers():
    records = [{"state": "finished"}, {"state": "finished"}, {"state": "failed"}]
    assert summary(6, records, 1) == "3 of 6, 1 failed, 2 finished, 1 workers replaced"


def test_the_page_escapes_what_people_call_their_images(tmp_path):
    record = {"name": "<b>", "state": "finished", "metrics": {"psnr": 20.0}, "files": {"glb": "export/model.glb"}}
    page = write_page(tmp_path, [record], "1 & done").read_text()
    assert "<b>" not in page
    assert 'href="items/%3Cb%3E/export/model.glb"' in page
    assert "1 &amp; done" in page
    assert json.dumps("psnr")[1:-1] in page
