"""The texts that `zero123s new` writes; @word@ is replaced."""

KINDS = ("geometry", "guidance", "loss", "exporter", "data")

CODE = {
    "geometry": '''
"""Geometry `@name@`: a soft ball whose size and colour are trained. Replace what is inside."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from zero123s.geometry.base import GEOMETRIES, BaseGeometry, GeometryOutput
from zero123s.config.options import option


@GEOMETRIES.register("@name@")
class @cls@(BaseGeometry):
    """A soft ball around the origin."""

    @dataclass
    class Config(BaseGeometry.Config):
        """Settings of `@name@`."""

        start_size: float = option(0.3, above=0.0)
        """Radius to start from, world units."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.n_features = 3
        self.size = torch.nn.Parameter(torch.tensor(cfg.start_size))
        self.color = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x, needs, generator=None):
        """Return density at x (N 3), and what `needs` names."""
        sigma = 200 * torch.sigmoid(30 * (self.size - x.norm(dim=-1)))
        features = self.color.expand(len(x), 3) if "features" in needs else None
        normal = F.normalize(x, dim=-1) if "normal" in needs else None
        return GeometryOutput(sigma=sigma, features=features, normal=normal)
''',
    "guidance": '''
"""Guidance `@name@`: every view shall have the input's mean colour. Replace what is inside."""

from dataclasses import dataclass

import torch

from zero123s.guidance.base import GUIDANCES, BaseGuidance
from zero123s.config.options import option
from zero123s.structures import GuidanceOutput


@GUIDANCES.register("@name@")
class @cls@(BaseGuidance):
    """Compares mean colours; no network at all."""

    @dataclass
    class Config(BaseGuidance.Config):
        """Settings of `@name@`."""

        strength: float = option(1.0, low=0.0)
        """Factor on the loss."""

    def __init__(self, cfg, reference, device="cpu"):
        super().__init__(cfg, reference, device)
        on_white = reference.rgb * reference.mask + 1 - reference.mask
        self.color = on_white[0].mean(dim=(0, 1)).to(self.device)

    def __call__(self, comp_rgb, cameras, step, generator):
        """Return the loss of rendered views (B H W 3)."""
        difference = comp_rgb.mean(dim=(1, 2)) - self.color
        timesteps = torch.zeros(len(cameras), dtype=torch.long, device=self.device)
        return GuidanceOutput(self.cfg.strength * difference.square().sum(), difference.detach().norm(), timesteps)
''',
    "loss": '''
"""Loss `lambda_@module@`: prefers dark objects. Replace what is inside."""

from zero123s.losses import term


@term("@module@", "both")
def @module@(view):
    """Mean brightness of what is rendered."""
    return (view.out.comp_rgb * view.out.opacity).mean()
''',
    "exporter": '''
"""Exporter `@name@`: coloured points as text. Replace what is inside."""

from dataclasses import dataclass

import numpy as np
import torch

from zero123s.exporter.base import EXPORTERS, BaseExporter, ExportResult
from zero123s.runtime.files import replacing
from zero123s.config.options import option
from zero123s.structures import Mesh


@EXPORTERS.register("@name@")
class @cls@(BaseExporter):
    """Writes points of the dense part, one "x y z r g b" a line."""

    @dataclass
    class Config(BaseExporter.Config):
        """Settings of `@name@`."""

        n_points: int = option(20_000, low=1)
        """Points to try."""

    def __call__(self, field, out_dir, *, threshold="auto", reference=None, extras=None, progress=None):
        """Write the points of `field` whose level is above the threshold."""
        level = 5.0 if threshold == "auto" else float(threshold)
        generator = torch.Generator().manual_seed(0)
        x = field.bound * (2 * torch.rand(self.cfg.n_points, 3, generator=generator) - 1)
        x = x[field.surface_level(x) > level]
        rgb = field.query(x, torch.zeros_like(x), frozenset({"rgb"})).rgb
        path = out_dir / f"{self.cfg.save_name}.xyz"
        with replacing(path, "w") as file:
            file.writelines(" ".join(f"{v:.4f}" for v in row) + "\\n" for row in torch.cat([x, rgb], dim=-1).tolist())
        mesh = Mesh(vertices=x.numpy(), faces=np.zeros((0, 3), dtype=np.int64))
        return ExportResult(mesh, {"xyz": path}, {"points": len(x)})
''',
    "data": '''
"""Data `@name@`: pictures of a red ball, computed on the fly. Replace what is inside."""

from dataclasses import dataclass

import torch

from zero123s.data.base import DATA, BaseData
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.config.options import option
from zero123s.randomness import generator_for
from zero123s.structures import Batch, ReferenceView


@DATA.register("@name@")
class @cls@(BaseData):
    """A red ball seen from random azimuths."""

    @dataclass
    class Config(BaseData.Config):
        """Settings of `@name@`."""

        size: float = option(0.4, above=0.0)
        """Radius of the ball, world units."""
        pixels: int = option(16, low=8)
        """Height and width of the pictures."""

    def _cameras(self, elevation_deg, azimuth_deg):
        return orbit_cameras(elevation_deg, azimuth_deg, 3.8, 20.0, self.cfg.pixels, self.cfg.pixels)

    def _views(self, cameras):
        rays = generate_rays(cameras)
        towards = (rays.rays_o * rays.rays_d).sum(-1, keepdim=True)
        mask = (towards**2 - rays.rays_o.square().sum(-1, keepdim=True) + self.cfg.size**2 > 0).float()
        return ReferenceView(cameras, mask * torch.tensor([1.0, 0.0, 0.0]), mask)

    def batch_at(self, step, micro_step=0, rank=0):
        """Return two views; they depend on the step alone, so that a resumed run repeats them."""
        azimuth = 360 * torch.rand(2, generator=generator_for(self.seed, step, "cameras", rank, micro_step))
        return Batch(self._views(self._cameras(10.0, azimuth)), novel=None)

    def reference(self):
        """Return the view that is scored."""
        return self._views(self._cameras(0.0, torch.zeros(1)))

    def eval_cameras(self, split):
        """Return the orbit that is drawn."""
        return self._cameras(15.0, torch.arange(0, 360, 90.0))
''',
}

