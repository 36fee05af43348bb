"""Training the small model on one device, rehearsed on the CPU: packages, draws, exact resume, memory, what comes back."""

import importlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zero123s.data.base import BaseData
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123, save_zero123
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import read_model_config
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset
from zero123s.system.finetune import Zero123FinetuneSystem

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
WEIGHTS = FOLDER.parents[1] / "load" / "zero123" / "small_zero123.safetensors"
TINY_LIFTED = Path(__file__).parents[1] / "helpers" / "tiny_lifted.yaml"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scripts():
    """Return the scripts' modules by name, imported as where one is started by its path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield {
            name: importlib.import_module(name)
            for name in ("pack_renders", "device_views", "small_losses", "train_small")
        }


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("renders")
    render_dataset(procedural_objects(0, 8), folder, RenderSettings(views=4, supersample=1, shard_size=4))
    return folder


@pytest.fixture(scope="module")
def model():
    return load_zero123(str(WEIGHTS), dtype="fp32").requires_grad_(False)


def views_of(scripts, folder: Path):
    return scripts["device_views"].DeviceViews([scripts["device_views"].Source(folder, 1.0)], CPU)


@pytest.fixture
def pack(scripts, renders, tmp_path, monkeypatch):
    """Return a function that packs the renders into so many MB and returns what the package and the folder hold."""

    def pack(mb: float):
        packing = scripts["pack_renders"]
        monkeypatch.setattr(
            "sys.argv", ["pack_renders.py", str(renders), "--out", str(tmp_path / "p"), "--mb", str(mb)]
        )
        assert packing.main() == 0
        return packing.read_pack(tmp_path / "p"), packing.read_folder(renders)

    return pack


def test_a_package_is_lossless_where_it_fits(scripts, pack):
    packed, original = pack(10)
    covered = original.images[..., 3:] > 0
    assert np.array_equal(packed.images * covered, original.images * covered)
    assert np.array_equal(packed.azimuth_deg, original.azimuth_deg)
    assert packed.object_ids == original.object_ids


def test_a_smaller_package_keeps_alpha_and_fits(scripts, pack):
    packed, original = pack(0.035)
    assert np.array_equal(packed.images[..., 3], original.images[..., 3])
    assert 15 < scripts["pack_renders"].foreground_psnr(packed.images, original.images).mean() < 60


def test_a_draw_depends_on_its_step_alone(scripts, renders):
    views = views_of(scripts, renders)
    one, same, other = (views.draw(3, step, 64, 2) for step in (5, 5, 6))
    assert torch.equal(one.rgba, same.rgba)
    assert not torch.equal(one.azimuth_deg, other.azimuth_deg)
    assert one.elevation_deg[:, 0].min() >= -10
    assert one.elevation_deg[:, 0].max() <= 45
    assert all(len(set(row)) == 3 for row in one.elevation_deg.tolist())


def test_sources_that_grow_keep_their_shares(scripts, renders, tmp_path):
    source = scripts["device_views"].Source
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    shards = sorted(renders.glob("shard_*"))
    shutil.copy(shards[0], tmp_path / "a")
    sources = [source.parse(f"{tmp_path}/a:3"), source.parse(str(tmp_path / "b"))]
    views = scripts["device_views"].DeviceViews(sources, CPU)
    assert len(views.images) == 4
    shutil.copy(shards[1], tmp_path / "b")
    assert views.grow() == 4
    assert views.grow() == 0
    assert math.isclose(float(views.cumulative[3]), 0.75)  # of the four objects of a


def test_recolouring_keeps_greys_and_poses(scripts, renders):
    views = views_of(scripts, renders).draw(0, 0, 64, 2)
    grey = replace(views, rgba=views.rgba[..., :1].expand(-1, -1, -1, -1, 4).contiguous())
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(scripts["device_views"].recoloured(grey, generator).rgba, grey.rgba)
    assert not torch.equal(scripts["device_views"].recoloured(views, generator).rgba, views.rgba)


def test_mirrored_views_are_as_plausible_to_the_lift(scripts, renders, model):
    views = views_of(scripts, renders).fixed_pairs()
    mirrored = scripts["device_views"].mirrored(views, torch.Generator().manual_seed(0), share=1.0)
    wrong = replace(mirrored, azimuth_deg=views.azimuth_deg)
    colour = scripts["small_losses"].ColourError(model, views.on_white()[:, 0], 0.5)
    right, same, worse = (
        float(scripts["small_losses"].losses(model, v, None, colour, bf16=False)["lift"])
        for v in (views, mirrored, wrong)
    )
    assert abs(same / right - 1) < 0.1
    assert worse > 1.2 * right


def test_losses_are_those_of_the_training_system(scripts, renders, model):
    views = views_of(scripts, renders).draw(0, 0, 4, 2)
    cfg = Zero123FinetuneSystem.Config(checkpoint=str(WEIGHTS), lambda_lift=1.0)
    system = Zero123FinetuneSystem(cfg, BaseData(BaseData.Config()))
    noising = scripts["small_losses"].draw_noising(model, (8, 4, 16, 16), 0.4, 0, 0)
    latents = model.encode_image(views.on_white().flatten(0, 1)).unflatten(0, (4, 3))
    theirs = system._losses(replace(views, latents=latents), noising, {"lift": 1.0, "denoise": 1.0, "mirror": 0.0})
    plain = scripts["small_losses"].ColourError(model, views.on_white()[:, 0], 0.0)
    ours = scripts["small_losses"].losses(model, views, noising, plain, bf16=False)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name].detach(), rtol=1e-4, atol=0)


def test_the_colour_error_weighs_as_much_on_average(scripts, renders, model):
    rgb = views_of(scripts, renders).fixed_pairs().on_white().flatten(0, 1)
    colour = scripts["small_losses"].ColourError(model, rgb, 0.5)
    assert colour.unexplained < 0.1
    noise = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert math.isclose(float(colour(noise)), float(noise.square().mean()), rel_tol=0.03)


@pytest.fixture
def train(scripts, renders, tmp_path, monkeypatch):
    """Return a function that trains with these words and returns the written state."""
    monkeypatch.setattr(scripts["train_small"], "LOG_EVERY", 2)
    monkeypatch.setattr(scripts["train_small"], "COLOUR_IMAGES", 16)

    def train(name: str, *words: str):
        state = tmp_path / f"{name}.pt"
        fixed = ["--device", "cpu", "--data", str(renders), "--targets", "1", "--objects", "2"]
        assert scripts["train_small"].main([*fixed, "--out", str(tmp_path / name), "--state", str(state), *words]) == 0
        return torch.load(state, weights_only=True)

    return train


@pytest.fixture(scope="module")
def toy_weights(tmp_path_factory):
    """Weights of the small model's structure at toy size, for what does not depend on how good they are."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("toy") / "zero123.safetensors"
    save_zero123(build_model(read_model_config(TINY_LIFTED)), path)
    return str(path)


