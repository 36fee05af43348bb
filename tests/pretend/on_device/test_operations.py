"""Single operations and modules on the device: each was once on the wrong one, or refused there."""

from types import SimpleNamespace

import pytest
import torch
from short_refinement import shorten_refinement
from torch import nn

from pretend.on_device.commands import REPOSITORY
from zero123s.diffusion.model import build_model
from zero123s.diffusion.model_config import read_model_config
from zero123s.diffusion.speed import FusedResnetBlock, speed_up
from zero123s.diffusion.training import WeightAverage
from zero123s.exporter.texturing import field_colors
from zero123s.geometry.implicit_sdf import ImplicitSDF
from zero123s.geometry.implicit_volume import ImplicitVolume
from zero123s.material.diffuse import DiffuseMaterial
from zero123s.mesh.surface import SurfaceOptions, find_surface
from zero123s.system.field import GeometryMaterialField
from zero123s.system.refinement import convert_first_stage


@pytest.fixture
def field():
    """A ball of density on the device."""
    cfg = ImplicitVolume.Config(radius=0.7, density_blob_scale=25.0, density_blob_std=0.35)
    cfg.pos_encoding_config.n_levels, cfg.pos_encoding_config.log2_hashmap_size = 4, 10
    geometry = ImplicitVolume(cfg)
    material = DiffuseMaterial(DiffuseMaterial.Config(), geometry.n_features)
    return GeometryMaterialField(geometry.to("cuda"), material.to("cuda"))


def test_average_follows_weights_that_were_moved():
    module = nn.Linear(3, 2)
    average = WeightAverage(module, decay=0.5)
    module.to("cuda")
    average.update(module)
    assert {a.device.type for a in average.averages} == {"cuda"}
    assert torch.equal(average.averaged(module).weight, module.weight)


@pytest.mark.parametrize("channels_last", [False, True])
def test_frozen_networks_have_the_layout_requested(channels_last):
    model = build_model(read_model_config(REPOSITORY / "tests" / "helpers" / "tiny_lifted.yaml")).to("cuda")
    speed_up(model, channels_last=channels_last)
    assert any(isinstance(m, FusedResnetBlock) for m in model.vae.encoder.modules())
    kernels = [m.weight for m in model.unet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) == channels_last for kernel in kernels)


def test_a_second_stage_is_fitted_on_device(field, monkeypatch):
    shorten_refinement(monkeypatch, steps=2, batch=32, resolution=16)
    cfg = ImplicitSDF.Config(radius=0.7)
    cfg.pos_encoding_config.n_levels, cfg.pos_encoding_config.log2_hashmap_size = 4, 10
    sdf = ImplicitSDF(cfg).to("cuda")
    stages = [
        SimpleNamespace(
            geometry=geometry, material=field.material, field=lambda g=geometry: GeometryMaterialField(g, field.material),
            device=torch.device("cuda"), seed=0, background=None, input_view=lambda: None,
            cfg=SimpleNamespace(material=0, background=number, geometry_convert_inherit_texture=True),
        )
        for number, geometry in enumerate((field.geometry, sdf))
    ]  # fmt: skip
    stats = convert_first_stage(stages[1], stages[0])
    assert stats["surface_distance"] > 0
    assert {p.device.type for p in sdf.parameters()} == {"cuda"}


def test_surface_and_colours_come_from_the_device(field):
    free = lambda x: x[:, 0] > 0.1  # noqa: E731
    vertices, faces = find_surface(field, 10.0, SurfaceOptions(16, coarse=16), {}, free)
    assert len(faces) > 0
    assert vertices[:, 0].max() < 0.2
    assert field_colors(field, vertices, vertices, depth=0.05).shape == vertices.shape
