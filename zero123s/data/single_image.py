"""One picture of an object, and random cameras around it."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from zero123s.data.base import DATA, BaseData, StepSizes
from zero123s.data.companions import (
    check_conventions,
    companion_path,
    decode_depth,
    decode_normal,
    read_companion,
)
from zero123s.data.progressive import Stages
from zero123s.data.random_camera import RandomCameraConfig, RandomCameraSampler
from zero123s.errors import ConfigError
from zero123s.ops.cameras import orbit_cameras
from zero123s.options import option
from zero123s.preprocess.images import fit_square, load_reference_rgba, resize_rgba
from zero123s.randomness import generator_for
from zero123s.structures import Batch, Cameras, ReferenceView

logger = logging.getLogger(__name__)

MAX_PHOTO = 2048
"""Pixels of the longer side beyond which a picture is not put on the mesh: its texture has no more."""


@DATA.register("single-image-datamodule")
class SingleImageData(BaseData):
    """Supervises one view by a picture with transparency; the guidance judges random others."""

    @dataclass
    class Config(BaseData.Config):
        """Settings of `single-image-datamodule`."""

        image_path: str = "???"
        """Picture of the object with transparent background (PNG or WebP with alpha)."""
        height: Any = 96
        """Training size of the reference view; a number, or one per stage."""
        width: Any = 96
        """Training size of the reference view; a number, or one per stage."""
        resolution_milestones: list[int] = field(default_factory=list)
        """Global steps at which the next stage begins."""
        default_elevation_deg: Any = option(0.0, low=-90.0, high=90.0)
        """Elevation from which the picture was taken, positive above the horizon."""
        default_azimuth_deg: float = 0.0
        """Azimuth of the reference camera."""
        default_camera_distance: float = option(1.2, above=0.0)
        """Distance of the reference camera, world units."""
        default_fovy_deg: float = option(60.0, above=0.0, high=179.0)
        """Vertical field of view of the reference camera."""
        rays_noise_scale: float = option(0.0, low=0.0)
        """Standard deviation of a per-step offset of the reference camera's position, world units."""
        requires_depth: bool = False
        """Read a depth picture (8 or 16 bit) for lambda_depth and lambda_depth_rel: X_depth.png beside X_rgba.png."""
        depth_path: str | None = None
        """Another place of the depth picture."""
        depth_bright_is: str = "far"
        """"far", or "near" for disparity pictures."""
        requires_normal: bool = False
        """Read a normal picture, (n + 1) / 2, for lambda_normal: X_normal.png beside X_rgba.png."""
        normal_path: str | None = None
        """Another place of the normal picture."""
        normal_convention: str = "opengl"
        """Axes of the normal picture: "opengl" (x right, y up, z to the viewer), "opencv" (y down, z away), "world"."""
        random_camera: RandomCameraConfig = field(default_factory=RandomCameraConfig)
        """Novel views and evaluation orbits."""

    cfg: Config

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__(cfg, seed)
        self.height = Stages(cfg.height, cfg.resolution_milestones, "data.height")
        self.width = Stages(cfg.width, cfg.resolution_milestones, "data.width")
        self.sampler = RandomCameraSampler(cfg.random_camera)
        self.elevation_deg = _elevation(cfg.default_elevation_deg)
        check_conventions(cfg.depth_bright_is, cfg.normal_convention)
        self._views: dict[tuple[int, int], ReferenceView] = {}

    def delivers(self) -> frozenset[str]:
        """Return the pictures that the config asks for."""
        wanted = {"depth": self.cfg.requires_depth, "normal": self.cfg.requires_normal}
        return frozenset(kind for kind, is_wanted in wanted.items() if is_wanted)

    def prepare(self) -> None:
        """Read the picture and those that belong to it, padded to the frame's aspect; raises ImageError."""
        cfg = self.cfg
        loaded = load_reference_rgba(cfg.image_path)
        for note in loaded.notes:
            logger.warning(note)
        self.rgba = fit_square(loaded.rgba)
        self.depth_picture = self.normal_picture = None
        if cfg.requires_depth:
            path = companion_path(cfg.image_path, "depth", cfg.depth_path)
            self.depth_picture = fit_square(read_companion(path, "depth", loaded.rgba))
        if cfg.requires_normal:
            path = companion_path(cfg.image_path, "normal", cfg.normal_path)
            self.normal_picture = fit_square(read_companion(path, "normal", loaded.rgba))

    def view(self, height: int, width: int) -> ReferenceView:
        """Return the reference view at one size; resampling is premultiplied, so no background bleeds in."""
        if (height, width) not in self._views:
            rgba = torch.from_numpy(resize_rgba(self.rgba, height, width))[None]
            cfg = self.cfg
            cameras = orbit_cameras(
                self.elevation_deg,
                cfg.default_azimuth_deg,
                cfg.default_camera_distance,
                cfg.default_fovy_deg,
                height,
                width,
            )
            view = ReferenceView(cameras, rgba[..., :3], rgba[..., 3:])
            if self.depth_picture is not None:
                depth = decode_depth(self.depth_picture, height, width, cfg.depth_bright_is)
                view = replace(view, depth=depth)
            if self.normal_picture is not None:
                c2w = cameras.c2w[0]
                normal = decode_normal(self.normal_picture, height, width, cfg.normal_convention, c2w)
                view = replace(view, normal=normal)
            self._views[height, width] = view
        return self._views[height, width]

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> Batch:
        """Return the reference view and the random cameras of a step, each at its stage's size."""
        generator = generator_for(self.seed, step, "cameras", rank, micro_step)
        reference = self.view(self.height(step), self.width(step))
        if self.cfg.rays_noise_scale > 0:
            c2w = reference.cameras.c2w.clone()
            c2w[:, :3, 3] += self.cfg.rays_noise_scale * torch.randn(len(c2w), 3, generator=generator)
            reference = replace(reference, cameras=replace(reference.cameras, c2w=c2w))
        return Batch(reference, self.sampler.sample(step, generator))

    def sizes_at(self, step: int) -> StepSizes:
        """Return the pixels of the picture and of the random views."""
        return StepSizes(self.height(step) * self.width(step), *self.sampler.sizes_at(step))

    def reference(self) -> ReferenceView:
        """Return the picture at its largest training size."""
        return self.view(self.height.max, self.width.max)

    def photos(self) -> ReferenceView:
        """Return the picture at its own size, up to MAX_PHOTO pixels; never smaller than it was trained on."""
        height, width = self.height.max, self.width.max
        scale = max(1.0, min(max(self.rgba.shape[:2]), MAX_PHOTO) / max(height, width))
        return self.view(round(height * scale), round(width * scale))

    def eval_cameras(self, split: str) -> Cameras:
        """Return the validation or test orbit."""
        return self.sampler.eval_cameras(split)


def _elevation(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -90 <= value <= 90:
        raise ConfigError(f"data.default_elevation_deg: expected degrees in [-90, 90], got {value!r}.")
    return float(value)
