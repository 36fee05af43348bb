"""Random novel cameras, with threestudio's distributions."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.config.options import option
from zero123s.config.schedule import Stages
from zero123s.errors import ConfigError
from zero123s.ops.cameras import look_at, orbit_cameras, orbit_positions, with_lights
from zero123s.structures import Cameras

AUTO = "auto"
"""An elevation that is estimated when training begins."""


@dataclass
class RandomCameraConfig:
    """Distributions of the novel cameras, and the evaluation orbits."""

    height: Any = 64
    """Pixels; a number, or one per stage."""
    width: Any = 64
    """Pixels; a number, or one per stage."""
    batch_size: Any = 1
    """Views per step; a number, or one per stage."""
    resolution_milestones: list[int] = field(default_factory=list)
    """Global steps at which the next stage begins."""
    elevation_range: list[float] = field(default_factory=lambda: [-10.0, 90.0])
    """Degrees."""
    azimuth_range: list[float] = field(default_factory=lambda: [-180.0, 180.0])
    """Degrees; 0 is the reference camera's side."""
    camera_distance_range: list[float] = field(default_factory=lambda: [1.0, 1.5])
    """World units."""
    fovy_range: list[float] = field(default_factory=lambda: [40.0, 70.0])
    """Degrees, vertical."""
    camera_perturb: float = option(0.1, low=0.0)
    """Half width of the uniform offset added to the camera position."""
    center_perturb: float = option(0.2, low=0.0)
    """Standard deviation of the offset of the look-at point."""
    up_perturb: float = option(0.02, low=0.0)
    """Standard deviation of the offset of the up vector."""
    light_position_perturb: float = option(1.0, low=0.0)
    """Standard deviation of the light's offset from the camera ("dreamfusion")."""
    light_distance_range: list[float] = field(default_factory=lambda: [0.8, 1.5])
    """World units."""
    light_sample_strategy: str = "dreamfusion"
    """"dreamfusion" (near the camera) or "magic3d" (in a cone around its direction)."""
    batch_uniform_azimuth: bool = True
    """Spread the views of a batch evenly over the azimuth range."""
    progressive_until: int = option(0, low=0)
    """Steps over which the ranges grow from the front view; 0 = full ranges from the start."""
    eval_height: int = option(512, low=1, high=8192)
    """Pixels of rendered views."""
    eval_width: int = option(512, low=1, high=8192)
    """Pixels of rendered views."""
    eval_elevation_deg: Any = option(15.0, low=-90.0, high=90.0)
    """Elevation of the orbits in degrees; "auto" = that of the image, where it is estimated."""
    eval_camera_distance: float = option(1.5, above=0.0)
    """Distance of the orbits."""
    eval_fovy_deg: float = option(70.0, above=0.0, high=179.0)
    """Field of view of the orbits."""
    n_val_views: int = option(1, low=1, high=10_000)
    """Views of a validation orbit."""
    n_test_views: int = option(120, low=1, high=10_000)
    """Views of the turntable."""


