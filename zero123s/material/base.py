"""The interface of materials: colour from features, and from light."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.registry import Registry


@dataclass(frozen=True)
class Shading:
    """The lighting of one pass.

    mode: "albedo" (no light at all), "textureless" (white albedo under light) or "diffuse". ambient_ratio: share of
    light that comes from everywhere, in [0, 1]; 1 = albedo; None = the material's own lights.
    """

    mode: str = "albedo"
    ambient_ratio: float | None = 1.0


class BaseMaterial(nn.Module):
    """Base class of `material_type`.

    Args:
        cfg: the parsed `Config` of the subclass.
        n_features: length of the geometry's feature vector.
    """

    @dataclass
    class Config:
        """A material without settings."""

    def __init__(self, cfg: Config, n_features: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.n_features = n_features

    def needs(self, shading: Shading) -> frozenset[str]:
        """Return what `forward` needs of the geometry ("features", "normal") under `shading`."""
        return frozenset({"features"})

    def draw_shading(self, step: int, ambient_ratio: float | None, generator: torch.Generator) -> Shading:
        """Draw the lighting of a training batch of random views; unlit by default."""
        return Shading("albedo", 1.0)

    def forward(
        self,
        features: Float[Tensor, "N C"],
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        normal: Float[Tensor, "N 3"] | None,
        light_positions: Float[Tensor, "N 3"] | None,
        shading: Shading,
    ) -> Float[Tensor, "N K"]:
        """Return sRGB colour in [0, 1], or latents; `dirs` are unit viewing directions from the camera to the point."""
        raise NotImplementedError(f"{type(self).__name__} must define forward().")

    def on_step(self, step: int) -> None:
        """Move schedules to global step `step`."""


MATERIALS: Registry[BaseMaterial] = Registry("material", BaseMaterial)