_HEAD = """
# Tries `@name@` on a small scene; run it from the folder that holds custom/.
base: @base@
name: @name@
"""
_VIEWS = """
data:
  transforms_path: @views@
"""
_PICTURE = """
data_type: single-image-datamodule
data:
  image_path: @image@
  height: 64                     # pixels
  width: 64
  default_camera_distance: 3.8   # world units
  default_fovy_deg: 20.0         # degrees
  random_camera:
    camera_distance_range: [3.8, 3.8]
    fovy_range: [20.0, 20.0]
"""

CONFIG = {
    "geometry": f"{_HEAD}{_VIEWS}system:\n  geometry_type: @name@\n  geometry: {{radius: 0.7, start_size: 0.3}}\n",
    "guidance": f"{_HEAD}{_PICTURE}system:\n  guidance_type: @name@\n  guidance: {{strength: 1.0}}\n  loss: {{lambda_sds: 0.1}}\n",
    "loss": f"{_HEAD}{_VIEWS}system:\n  loss: {{lambda_@module@: 0.1}}\n",
    "exporter": f"{_HEAD}{_VIEWS}system:\n  exporter_type: @name@\n  exporter: {{n_points: 20000}}\n",
    "data": f"{_HEAD}data_type: @name@\ndata: {{size: 0.4, pixels: 64}}\n",
}

_SMALL_VIEWS = """
    "data.random_camera.n_test_views=2",
    "data.random_camera.eval_height=32",
    "data.random_camera.eval_width=32","""
_NO_EXPORT = """
    "export_after_train=false","""

SMALL = {
    "geometry": _SMALL_VIEWS + _NO_EXPORT,
    "guidance": _SMALL_VIEWS + _NO_EXPORT,
    "loss": _SMALL_VIEWS + _NO_EXPORT,
    "exporter": _SMALL_VIEWS,
    "data": """
    "data.pixels=16","""
    + _NO_EXPORT,
}
"""What keeps the generated test quick."""

TEST = '''
"""`@name@` takes part in a run of two steps."""

import json
from pathlib import Path

from zero123s.commands.launch import main

HERE = Path(__file__).parent
SMALL = [
    "system.renderer.num_samples_per_ray=48",
    "trainer.max_steps=2",
    "trainer.enable_progress_bar=false",@small@
]


def test_it_takes_two_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(HERE.parent)
    config = str(HERE / "@module@.yaml")
    assert main(["--config", config, "--train", f"exp_root_dir={tmp_path}", *SMALL]) == 0
    (record,) = (json.loads(path.read_text()) for path in tmp_path.rglob("run.json"))
    assert record["state"] == "finished"
    assert all(Path(path).is_file() for path in record.get("files", {}).values())
'''
