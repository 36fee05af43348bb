"""Everything that docs/extending.md and the example package promise, run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from zero123s.commands.launch import main
from zero123s.data import DATA
from zero123s.errors import ConfigError
from zero123s.exporter import EXPORTERS
from zero123s.geometry import GEOMETRIES
from zero123s.guidance import GUIDANCES
from zero123s.guidance.sds import VARIANTS
from zero123s.losses import TERMS
from zero123s.ops.cameras import orbit_cameras
from zero123s.run.plugins import load_plugins

pytestmark = pytest.mark.end_to_end

REPOSITORY = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "extending.md").read_text(), flags=re.DOTALL)
IMAGE = REPOSITORY / "load" / "images" / "hamburger_rgba.png"
YAML = """
name: extended
use_timestamp: false
data_type: red-ball-data
data: {size: 0.4}
system:
  geometry_type: my-ball
  geometry: {radius: 0.7, start_size: 0.2}
  renderer: {num_samples_per_ray: 64, grid_prune: false}
  exporter_type: point-exporter
  exporter: {n_points: 4000}
  loss: {lambda_rgb: 10.0, lambda_mask: 10.0, lambda_darkness: [0, 0.0, 0.001, 300]}
  optimizer: {name: Adam, args: {lr: 0.02}}
trainer: {max_steps: 40, val_check_interval: 0, enable_progress_bar: false}
"""
NAMES = ("rendered", "noised", "denoised")
GUIDED = [
    "data_type=single-image-datamodule",
    f"data.image_path={IMAGE}",
    *(f"data.{key}=16" for key in ("height", "width", "random_camera.height", "random_camera.width")),
    *(f"data.random_camera.{key}=16" for key in ("eval_height", "eval_width")),
    "data.random_camera.n_test_views=1",
    "data.default_camera_distance=3.8",
    "data.default_fovy_deg=20",
    "data.random_camera.camera_distance_range=[3.8,3.8]",
    "data.random_camera.fovy_range=[20,20]",
    "system.loss.lambda_sds=0.1",
    "trainer.max_steps=2",
]


@pytest.fixture(scope="module", autouse=True)
def documented():
    """Run the page's blocks in order, then forget what they registered."""
    tables = [r._classes for r in (DATA, GEOMETRIES, GUIDANCES, EXPORTERS)] + [TERMS, VARIANTS]
    before = [dict(t) for t in tables]
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/extending.md block {number}", "exec"), {"__name__": f"extending_{number}"})
    load_plugins(["example_package"])
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "extended.yaml").write_text(YAML)

    def launch(*overrides):
        base = ["--config", str(tmp_path / "extended.yaml"), "--train", f"exp_root_dir={tmp_path / 'out'}"]
        assert main([*base, *overrides]) == 0
        (record,) = tmp_path.glob("out/extended/*/run.json")
        return json.loads(record.read_text()), record.parent

    return launch


def test_the_documented_classes_find_the_ball(launch):
    record, folder = launch()
    state = torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]
    assert record["metrics"]["mask_iou"] > 0.85  # 16 pixels wide, so the rim counts for much
    assert float(state["geometry.size"]) > 0.24, "the soft rim makes up for the rest"
    red, green, blue = torch.sigmoid(state["geometry.color"]).tolist()
    assert red > 0.55
    assert max(green, blue) < 0.45
    points = np.loadtxt(folder / record["files"]["xyz"])
    assert len(points) == record["export"]["points"] > 100
    assert np.linalg.norm(points[:, :3], axis=1).max() < 0.5
    header = next(folder.glob("csv_logs/*/metrics.csv")).read_text().split("\n")[0]
    assert "loss/reference/darkness" in header


def test_the_documented_guidance_guides(launch):
    record, folder = launch(*GUIDED, "system.guidance_type=mean-color-guidance")
    assert record["state"] == "finished"
    header = next(folder.glob("csv_logs/*/metrics.csv")).read_text().split("\n")[0]
    assert "loss/novel/sds" in header


def test_the_example_package_takes_part_in_a_run(launch, tiny_zero123, capsys):
    overrides = [
        *GUIDED,
        "imports=[example_package]",
        "system.geometry_type=symmetric-volume",
        "system.geometry.radius=0.7",
        "system.geometry.pos_encoding_config.log2_hashmap_size=12",
        "system.guidance_type=annealed-zero123-guidance",
        "system.guidance.strength=[0,1.0,0.0,100]",
        "system.freq.guidance_eval=1",
        *tiny_zero123,
    ]
    record, folder = launch(*overrides)
    assert record["model"]["path"].endswith("tiny.ckpt")
    assert {p.name for p in (folder / "save").glob("it1-*.png")} == {f"it1-guidance-{n}.png" for n in NAMES}


def test_the_example_geometry_is_symmetric():
    cls = GEOMETRIES.get("symmetric-volume")
    geometry = cls(cls.Config())
    x = torch.rand(64, 3) - 0.5
    mirror = torch.tensor([1.0, -1.0, 1.0])
    torch.testing.assert_close(geometry.density(x), geometry.density(mirror * x))
    assert not torch.allclose(geometry.encode(x), geometry.encode(-mirror * x))


def test_a_documented_variant_works_with_our_guidance(tiny_text_model):
    cls = GUIDANCES.get("stable-diffusion-guidance")
    settings = {"prompt": "a ball", "checkpoint": str(tiny_text_model), "weighting": "uniform", "micro_batch": 1}
    guide = cls(cls.Config(variant="bounded-sds", **settings), None)
    rgb = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    cameras = orbit_cameras(10.0, torch.tensor([0.0, 90.0]))
    out = guide(rgb, cameras, 0, torch.Generator().manual_seed(1))
    posterior_noise, t, noise, _ = guide.draw(2, 0, torch.Generator().manual_seed(1))
    with torch.no_grad():
        noised = guide.model.add_noise(guide.encode(rgb, posterior_noise), noise, t)
        uncond, cond = guide.predict(noised, t, guide.condition(cameras))
    expected = uncond - noise + guide.cfg.guidance_scale * (cond - uncond).tanh()
    torch.testing.assert_close(out.grad_norm, expected.norm(), rtol=1e-4, atol=0)
    with pytest.raises(ConfigError, match=r"system\.guidance\.variant: 'csdd' is not known\. Did you mean 'csd'"):
        cls.Config(variant="csdd", **settings)