def test_a_resumed_run_equals_an_uninterrupted_one(scripts, train, toy_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(scripts["train_small"], "PART_BYTES", 1_000_000)
    whole = train("whole", "--weights", toy_weights, "--steps", "4", "--seconds", "10000")
    stopped = train("parts", "--weights", toy_weights, "--steps", "4", "--seconds", "0")
    resumed = train("parts", "--weights", toy_weights, "--seconds", "10000", "--resume")
    assert (tmp_path / "parts" / "zero123.part1").is_file()
    assert (stopped["step"], resumed["step"], whole["step"]) == (2, 4, 4)
    for part in ("model", "average"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items())
    assert scripts["train_small"].main(["join", str(tmp_path / "parts")]) == 0
    joined = load_zero123(str(tmp_path / "parts" / "zero123.safetensors"), dtype="fp32").state_dict()
    learned = [name for name in resumed["average"] if name != "n_updates"]
    assert all(torch.equal(joined[name], resumed["average"][name].half().float()) for name in learned)


def test_short_memory_halves_the_objects(scripts, train, toy_weights, monkeypatch, capsys):
    losses = scripts["train_small"].losses

    def scarce(model, views, *rest, **options):
        if len(views.rgba) > 1:
            raise RuntimeError("CUDA out of memory.")
        return losses(model, views, *rest, **options)

    monkeypatch.setattr(scripts["train_small"], "losses", scarce)
    words = ["--weights", toy_weights, "--steps", "2", "--denoise-weight", "0"]
    assert train("scarce", *words)["n_objects"] == 1
    assert "2 objects a step need more memory than there is; taking 1" in capsys.readouterr().out


def test_validation_scores_and_draws_held_out_objects(scripts, train, renders, tmp_path, monkeypatch):
    monkeypatch.setattr(scripts["small_losses"], "SAMPLE_STEPS", 2)
    train("scored", "--steps", "2", "--denoise-weight", "0", "--val", str(renders))
    lines = [json.loads(line) for line in (tmp_path / "scored" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2]
    assert 10 < lines[0]["lift_psnr"] < 40
    assert {"parts.json", "sheet.png", "sheet_start.png", "zero123.part0", "zero123.part1"} < {
        path.name for path in (tmp_path / "scored").iterdir()
    }