class RandomCameraSampler:
    """Draws the novel cameras of a step.

    Args:
        cfg: ranges and sizes.
        key: full configuration key of the section, named in errors.
    """

    def __init__(self, cfg: RandomCameraConfig, key: str = "data.random_camera") -> None:
        self.cfg = cfg
        stages = cfg.resolution_milestones
        self.height = Stages(cfg.height, stages, f"{key}.height")
        self.width = Stages(cfg.width, stages, f"{key}.width")
        self.batch_size = Stages(cfg.batch_size, stages, f"{key}.batch_size")
        for name in ("elevation_range", "azimuth_range", "camera_distance_range", "fovy_range", "light_distance_range"):
            _check_range(getattr(cfg, name), f"{key}.{name}")
        if cfg.elevation_range[0] < -90 or cfg.elevation_range[1] > 90:
            raise ConfigError(f"{key}.elevation_range: elevations lie in [-90, 90] degrees, got {cfg.elevation_range}.")
        elevation = cfg.eval_elevation_deg
        is_number = isinstance(elevation, int | float) and not isinstance(elevation, bool)
        if elevation != AUTO and not (is_number and -90 <= elevation <= 90):
            raise ConfigError(f"{key}.eval_elevation_deg: expected degrees in [-90, 90] or auto, got {elevation!r}.")
        if cfg.camera_distance_range[0] <= 0 or not 0 < cfg.fovy_range[0] <= cfg.fovy_range[1] < 180:
            raise ConfigError(f"{key}: distances must be > 0 and fields of view in (0, 180) degrees.")
        if cfg.light_sample_strategy not in ("dreamfusion", "magic3d"):
            raise ConfigError(
                f"{key}.light_sample_strategy: '{cfg.light_sample_strategy}' is neither dreamfusion nor magic3d."
            )

    def ranges(self, step: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the elevation and azimuth ranges of `step` in degrees, grown from the front view."""
        cfg = self.cfg
        r = min(1.0, step / (cfg.progressive_until + 1)) if cfg.progressive_until > 0 else 1.0
        elevation = [(1 - r) * cfg.eval_elevation_deg + r * e for e in cfg.elevation_range]
        azimuth = [r * a for a in cfg.azimuth_range]
        return (elevation[0], elevation[1]), (azimuth[0], azimuth[1])

    def sizes(self) -> list[tuple[int, int]]:
        """Return height and width of every stage."""
        return list(zip(self.height.values, self.width.values, strict=True))

    def sample(self, step: int, generator: torch.Generator) -> Cameras:
        """Return the cameras of global step `step`.

        Elevation: by a coin flip per batch, uniform in degrees or uniform on the sphere. Azimuth, distance and field
        of view: uniform. Offsets as in `RandomCameraConfig`.
        """
        cfg, batch = self.cfg, self.batch_size(step)
        uniform = lambda low, high: low + (high - low) * torch.rand(batch, generator=generator)  # noqa: E731
        normal = lambda scale: scale * torch.randn(batch, 3, generator=generator)  # noqa: E731
        (e_low, e_high), (a_low, a_high) = self.ranges(step)
        if torch.rand(1, generator=generator) < 0.5:
            elevation = uniform(e_low, e_high)
        else:
            sine = uniform(math.sin(math.radians(e_low)), math.sin(math.radians(e_high)))
            elevation = torch.rad2deg(torch.asin(sine.clamp(-1, 1)))
        if cfg.batch_uniform_azimuth:
            azimuth = a_low + (a_high - a_low) * (torch.rand(batch, generator=generator) + torch.arange(batch)) / batch
        else:
            azimuth = uniform(a_low, a_high)
        distance, fovy = uniform(*cfg.camera_distance_range), uniform(*cfg.fovy_range)
        offset = cfg.camera_perturb * (2 * torch.rand(batch, 3, generator=generator) - 1)
        position = orbit_positions(elevation, azimuth, distance) + offset
        up = torch.tensor([0.0, 0.0, 1.0]) + normal(cfg.up_perturb)
        c2w = look_at(position, normal(cfg.center_perturb), up)
        cameras = Cameras(c2w, fovy, elevation, azimuth, distance, self.height(step), self.width(step))
        return with_lights(cameras, self._lights(position, generator))

    def _lights(self, position: Float[Tensor, "B 3"], generator: torch.Generator) -> Float[Tensor, "B 3"]:
        batch = position.shape[0]
        low, high = self.cfg.light_distance_range
        distance = low + (high - low) * torch.rand(batch, 1, generator=generator)
        if self.cfg.light_sample_strategy == "dreamfusion":
            noise = self.cfg.light_position_perturb * torch.randn(batch, 3, generator=generator)
            return F.normalize(position + noise, dim=-1) * distance
        local_z = F.normalize(position, dim=-1)
        local_x = F.normalize(torch.stack([local_z[:, 1], -local_z[:, 0], torch.zeros(batch)], dim=-1), dim=-1)
        local_y = F.normalize(torch.linalg.cross(local_z, local_x), dim=-1)
        azimuth = math.pi * (2 * torch.rand(batch, generator=generator) - 1)
        elevation = math.pi / 6 + (math.pi / 3) * torch.rand(batch, generator=generator)
        local = torch.stack(
            [
                torch.cos(elevation) * torch.cos(azimuth),
                torch.cos(elevation) * torch.sin(azimuth),
                torch.sin(elevation),
            ],
            dim=-1,
        )
        return (torch.stack([local_x, local_y, local_z], dim=-1) @ local[..., None])[..., 0] * distance

    def eval_cameras(self, split: str) -> Cameras:
        """Return evenly spaced views around the object, without repeating the first."""
        cfg = self.cfg
        n = cfg.n_val_views if split == "validate" else cfg.n_test_views
        azimuth = torch.arange(n) * (360.0 / n)
        return orbit_cameras(
            cfg.eval_elevation_deg,
            azimuth,
            cfg.eval_camera_distance,
            cfg.eval_fovy_deg,
            cfg.eval_height,
            cfg.eval_width,
        )


def _check_range(value: list[float], key: str) -> None:
    if len(value) != 2 or value[0] > value[1]:
        raise ConfigError(f"{key}: expected [low, high], got {value}.")
