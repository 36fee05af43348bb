"""Diffuse colour under a point light and ambient light."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.material.base import MATERIALS, BaseMaterial, Shading
from zero123s.ops.activations import get_activation
from zero123s.ops.vectors import unit


@MATERIALS.register("diffuse-with-point-light-material")
class DiffuseMaterial(BaseMaterial):
    """albedo * (ambient + diffuse * max(n . l, 0)), as in threestudio; plain albedo without light."""

    @dataclass
    class Config(BaseMaterial.Config):
        """Settings of `diffuse-with-point-light-material`."""

        ambient_light_color: list[float] = option([0.1, 0.1, 0.1], low=0.0)
        """Red, green and blue of the light from everywhere, where system.ambient_ratio_min is null."""
        diffuse_light_color: list[float] = option([0.9, 0.9, 0.9], low=0.0)
        """Red, green and blue of the point light, where system.ambient_ratio_min is null."""
        ambient_only_steps: int = 1000
        """Steps before any light is switched on; random views show plain albedo until then."""
        diffuse_prob: float = 0.75
        """Afterwards: share of batches that are lit."""
        textureless_prob: float = 0.5
        """Of the lit batches: share that shows the shape alone, white."""
        albedo_activation: str = "sigmoid"
        """Turns features into albedo."""
        soft_shading: bool = False
        """Where system.ambient_ratio_min is null: in place of the two colours, draw the share of ambient light from [0, 1]
        for every lit batch."""

        def __post_init__(self) -> None:
            for name in ("ambient_light_color", "diffuse_light_color"):
                if len(getattr(self, name)) != 3:
                    raise ConfigError(
                        f"system.material.{name}: expected red, green and blue, got {getattr(self, name)}."
                    )

    cfg: Config

    def __init__(self, cfg: Config, n_features: int) -> None:
        super().__init__(cfg, n_features)
        self.albedo_activation = get_activation(cfg.albedo_activation)

    def needs(self, shading: Shading) -> frozenset[str]:
        """Return "features", and "normal" with light."""
        return frozenset({"features"}) if shading.mode == "albedo" else frozenset({"features", "normal"})

    def draw_shading(self, step: int, ambient_ratio: float | None, generator: torch.Generator) -> Shading:
        """Draw the lighting of a training batch: albedo, textureless or diffuse."""
        if step < self.cfg.ambient_only_steps:
            return Shading("albedo", 1.0)
        lit, bare = torch.rand(2, generator=generator).tolist()
        if lit > self.cfg.diffuse_prob:
            return Shading("albedo", 1.0)
        if ambient_ratio is None and self.cfg.soft_shading:
            ambient_ratio = 1 - float(torch.rand((), generator=generator))
        return Shading("textureless" if bare < self.cfg.textureless_prob else "diffuse", ambient_ratio)

    def forward(
        self,
        features: Float[Tensor, "N C"],
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        normal: Float[Tensor, "N 3"] | None,
        light_positions: Float[Tensor, "N 3"] | None,
        shading: Shading,
    ) -> Float[Tensor, "N 3"]:
        """Return albedo * (ambient + diffuse max(n . l, 0)), in [0, 1]; of an ambient ratio r the lights are r and 1 -
        r.
        """
        albedo = self.albedo_activation(features[:, :3])
        if shading.mode == "albedo":
            return albedo
        if normal is None or light_positions is None:
            raise ValueError(f"Shading '{shading.mode}' needs normals and light positions.")
        to_light = unit(light_positions - x)
        cosine = (normal * to_light).sum(-1, keepdim=True).clamp_min(0)
        if shading.ambient_ratio is None:
            ambient, diffuse = (x.new_tensor(c) for c in (self.cfg.ambient_light_color, self.cfg.diffuse_light_color))
            light = (ambient + diffuse * cosine).clamp(0, 1)
        else:
            light = shading.ambient_ratio + (1 - shading.ambient_ratio) * cosine
        return (light.expand_as(albedo) if shading.mode == "textureless" else albedo * light).clamp(0, 1)
