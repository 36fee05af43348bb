"""The main job from Python: results, progress, cancellation; and the notebook in docs/."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_system
import torch
from omegaconf import OmegaConf
from PIL import Image
from tiny_run import SMALL

import zero123s
from zero123s import image_to_mesh, novel_views, prepare, read_result
from zero123s.api import RunInterrupted, to_dotlist
from zero123s.commands.evaluate import main as evaluate
from zero123s.errors import ConfigError, ImageError
from zero123s.images.pixels import to_rgba
from zero123s.run.plan import plan_run

pytestmark = pytest.mark.end_to_end

REPOSITORY = Path(__file__).parents[1]
TINY = [
    *SMALL,
    "threads=1",
    "data.random_camera.n_val_views=2",
    "system.exporter.texture_size=64",
    "system.exporter.poster=false",
    "system.exporter.max_faces=500",
]
NOTEBOOK = REPOSITORY / "docs" / "from_python.ipynb"


@pytest.fixture
def words(tiny_zero123, tmp_path):
    return [*TINY, "trainer.max_steps=3", *tiny_zero123, f"exp_root_dir={tmp_path / 'out'}"]


def test_an_image_becomes_mesh_images_and_metrics(disc_path, words):
    reports = []
    result = image_to_mesh(disc_path, overrides=words, callback=reports.append)
    assert result.mesh is not None
    assert len(result.mesh.faces) > 0
    assert {"psnr", "mask_iou"} <= set(result.metrics)
    assert {k: v.shape for k, v in result.images.items()} == dict.fromkeys(
        ("color", "normal", "depth", "opacity"), (2, 16, 16, 3)
    )
    opacity = result.images["opacity"]
    assert np.array_equal(opacity[..., 0], opacity[..., 1]), "a grey image, so the strip was cut at the right places"
    assert result.files["glb"].is_file()
    assert result.files["turntable"].is_file()
    assert [p.step for p in reports if p.stage == "train"] == [1, 2, 3]
    assert [p.stage for p in reports if p.stage != "train"] == ["validate", "test", "export"]
    assert reports[0].losses["total"] > 0
    assert next(iter(reports[0].losses)) == "total"
    assert reports[2].seconds_left == 0
    again = read_result(result.run_dir)
    assert np.array_equal(again.mesh.vertices, result.mesh.vertices)


def test_a_callback_returning_false_stops_the_run(disc_path, words):
    with pytest.raises(RunInterrupted, match=r"step 2; overrides=\['resume=(.*)'\]") as stopped:
        image_to_mesh(disc_path, overrides=words, callback=lambda p: p.step < 2)
    folder = Path(str(stopped.value).split("resume=")[1].split("'")[0])
    assert json.loads((folder / "run.json").read_text())["state"] == "interrupted"
    result = image_to_mesh(overrides=[*words, f"resume={folder}", "export_after_train=false"])
    assert result.run_dir == folder.resolve()
    assert result.record["step"] == 3
    assert result.mesh is None


def test_images_in_memory_are_saved_with_run(disc_path, words):
    image = to_rgba(Image.open(disc_path))
    result = image_to_mesh(image, overrides=[*words, "trainer.max_steps=1", "export_after_train=false"])
    assert result.mesh is None
    assert np.array_equal(to_rgba(result.run_dir / "input_rgba.png"), image)


def test_overrides_may_be_a_mapping():
    nested = {"trainer": {"max_steps": 3}, "data.height": [16, 32], "tag": "a b", "system": {"loss": {"lambda_sds": 0}}}
    assert to_dotlist(nested) == [
        "trainer.max_steps=3",
        "data.height=[16, 32]",
        'tag="a b"',
        "system.loss.lambda_sds=0",
    ]
    with pytest.raises(ConfigError, match="list of key=value strings"):
        to_dotlist("trainer.max_steps=3")


def test_prepare_takes_files_and_arrays(tmp_path, tiny_weights):
    photo = np.full((64, 96, 3), 230, np.uint8)
    photo[16:48, 30:60] = (200, 40, 30)
    rgba = prepare(photo, size=64)
    assert rgba.shape == (64, 64, 4)
    assert abs((rgba[..., 3] > 0.5).any(axis=0).sum() - 50 * 30 / 32) <= 3, "200/256 of the frame, longer side"
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert np.array_equal(prepare(tmp_path / "photo.png", size=64), rgba)
    noise = np.random.default_rng(0).random((64, 64, 3))
    with pytest.raises(ImageError, match=r"force=True|No object"):
        prepare(noise)
    with pytest.raises(ImageError, match="not an image"):
        prepare(np.zeros((4, 4)))
    with pytest.raises(ImageError, match="floats from 0 to 1"):
        prepare(7.0 * np.ones((64, 64, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "nowhere.png"}, "does not exist"),
        ({"config": "configs/stable-zero124.yaml"}, "Did you mean 'stable-zero123.yaml'"),
        ({"overrides": ["trainer.max_step=3"]}, "Did you mean 'trainer.max_steps'"),
        ({"image": np.ones((32, 32, 4))}, "No object was found"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, words, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    more = arguments.pop("overrides", [])
    with pytest.raises((ConfigError, ImageError), match=message):
        image_to_mesh(**arguments, overrides=[*words, *more])


def test_public_names_are_listed_without_importing():
    assert set(zero123s.__all__) <= set(dir(zero123s))
    assert novel_views.__module__ == "zero123s.diffusion.novel_views"
    with pytest.raises(AttributeError, match="image_to_mash"):
        _ = zero123s.image_to_mash


def test_the_notebook_runs(tmp_path, tiny_zero123, disc_path, monkeypatch, capsys):
    """Its cells in order; the settings of the tagged cell are replaced by tiny ones, as papermill does."""
    monkeypatch.chdir(tmp_path)
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert book["nbformat"] == 4
    cells = [c for c in book["cells"] if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in cells), "a notebook is kept without outputs"
    checkpoint, config = (w.split("=", 1)[1] for w in tiny_zero123)
    tiny = {
        "PICTURE": str(disc_path),
        "SETTINGS": [*TINY, *tiny_zero123],
        "MODEL": {"checkpoint": checkpoint, "model_config": config},
        "SAMPLING": {"steps": 2},
    }
    names: dict = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"from_python.ipynb cell {number}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert set(tiny) <= set(names)
            names |= tiny
    assert names["result"].mesh is not None
    assert names["views"].shape[0] == 3
    assert names["result"].run_dir.resolve().is_relative_to(tmp_path / "outputs")
    assert "step 2 of 2, 0 s left: total" in capsys.readouterr().out


# ---------------------------------------------------------------- natural Python values


def test_natural_values_of_overrides_are_understood():
    natural = {"exp_root_dir": Path("o"), "trainer.max_steps": np.int64(2), "a": {"b": np.float32(0.5)}, "c": {"x"},
               "d": (1, np.arange(2)), "e": None, "f": {0: 1.0, 100: 0.5}, "g": range(2), "h": OmegaConf.create([3]),
               "i": Fraction(1, 2)}  # fmt: skip
    assert to_dotlist(natural) == [
        'exp_root_dir="o"', "trainer.max_steps=2", "a.b=0.5", 'c=["x"]', "d=[1, [0, 1]]", "e=!!null",
        'f={"0": 1.0, "100": 0.5}', "g=[0, 1]", "h=[3]", "i=0.5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overrides": 5}, "overrides=5"),
        ({"overrides": [("a", 1)]}, r"overrides: \('a', 1\) is not a word"),
        ({"overrides": {"tag": object()}}, "overrides: 'tag' is a object"),
        ({"gpu": 0.5}, "gpu=0.5"),
        ({"gpu": True}, "gpu=True"),
        ({"gpu": []}, r"gpu=\[\]"),
        ({"callback": 3}, "callback=3"),
        ({"config": None}, "config=None"),
        ({"image": np.zeros((0, 0, 4), np.uint8)}, r"image: an array \(0, 0, 4\)"),
        ({"image": np.zeros((8, 8, 4), "S1")}, "image: an array"),
        ({"image": np.zeros((3, 3, 4), np.uint8)}, "image: 3 x 3 pixels"),
        ({"image": 7}, "image: a int is not an image"),
        ({"image": b""}, "the given bytes"),
        ({"image": " "}, "path of the image is empty"),
        ({"image": "https://example.com/a.png"}, "'https://example.com/a.png' is an address"),
        ({"image": np.zeros((32, 32, 4), np.uint8)}, "image: the image is fully transparent"),
        ({"image": np.ones((32, 32, 4), bool)}, "image: an array of bool should hold"),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(arguments, message, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises((ConfigError, ImageError), match=message) as raised:
        image_to_mesh(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tag": None}, "tag: expected text, got null"),
        ({"system.exporter.formats": None}, "system.exporter.formats: expected a list"),
        ({"trainer.max_steps": {"a": 2}}, r"trainer.max_steps: .*\(set in command line\)"),
    ],
)
def test_none_and_mappings_where_there_can_be_none(overrides, message, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ConfigError, match=message):
        image_to_mesh(overrides=overrides)


def test_none_is_null_for_nullable_keys(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    _, plan = plan_run("configs/stable-zero123.yaml", to_dotlist({"resume": None, "trainer.max_time": None}))
    assert (plan.experiment.resume, plan.experiment.trainer.max_time) == (None, None)


@pytest.mark.parametrize("size", [512.0, (256, 256), 0, -1, True, "big", 10_000, None])
def test_a_size_that_is_none_is_named(size):
    with pytest.raises(ImageError, match=r"^size="):
        prepare(np.zeros((32, 32, 3), np.uint8), size=size)


def test_images_come_as_bytes_and_open_files_too(tmp_path):
    photo = np.full((64, 96, 3), 230, np.uint8)
    photo[16:48, 30:60] = (200, 40, 30)
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    expected = prepare(path, size=64)
    assert np.array_equal(prepare(path.read_bytes(), size=np.int64(64)), expected)
    assert np.array_equal(prepare(io.BytesIO(path.read_bytes()), size=64), expected)
    with open(path, "rb") as file:
        file.read(10)
        assert np.array_equal(prepare(file, size=64), expected)
    with_gradient = torch.tensor(photo / 255, dtype=torch.float32, requires_grad=True)
    for same in (photo.astype(np.int64), torch.from_numpy(photo), with_gradient):
        assert np.array_equal(prepare(same, size=64)[..., 3] > 0.5, expected[..., 3] > 0.5)
    with open(path, encoding="latin-1") as file, pytest.raises(ImageError, match="mode 'rb'"):
        prepare(file)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ending_before_a_checkpoint_promises_none(error, tmp_path):
    def stop(progress):
        raise error

    (tmp_path / "tiny.yaml").write_text(tiny_system.CONFIG)
    with pytest.raises(RunInterrupted, match="before its first checkpoint") as raised:
        image_to_mesh(config=tmp_path / "tiny.yaml", overrides={"exp_root_dir": tmp_path / "out"}, gpu=0, callback=stop)
    assert "resume=" not in str(raised.value)
    result = image_to_mesh(config=tmp_path / "tiny.yaml", overrides={"exp_root_dir": tmp_path / "out"}, gpu=None)
    assert result.record["step"] == 4


def test_a_finished_run_can_be_moved(disc_path, words, tmp_path):
    """Its mesh, record and report are found in the new place and name no folder of the old one."""
    result = image_to_mesh(disc_path, overrides=[*words, "trainer.max_steps=1", "system.exporter.formats=[glb,gltf]"])
    moved = result.run_dir.rename(tmp_path / "moved")
    again = read_result(moved)
    assert again.mesh is not None
    assert again.files["glb"] == moved / "export" / "model.glb"
    assert all(path.is_file() for path in again.files.values())
    assert evaluate([str(moved)]) == 0
    places = (str(tmp_path), str(REPOSITORY), str(disc_path.parent))
    for path in (moved / "run.json", moved / "report.html", moved / "metrics.json", *moved.glob("export/model.*")):
        content = path.read_bytes()
        assert not [place for place in places if place.encode() in content], f"{path.name} names a folder"
