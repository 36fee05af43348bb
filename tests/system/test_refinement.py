"""The second stage: what it inherits, where it starts, and that it goes on and exports by itself."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from short_refinement import shorten_refinement
from tiny_run import SMALL

from zero123s.commands.launch import main
from zero123s.config.load import load_config
from zero123s.config.parse import parse
from zero123s.errors import ConfigError
from zero123s.run.plan import inherit_first_stage
from zero123s.system import refinement
from zero123s.system.visualize import score_reference
from zero123s.system.zero123 import Zero123System

pytestmark = pytest.mark.end_to_end

CONFIGS = Path(__file__).parents[2] / "configs"
REFINE = CONFIGS / "stable-zero123-refine.yaml"
REFINE_MESH = CONFIGS / "stable-zero123-refine-mesh.yaml"
WORDS = [
    *SMALL,
    "use_timestamp=false",
    "data.height=[12,16]",
    "data.width=[12,16]",
    "data.resolution_milestones=[1]",
    "data.default_elevation_deg=17",
    "system.geometry.radius=0.8",
    "system.geometry.pos_encoding_config.n_levels=6",
    "system.renderer.num_samples_per_ray=40",
]


@pytest.fixture(scope="module")
def first_run(disc_path, tiny_zero123, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("first")
    overrides = [*WORDS, *tiny_zero123, f"data.image_path={disc_path}", f"exp_root_dir={root}"]
    config = ["--config", str(CONFIGS / "stable-zero123.yaml"), "--profile", "none"]
    assert main([*config, "--train", *overrides]) == 0
    return root / "stable-zero123" / "disc_rgba"


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        shorten_refinement(patch, steps=60, resolution=48)
        yield


def refine(first_run, root, *overrides, mode="--train", config=REFINE):
    convert = [f"system.geometry_convert_from={first_run}"] if first_run else []
    start = ["--config", str(config), "--profile", "none", mode, f"exp_root_dir={root}"]
    return main([*start, *convert, "trainer.max_steps=2", *overrides])


@pytest.fixture(scope="module")
def second_run(first_run, few_steps, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("second")
    assert refine(first_run, root) == 0
    return root / "stable-zero123-refine" / "disc_rgba"


def test_it_inherits_all_left_at_its_default(first_run, second_run):
    one, two = (yaml.safe_load((run / "config.yaml").read_text()) for run in (first_run, second_run))
    for key in ("image_path", "default_elevation_deg", "random_camera"):
        assert two["data"][key] == one["data"][key], key
    assert two["data"]["height"] == 16, "it begins at the size at which the first ended"
    assert two["system"]["guidance"]["checkpoint"] == one["system"]["guidance"]["checkpoint"]
    assert two["system"]["guidance"]["max_step_percent"] == 0.5
    assert two["system"]["loss"]["lambda_sds"] == one["system"]["loss"]["lambda_sds"]
    assert (two["name"], two["tag"], two["use_timestamp"]) == ("stable-zero123-refine", one["tag"], False)
    geometry = two["system"]["geometry"]
    assert geometry["radius"] == 0.8
    assert geometry["pos_encoding_config"] == one["system"]["geometry"]["pos_encoding_config"]
    assert geometry["isosurface_threshold"] == 0.0, "a level of density means nothing to a distance"
    assert two["system"]["renderer"]["num_samples_per_ray"] == 40


def test_it_starts_at_the_surface_ends_with_mesh(second_run):
    record = json.loads((second_run / "run.json").read_text())
    assert record["first_stage"]["step"] == 2
    assert record["first_stage"]["surface_distance"] < 0.02
    assert (record["state"], record["step"]) == ("finished", 2)
    assert (second_run / record["files"]["glb"]).is_file()


def test_it_goes_on_without_its_first_stage(second_run, first_run, monkeypatch, capsys):
    monkeypatch.setattr(Zero123System, "start_from", lambda *_: pytest.fail("a run that goes on starts nowhere else"))
    overrides = ["--config", str(REFINE), "--profile", "none", f"resume={second_run}", "use_timestamp=false"]
    assert main([*overrides, "--export", "system.exporter.formats=[ply]", "system.exporter.poster=false"]) == 0
    assert (second_run / "export" / "model.ply").is_file()
    assert main([*overrides, "--train", "trainer.max_steps=3", "export_after_train=false"]) == 0
    assert json.loads((second_run / "run.json").read_text())["step"] == 3


def test_overrides_win_over_what_is_inherited(first_run, tmp_path):
    overrides = [
        f"system.geometry_convert_from={first_run}",
        "data.default_elevation_deg=30",
        "system.geometry.radius=1.1",
    ]
    loaded = inherit_first_stage(load_config(REFINE, overrides), overrides, None)
    assert (loaded.cfg.data.default_elevation_deg, loaded.cfg.system.geometry.radius) == (30, 1.1)
    assert loaded.cfg.data.image_path == str(
        yaml.safe_load((first_run / "config.yaml").read_text())["data"]["image_path"]
    )
    assert loaded.origins["data.image_path"] == str(first_run / "config.yaml")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "'system.geometry_convert_from' must be given"),
        (["system.geometry_convert_from=nowhere"], "nowhere: no such checkpoint or run folder"),
    ],
)
def test_a_missing_first_stage_is_reported(overrides, message, tmp_path, capsys):
    assert refine(None, tmp_path, *overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_without_its_folder_is_reported(first_run, tmp_path, capsys):
    lonely = tmp_path / "a" / "b.ckpt"
    lonely.parent.mkdir()
    lonely.write_bytes((first_run / "ckpts" / "last.ckpt").read_bytes())
    assert refine(lonely, tmp_path / "out") == 2
    assert "config.yaml, are missing" in capsys.readouterr().err


def test_a_geometry_without_a_distance_is_refused(first_run, tmp_path, capsys):
    overrides = ["system.geometry_type=implicit-volume", "system.renderer_type=nerf-volume-renderer"]
    assert refine(first_run, tmp_path, *overrides) == 2
    assert "use geometry_type: implicit-sdf instead of implicit-volume" in capsys.readouterr().err


def test_the_rasterised_stage_ends_with_a_mesh(first_run, second_run, tmp_path):
    assert refine(first_run, tmp_path, "system.renderer.grid_resolution=32", config=REFINE_MESH) == 0
    run = tmp_path / "stable-zero123-refine-mesh" / "disc_rgba"
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"]) == ("finished", 2)
    assert (run / record["files"]["glb"]).is_file()
    systems = [yaml.safe_load((folder / "config.yaml").read_text())["system"] for folder in (second_run, run)]
    renderers = [system.pop(key) for system in systems for key in ("renderer", "renderer_type")]
    assert renderers[3] == "mesh-rasterizer"
    assert renderers[2]["grid_resolution"] == 32
    rates = [system["optimizer"]["args"].pop("lr") for system in systems]
    assert rates == [1e-4, 3e-4]
    assert systems[0] == systems[1]
    overrides = [f"resume={run}", "use_timestamp=false", "trainer.max_steps=3", "export_after_train=false"]
    assert main(["--config", str(REFINE_MESH), "--profile", "none", "--train", *overrides]) == 0
    assert json.loads((run / "run.json").read_text())["step"] == 3


def system_of(data, geometry_type, renderer_type, **geometry) -> Zero123System:
    encoding = {"n_levels": 6, "log2_hashmap_size": 12, "base_resolution": 6}
    common = {"radius": 0.8, "pos_encoding_config": encoding, "mlp_network_config": {"n_neurons": 16}}
    section = {
        "geometry_type": geometry_type,
        "geometry": {**common, **geometry},
        "renderer_type": renderer_type,
        "material_type": "no-material",
        "loss": {"lambda_rgb": 10.0, "lambda_mask": 10.0, "lambda_eikonal": 0.1 if "sdf" in geometry_type else 0.0},
    }
    return Zero123System(parse(Zero123System.Config, section, "system"), data)


def test_surface_and_colours_are_taken_over(disc_data, monkeypatch):
    monkeypatch.setattr(refinement, "STEPS", 250)
    torch.manual_seed(0)
    first = system_of(disc_data, "implicit-volume", "nerf-volume-renderer", density_blob_scale=30.0)
    with torch.no_grad():
        first.geometry.encoding.table.normal_(0, 0.15)
    second = system_of(disc_data, "implicit-sdf", "neus-volume-renderer")
    before = second.geometry.encoding.table.clone()
    said = second.start_from(first)
    assert said["surface_distance"] < 0.005, "a cell of the finest level is 0.04"
    assert said["color_psnr_db"] > 30
    assert not torch.equal(before, second.geometry.encoding.table)
    with pytest.raises(ConfigError, match="not a run of a radiance field"):
        second.start_from(torch.nn.Module())


def test_rasterising_brings_the_surface_closer(disc_data, monkeypatch):
    monkeypatch.setattr(refinement, "STEPS", 150)
    first = system_of(disc_data, "implicit-volume", "nerf-volume-renderer", density_blob_scale=30.0)
    second = system_of(disc_data, "implicit-sdf", "mesh-rasterizer", normal_type="analytic")
    assert second.start_from(first)["surface_distance"] < 0.01
    image = disc_data.reference()
    before = score_reference(second, image)
    optimizer = torch.optim.Adam([*second.geometry.parameters()], lr=0.001, betas=(0.9, 0.99))
    for step in range(25):
        second.renderer.update(second.field(), step, second.generator("occupancy"))
        terms = second.reference_losses(image, step)
        optimizer.zero_grad()
        sum(term.weight * term.value for term in terms.values()).backward()
        optimizer.step()
    after = score_reference(second, image)
    assert set(terms) == {"rgb", "mask", "eikonal"}
    assert terms["eikonal"].value < 0.2, "it stays a distance at the surface"
    assert after["mask_iou"] > min(before["mask_iou"] + 0.05, 0.95)
    assert after["psnr"] > before["psnr"]
