"""A warm start from sampled views, which supervise the first steps with a small weight."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError
from zero123s.guidance.base import BaseGuidance
from zero123s.losses import LossTerm
from zero123s.material.base import Shading
from zero123s.ops.cameras import orbit_cameras
from zero123s.structures import Cameras, ReferenceView, RenderOutput
from zero123s.system.exposure import expose_render


class WarmViews:
    """Sampled views with their cameras and weights.

    Args:
        cameras: V views.
        images: V H W 3, sampled on a white background.
        weights: V, factor of each view's loss, 0 to 1.
        schedule: weight of the loss over the steps.
        exposure: factor on the object's colours in the images; see `guidance_exposure`.
    """

    def __init__(
        self,
        cameras: Cameras,
        images: Float[Tensor, "V H W 3"],
        weights: Float[Tensor, "V"],
        schedule: Schedule,
        exposure: float = 1.0,
    ) -> None:
        self.cameras, self.images, self.weights, self.schedule = cameras, images, weights, schedule
        self.exposure = exposure

    def loss(self, render: Callable[..., RenderOutput], step: int, generator: torch.Generator) -> dict[str, LossTerm]:
        """Render one randomly chosen view and compare its colours; empty where the weight is 0."""
        weight = self.schedule(step)
        if weight == 0:
            return {}
        i = int(torch.randint(len(self.cameras), (), generator=generator))
        out = render(self.cameras.select(slice(i, i + 1)), frozenset(), Shading("albedo", 1.0), generator)
        error = (expose_render(out, self.exposure) - self.images[i : i + 1].to(out.comp_rgb)).square().mean()
        return {"warm_view": LossTerm(error, weight * float(self.weights[i]))}

    def sheet(self) -> Float[np.ndarray, "H W 3"]:
        """Return all views side by side."""
        return np.concatenate(list(self.images.cpu().float().numpy()), axis=1)


def sample_warm_views(
    cfg: Any, guidance: BaseGuidance, reference: ReferenceView, generator: torch.Generator, exposure: float = 1.0
) -> WarmViews:
    """Sample views all around the object.

    Args:
        cfg: a `WarmStartConfig`.
        guidance: whose model samples.
        reference: the input views; the first one's distance and field of view are those of all views.
        generator: draws the noise.
        exposure: factor on the object's colours in the guidance's input.

    Raises:
        ConfigError: the guidance cannot sample views.
    """
    cameras = warm_cameras(cfg, reference.cameras, guidance.image_size or reference.cameras.height)
    images = guidance.sample(cameras, cfg.sampling_steps, generator)
    if images is None:
        raise ConfigError(
            "system.warm_start.type: views needs a guidance that draws views, such as stable-zero123-guidance; set "
            "system.warm_start.type=none."
        )
    return restore_warm_views(cfg, images, reference, exposure, cameras)


def restore_warm_views(
    cfg: Any,
    images: Float[Tensor, "V H W 3"],
    reference: ReferenceView,
    exposure: float = 1.0,
    cameras: Cameras | None = None,
) -> WarmViews:
    """Return the views whose images a checkpoint has kept."""
    cameras = cameras or warm_cameras(cfg, reference.cameras, images.shape[1])
    own, given = (F.normalize(c.positions.cpu(), dim=-1) for c in (cameras, reference.cameras))
    weights = 0.5 + 0.5 * (own @ given.T).amax(dim=1)
    return WarmViews(cameras, images, weights, Schedule(cfg.weight, "system.warm_start.weight"), exposure)


def warm_cameras(cfg: Any, reference: Cameras, size: int) -> Cameras:
    """Return `n_views` cameras evenly around the first input view, whose own azimuth is left out, at alternating elevations."""
    turns = (torch.arange(cfg.n_views) + 1) * (360 / (cfg.n_views + 1))
    elevations = torch.tensor(cfg.elevations_deg, dtype=torch.float32)[
        torch.arange(cfg.n_views) % len(cfg.elevations_deg)
    ]
    azimuths = reference.azimuth_deg[0].cpu() + turns
    return orbit_cameras(elevations, azimuths, float(reference.distance[0]), float(reference.fovy_deg[0]), size, size)
