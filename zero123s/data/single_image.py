"""One image of an object, and random cameras around it."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from zero123s.config.options import option
from zero123s.config.schedule import Stages
from zero123s.data.base import DATA, BaseData
from zero123s.data.companions import (
    check_conventions,
    companion_path,
    decode_depth,
    decode_normal,
    read_companion,
    write_companion,
)
from zero123s.data.random_camera import AUTO, RandomCameraConfig, RandomCameraSampler
from zero123s.errors import ConfigError
from zero123s.images.io import fit_square, resize_rgba, write_png_atomic
from zero123s.ops.cameras import orbit_cameras
from zero123s.preprocess.elevation import estimate_elevation
from zero123s.preprocess.framing import apply_framing
from zero123s.preprocess.input_image import CutOutConfig, check_file, input_from_file, input_from_prompt
from zero123s.preprocess.text_to_image import TextToImageConfig
from zero123s.randomness import generator_for
from zero123s.structures import Batch, Cameras, ReferenceView

logger = logging.getLogger(__name__)

MAX_PHOTO = 2048
"""Pixels of the longer side beyond which an image is not put on the mesh: its texture has no more."""


@DATA.register("single-image-datamodule")
class SingleImageData(BaseData):
    """Supervises one view with the image; the guidance supervises random views."""

    @dataclass
    class Config(BaseData.Config):
        """Settings of `single-image-datamodule`."""

        image_path: str = option("", path=True)
        """Image of the object; one without transparency is cut out and framed first."""
        prompt: str = ""
        """A prompt for one object, in place of image_path: the image is generated first."""
        text_to_image: TextToImageConfig = field(default_factory=TextToImageConfig)
        """Settings of the text-to-image pipeline."""
        cut_out: CutOutConfig = field(default_factory=CutOutConfig)
        """How the object is found in the image."""
        height: Any = 96
        """Training size of the reference view; a number, or one per stage."""
        width: Any = 96
        """Training size of the reference view; a number, or one per stage."""
        resolution_milestones: list[int] = field(default_factory=list)
        """Global steps at which the next stage begins."""
        default_elevation_deg: Any = option(0.0, low=-90.0, high=90.0)
        """Elevation from which the image was taken, positive above the horizon; "auto" = estimated."""
        default_azimuth_deg: float = 0.0
        """Azimuth of the reference camera."""
        default_camera_distance: float = option(1.2, above=0.0)
        """Distance of the reference camera, world units."""
        default_fovy_deg: float = option(60.0, above=0.0, high=179.0)
        """Vertical field of view of the reference camera."""
        rays_noise_scale: float = option(0.0, low=0.0)
        """Standard deviation of a per-step offset of the reference camera's position, world units."""
        requires_depth: bool = False
        """Read a depth image (8 or 16 bit) for lambda_depth and lambda_depth_rel: X_depth.png next to X_rgba.png."""
        depth_path: str | None = option(None, path=True)
        """Another place of the depth image."""
        depth_bright_is: str = "far"
        """"far", or "near" for disparity images."""
        requires_normal: bool = False
        """Read a normal image, (n + 1) / 2, for lambda_normal: X_normal.png next to X_rgba.png."""
        normal_path: str | None = option(None, path=True)
        """Another place of the normal image."""
        normal_convention: str = "opengl"
        """Axes of the normal map: "opengl" (x right, y up, z to the viewer), "opencv" (y down, z away), "world"."""
        random_camera: RandomCameraConfig = field(default_factory=RandomCameraConfig)
        """Novel views and evaluation orbits."""

    cfg: Config

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__(cfg, seed)
        self.height = Stages(cfg.height, cfg.resolution_milestones, "data.height")
        self.width = Stages(cfg.width, cfg.resolution_milestones, "data.width")
        self.sampler = RandomCameraSampler(cfg.random_camera)
        check_elevation(cfg.default_elevation_deg)
        if self.height.values != self.width.values:
            raise ConfigError(
                f"data.height={cfg.height}, data.width={cfg.width}: the image is put on a square, and another shape "
                "would squeeze it; give both the same."
            )
        if bool(cfg.image_path) == bool(cfg.prompt):
            what = f"'{cfg.image_path}' and a prompt are given; leave one of them empty" if cfg.prompt else "is missing"
            raise ConfigError(
                f"data.image_path: {what}; give an image (data.image_path=photo.jpg), or a sentence (data.prompt=...)."
            )
        check_conventions(cfg.depth_bright_is, cfg.normal_convention)
        self._views: dict[tuple[int, int], ReferenceView] = {}
        self._facts: dict[str, Any] = {}

    def available_maps(self) -> frozenset[str]:
        """Return the maps that the config requires."""
        required = {"depth": self.cfg.requires_depth, "normal": self.cfg.requires_normal}
        return frozenset(kind for kind, is_required in required.items() if is_required)

    def check_files(self) -> None:
        """Read the image and its maps, check its cut-out, and keep nothing; see `BaseData`."""
        cfg = self.cfg
        if cfg.prompt:
            return
        rgba = check_file(cfg.image_path, cfg.cut_out).rgba
        for kind, required, given in (
            ("depth", cfg.requires_depth, cfg.depth_path),
            ("normal", cfg.requires_normal, cfg.normal_path),
        ):
            if required:
                read_companion(companion_path(cfg.image_path, kind, given), kind, rgba)

    def prepare(self) -> None:
        """Read or generate the image, cut it out if necessary, and read its maps; raises ImageError."""
        cfg = self.cfg
        if cfg.prompt:
            self.input = input_from_prompt(cfg.prompt, cfg.text_to_image, cfg.cut_out, self.seed)
        else:
            self.input = input_from_file(cfg.image_path, cfg.cut_out)
        for note in self.input.notes:
            logger.warning(note)
        self.rgba = self.input.rgba
        self._settle_elevation()
        self.depth_map_file = self._companion("depth", cfg.depth_path) if cfg.requires_depth else None
        self.normal_map_file = self._companion("normal", cfg.normal_path) if cfg.requires_normal else None

    def _companion(self, kind: str, given: str | None) -> Float[np.ndarray, "S S 4"]:
        """Return the depth or normal map, framed like the input."""
        if self.cfg.prompt and not given:
            raise ConfigError(f"data.requires_{kind}: a drawn image has no {kind} image; set its weight to 0.")
        image = read_companion(companion_path(self.cfg.image_path, kind, given), kind, self.input.cut_out)
        framing = self.input.framing
        return fit_square(image) if framing is None else apply_framing(image, framing)

    def _settle_elevation(self) -> None:
        """Estimate the elevation where it is "auto", and report it."""
        cfg = self.cfg
        if cfg.default_elevation_deg == AUTO:
            estimate = estimate_elevation(self.rgba)
            for warning in (*estimate.warnings, estimate.summary()):
                logger.warning(warning)
            cfg.default_elevation_deg = round(estimate.elevation_deg, 1)
            self._facts["elevation"] = estimate.record()
        if cfg.random_camera.eval_elevation_deg == AUTO:
            cfg.random_camera.eval_elevation_deg = cfg.default_elevation_deg

    def save_inputs(self, folder: Path) -> dict[str, Any]:
        """Write the prepared image, the steps of the preparation and the maps; see `BaseData`."""
        cfg = self.cfg
        if Path(cfg.image_path).parent != folder:  # a resumed run keeps its input image
            self._facts |= self.input.facts
        if self.input.saved:
            stem = "prompt" if cfg.prompt else Path(cfg.image_path).stem
            for name, image in self.input.saved.items():
                write_png_atomic(folder / f"{name}.png", image)
            for kind, image in (("depth", self.depth_map_file), ("normal", self.normal_map_file)):
                if image is not None:
                    setattr(cfg, f"{kind}_path", str(write_companion(folder / f"{stem}_{kind}.png", image)))
            # From now on the run is about this image: nothing is generated or cut out again when it resumes.
            cfg.image_path, cfg.prompt = str(write_png_atomic(folder / f"{stem}_rgba.png", self.rgba)), ""
            self.input = replace(self.input, saved={}, facts={})
        return self._facts

    def view(self, height: int, width: int) -> ReferenceView:
        """Return the reference view at one size, resampled with premultiplied colours: no background bleeds in."""
        if (height, width) not in self._views:
            self._views[height, width] = self._view(height, width)
        return self._views[height, width]

    def _view(self, height: int, width: int) -> ReferenceView:
        rgba = torch.from_numpy(resize_rgba(self.rgba, height, width))[None]
        cfg = self.cfg
        angles = (cfg.default_elevation_deg, cfg.default_azimuth_deg)
        cameras = orbit_cameras(*angles, cfg.default_camera_distance, cfg.default_fovy_deg, height, width)
        view = ReferenceView(cameras, rgba[..., :3], rgba[..., 3:])
        if self.depth_map_file is not None:
            view = replace(view, depth=decode_depth(self.depth_map_file, height, width, cfg.depth_bright_is))
        if self.normal_map_file is not None:
            c2w = cameras.c2w[0]
            view = replace(view, normal=decode_normal(self.normal_map_file, height, width, cfg.normal_convention, c2w))
        return view

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> Batch:
        """Return the reference view and the random cameras of a step, each at its stage's size."""
        generator = generator_for(self.seed, step, "cameras", rank, micro_step)
        reference = self.view(self.height(step), self.width(step))
        if self.cfg.rays_noise_scale > 0:
            c2w = reference.cameras.c2w.clone()
            c2w[:, :3, 3] += self.cfg.rays_noise_scale * torch.randn(len(c2w), 3, generator=generator)
            reference = replace(reference, cameras=replace(reference.cameras, c2w=c2w))
        return Batch(reference, self.sampler.sample(step, generator))

    def novel_sizes(self) -> list[tuple[int, int]]:
        """Return the sizes of the random views."""
        return self.sampler.sizes()

    def reference(self) -> ReferenceView:
        """Return the image at its largest training size."""
        return self.view(self.height.max, self.width.max)

    def conditioning_views(self) -> ReferenceView:
        """Return the image at its own resolution: the guiding model may use more pixels than training does."""
        return self.photos()

    def photos(self) -> ReferenceView:
        """Return the image at its own resolution, up to MAX_PHOTO pixels, and at least at training resolution."""
        height, width = self.height.max, self.width.max
        scale = max(1.0, min(max(self.rgba.shape[:2]), MAX_PHOTO) / max(height, width))
        return self.view(round(height * scale), round(width * scale))

    def eval_cameras(self, split: str) -> Cameras:
        """Return the validation or test orbit."""
        return self.sampler.eval_cameras(split)


def check_elevation(value: Any) -> None:
    """Raise ConfigError for a value of `default_elevation_deg` that is neither degrees nor "auto"."""
    if value != AUTO and (isinstance(value, bool) or not isinstance(value, int | float) or not -90 <= value <= 90):
        raise ConfigError(f"data.default_elevation_deg: expected degrees in [-90, 90] or auto, got {value!r}.")
