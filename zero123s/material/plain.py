"""Materials whose colour is the geometry's features, without light."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.material.base import MATERIALS, BaseMaterial, Shading
from zero123s.ops.activations import Activation, get_activation
from zero123s.ops.latent_colors import LATENT_TO_RGB, latents_to_rgb


class FeatureColors(BaseMaterial):
    """Base of materials whose colours are features of the geometry."""

    @dataclass
    class Config(BaseMaterial.Config):
        """Settings of `no-material` and `hybrid-rgb-latent-material`."""

        color_activation: str = "sigmoid"
        """Turns features into colour."""
        n_output_dims: int = option(3, low=3, high=4)
        """Colours: 3, or 4 latent channels."""

    cfg: Config

    def __init__(self, cfg: Config, n_features: int) -> None:
        super().__init__(cfg, n_features)
        if 0 < n_features < cfg.n_output_dims:
            raise ConfigError(
                f"system.material.n_output_dims: {cfg.n_output_dims} colours need as many features; set "
                f"system.geometry.n_feature_dims={cfg.n_output_dims}."
            )
        self.color_activation: Activation = get_activation(cfg.color_activation)


@MATERIALS.register("no-material")
class NoMaterial(FeatureColors):
    """The features are the colour."""

    def forward(
        self,
        features: Float[Tensor, "N C"],
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        normal: Float[Tensor, "N 3"] | None,
        light_positions: Float[Tensor, "N 3"] | None,
        shading: Shading,
    ) -> Float[Tensor, "N K"]:
        """Return the activated features, whatever the light; grey where the geometry has none."""
        if features.shape[1] == 0:
            return x.new_full((len(x), self.cfg.n_output_dims), 0.5)
        return self.color_activation(features[:, : self.cfg.n_output_dims])


@MATERIALS.register("hybrid-rgb-latent-material")
class HybridRGBLatentMaterial(FeatureColors):
    """Three colours followed by channels without activation, which images do not show."""

    def forward(
        self,
        features: Float[Tensor, "N C"],
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        normal: Float[Tensor, "N 3"] | None,
        light_positions: Float[Tensor, "N 3"] | None,
        shading: Shading,
    ) -> Float[Tensor, "N K"]:
        """Return the first three features activated, the others as they are."""
        rgb, latents = features[:, :3], features[:, 3 : self.cfg.n_output_dims]
        return torch.cat([self.color_activation(rgb), latents], dim=-1)


@MATERIALS.register("sd-latent-adapter-material")
class LatentAdapterMaterial(BaseMaterial):
    """Maps features that were trained as latents to colours by a trainable linear map (Latent-NeRF)."""

    @dataclass
    class Config(BaseMaterial.Config):
        """Settings of `sd-latent-adapter-material`."""

    def __init__(self, cfg: Config, n_features: int) -> None:
        super().__init__(cfg, n_features)
        if n_features != 4:
            raise ConfigError(f"sd-latent-adapter-material: set system.geometry.n_feature_dims=4, it is {n_features}.")
        self.adapter = nn.Parameter(torch.tensor(LATENT_TO_RGB))

    def forward(
        self,
        features: Float[Tensor, "N C"],
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        normal: Float[Tensor, "N 3"] | None,
        light_positions: Float[Tensor, "N 3"] | None,
        shading: Shading,
    ) -> Float[Tensor, "N 3"]:
        """Return the mapped features, in [0, 1]."""
        return latents_to_rgb(features, self.adapter)
