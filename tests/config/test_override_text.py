"""What is typed for a key that takes text is that text."""

from pathlib import Path

import pytest
import yaml

from zero123s.commands.launch import main

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def dry_run(capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)

    def dry_run(*overrides, config="text-to-3d"):
        code = main(["--config", f"configs/{config}.yaml", "--train", "--dry-run", *overrides])
        captured = capsys.readouterr()
        return (code, yaml.safe_load(captured.out)) if code == 0 else (code, captured.err.strip().splitlines()[-1])

    return dry_run


@pytest.mark.parametrize(
    "text", ["a mug that says #1 dad", "a: b", "*x* dog", "!wow", "@home", "no", "007", "1e3", "[a], b"]
)
def test_text_is_taken_as_it_is_typed(dry_run, text):
    code, resolved = dry_run(f"data.prompt={text}", f"description={text}")
    assert (code, resolved["data"]["prompt"], resolved["description"]) == (0, text, text)


def test_quotes_and_null_keep_their_meaning(dry_run):
    _, resolved = dry_run('data.prompt="a: b"', "trainer.max_time=null", "system.exporter.formats=glb")
    assert (resolved["data"]["prompt"], resolved["trainer"]["max_time"]) == ("a: b", None)
    assert resolved["system"]["exporter"]["formats"] == ["glb"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("system.loss=[1,2]", "system.loss: expected a section with keys"),
        ("data.height.9=32", "data.height is a list of"),
        ("seed=99999999999999999999", "seed: a number of 20 digits"),
        ("trainer.max_steps=100000000000000000000", "expected 1 to 1,000,000,000"),
        ("data.default_elevation_deg=12,5", "data.default_elevation_deg: expected degrees"),
        ("trainer.precision=16", "Did you mean '16-mixed'?"),
        ("--trainer.max_steps=5", "without dashes: trainer.max_steps=5"),
        ("trainer/max_steps=5", "(set in command line)"),
        ("imports=.nan", "imports: '.nan' is not a name of a package"),
        ("data.image_path=nothing.png", "'nothing.png' does not exist"),
        ("data.image_path=https://a.com/b.png", "'https://a.com/b.png' is an address"),
        ("data.image_path=" + "x" * 300, "cannot be the path of a file: it is too long"),
        ("system.geometry_convert_from=" + "x" * 3000, "cannot be the path of a file: it is too long"),
        ("data.image_path=${HOME}/a.png", "${HOME} stands for the key 'HOME' of this configuration, and there is none"),
        ("data.image_path=", "data.image_path: is missing"),
        ("exporter.context_type=gl", "(set in command line)"),
        ("system.loss.lambda_sds={a: 1}", "(set in command line)"),
        ("system.background.color=[255,255,255]", "system.background.color: expected 3 numbers"),
        ("data.resolution_milestones=[100,50]", "data.resolution_milestones: expected increasing steps"),
        (
            "data.resolution_milestones=[1,2,3]",
            "3 data.resolution_milestones; give 4 or one number. (set in command line)",
        ),
        ("system.exporter.formats.7=obj", "system.exporter.formats is a list of 2"),
        ("system.background.color=#ffffff", "expected a list such as [1.0, 1.0, 1.0], got '#ffffff'"),
    ],
)
def test_the_sentence_names_what_was_typed(dry_run, word, message):
    code, error = dry_run(word, config="stable-zero123")
    assert code == 2
    assert message in error


def test_formats_are_separated_by_commas_or_set_singly(dry_run):
    assert dry_run("system.exporter.formats=glb,obj")[1]["system"]["exporter"]["formats"] == ["glb", "obj"]
    assert dry_run("system.exporter.formats.1=ply")[1]["system"]["exporter"]["formats"] == ["glb", "ply"]


def test_a_list_entry_is_set_by_index(dry_run):
    code, resolved = dry_run(
        "data.height.0=32", "data.width[0]=32", "trainer.max_steps=1000000000", config="stable-zero123"
    )
    assert (code, resolved["data"]["height"][0], resolved["data"]["width"][0]) == (0, 32, 32)
