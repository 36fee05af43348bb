"""Several posed images of an object: in the NeRF-synthetic format, or named front, back and sides."""

import json
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zero123s.config.options import option
from zero123s.config.schedule import Stages
from zero123s.data.base import DATA, BaseData
from zero123s.data.companions import ASPECT_TOLERANCE
from zero123s.data.named_views import (
    AZIMUTHS_DEG,
    NamedImage,
    NamedImagesConfig,
    NamedWeightsConfig,
    read_named,
)
from zero123s.data.random_camera import AUTO, RandomCameraConfig, RandomCameraSampler
from zero123s.errors import ConfigError, ImageError
from zero123s.images.io import resize_rgba, write_png_atomic
from zero123s.ops.cameras import cameras_from_matrices, orbit_cameras
from zero123s.preprocess.input_image import CutOutConfig, check_file, input_from_file
from zero123s.randomness import generator_for
from zero123s.structures import Batch, Cameras, ReferenceView

MAX_TRANSFORMS_BYTES = 50_000_000


@DATA.register("multi-view-datamodule")
class MultiViewData(BaseData):
    """Supervises every step by a few of many posed images; draws novel views only for a guidance."""

    @dataclass
    class Config(BaseData.Config):
        """Settings of `multi-view-datamodule`."""

        transforms_path: str = option("", path=True)
        """transforms.json of NeRF-synthetic: camera_angle_x and frames with file_path, transform_matrix and optionally
        weight.
        """
        pictures: NamedImagesConfig = field(default_factory=NamedImagesConfig)
        """Images by name, in place of transforms_path."""
        weights: NamedWeightsConfig = field(default_factory=NamedWeightsConfig)
        """Weights of the images by name."""
        cut_out: CutOutConfig = field(default_factory=CutOutConfig)
        """How the object is found in images without transparency."""
        height: Any = 64
        """Training size; a number, or one per stage."""
        width: Any = 64
        """Training size; a number, or one per stage."""
        batch_size: Any = 4
        """Supervised views per step; a number, or one per stage."""
        resolution_milestones: list[int] = field(default_factory=list)
        """Global steps at which the next stage begins."""
        holdout_every: int = option(0, low=0)
        """Keep every n-th image away from training and score it at validation; 0 = train on all."""
        camera_scale: float = option(1.0, above=0.0)
        """Factor on camera positions, to fit a scene into the geometry's cube."""
        novel_views: bool = False
        """Also draw random cameras, for a guidance."""
        random_camera: RandomCameraConfig = field(default_factory=RandomCameraConfig)
        """Novel views and evaluation orbits."""

    cfg: Config

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__(cfg, seed)
        stages = cfg.resolution_milestones
        self.height = Stages(cfg.height, stages, "data.height")
        self.width = Stages(cfg.width, stages, "data.width")
        self.batch_size = Stages(cfg.batch_size, stages, "data.batch_size")
        self.sampler = RandomCameraSampler(cfg.random_camera)
        if cfg.random_camera.eval_elevation_deg == AUTO:
            raise ConfigError("data.random_camera.eval_elevation_deg: posed images estimate none; give a number.")
        self.named: list[NamedImage] = []
        if bool(cfg.transforms_path) == bool(cfg.pictures.given()):
            raise ConfigError(
                "data.transforms_path: give either a transforms.json or images by name "
                "(data.pictures.front=front.png data.pictures.back=back.png ...)."
            )
        self._sizes: dict[tuple[int, int], ReferenceView] = {}

    def check_files(self) -> None:
        """Read poses and images, check their cut-outs, and keep nothing; see `BaseData`."""
        cfg = self.cfg
        if cfg.transforms_path:
            for frame in read_transforms(Path(cfg.transforms_path)):
                check_file(frame.path, replace(cfg.cut_out, frame="never"))
        else:
            for path in cfg.pictures.given().values():
                check_file(path, cfg.cut_out)

    def prepare(self) -> None:
        """Read poses and images; raises ImageError or ConfigError naming the file."""
        cfg = self.cfg
        if cfg.transforms_path:
            self.frames = read_transforms(Path(cfg.transforms_path))
            # The poses belong to the whole frame: nothing is centred or scaled.
            in_place = replace(cfg.cut_out, frame="never")
            self.images = [input_from_file(str(f.path), in_place).cut_out for f in self.frames]
        else:
            self.named = read_named(cfg.pictures, cfg.cut_out)
            self.frames = [_named_frame(p.name, cfg.pictures, cfg.weights) for p in self.named]
            self.images = [p.rgba for p in self.named]
        self._check_shapes()
        weights = torch.tensor([f.weight for f in self.frames])
        if not (weights.isfinite() & (weights >= 0)).all() or weights.sum() == 0:
            raise ConfigError(f"data.weights: expected finite numbers >= 0 that are not all 0, got {weights.tolist()}.")
        every = self.cfg.holdout_every
        held_out = [i for i in range(len(self.frames)) if every and i % every == every - 1]
        self.held_out = torch.tensor(held_out, dtype=torch.long)
        kept = [i for i in range(len(self.frames)) if i not in set(held_out)]
        self.train = torch.tensor(kept, dtype=torch.long)
        if not kept:
            raise ConfigError(f"data.holdout_every={every} leaves no image of {len(self.frames)} to train on.")
        self.weights = None
        if weights.unique().numel() > 1:
            self.weights = weights / weights[self.train].mean()

    def _check_shapes(self) -> None:
        """Refuse training sizes of another aspect ratio than an image, beyond rounding to whole pixels."""
        for frame, image in zip(self.frames, self.images, strict=True):
            h, w = image.shape[:2]
            for height, width in zip(self.height.values, self.width.values, strict=True):
                if abs(width - height * w / h) > max(1.0, ASPECT_TOLERANCE * width):
                    raise ConfigError(
                        f"data.width, data.height: {width}x{height} pixels have another shape than '{frame.path}' with "
                        f"{w}x{h}, which would be squeezed; with data.height={height} give data.width="
                        f"{max(1, round(height * w / h))}, or images of one shape."
                    )

    def save_inputs(self, folder: Path) -> dict[str, Any]:
        """Write the images that were cut out; see `BaseData`."""
        facts: dict[str, Any] = {}
        framed_here = any(p.saved for p in self.named)
        for image in self.named if framed_here else []:
            for name, steps in image.saved.items():
                write_png_atomic(folder / f"{image.name}_{name}.png", steps)
            path = write_png_atomic(folder / f"{image.name}_rgba.png", image.rgba)
            setattr(self.cfg.pictures, image.name, str(path))
            facts[image.name] = dict(image.facts)
        self.named = []
        return facts

    def views(self, height: int, width: int) -> ReferenceView:
        """Return all images at one size."""
        if (height, width) not in self._sizes:
            rgba = torch.from_numpy(np.stack([resize_rgba(p, height, width) for p in self.images]))
            c2w = torch.stack([f.c2w for f in self.frames])
            c2w[:, :3, 3] *= self.cfg.camera_scale
            fovx = torch.tensor([f.fovx for f in self.frames])
            fovy_deg = torch.rad2deg(2 * torch.atan(torch.tan(fovx / 2) * height / width))
            cameras = cameras_from_matrices(c2w, fovy_deg, height, width)
            self._sizes[height, width] = ReferenceView(cameras, rgba[..., :3], rgba[..., 3:], weights=self.weights)
        return self._sizes[height, width]

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> Batch:
        """Return a random choice of training images; each image is drawn once per epoch."""
        batch = min(self.batch_size(step), len(self.train))
        per_epoch = math.ceil(len(self.train) / batch)
        epoch, position = divmod(step, per_epoch)
        order = torch.randperm(len(self.train), generator=generator_for(self.seed, epoch, "order", rank, micro_step))
        chosen = torch.roll(order, -position * batch)[:batch]
        reference = _take(self.views(self.height(step), self.width(step)), self.train[chosen])
        generator = generator_for(self.seed, step, "cameras", rank, micro_step)
        return Batch(reference, self.sampler.sample(step, generator) if self.cfg.novel_views else None)

    def novel_sizes(self) -> list[tuple[int, int]]:
        """Return the sizes of the random views."""
        return self.sampler.sizes() if self.cfg.novel_views else []

    def reference(self) -> ReferenceView:
        """Return the held-out images, or all if none is held out, at the largest training size."""
        views = self.views(self.height.max, self.width.max)
        return _take(views, self.held_out) if len(self.held_out) else views

    def photos(self) -> ReferenceView:
        """Return the training images, at the first one's resolution."""
        height, width = self.images[0].shape[:2]
        return _take(self.views(max(height, self.height.max), max(width, self.width.max)), self.train)

    def conditioning_views(self) -> ReferenceView:
        """Return the training images: a guidance must not be conditioned on held-out ones."""
        return _take(self.views(self.height.max, self.width.max), self.train)

    def eval_cameras(self, split: str) -> Cameras:
        """Return the validation or test orbit."""
        return self.sampler.eval_cameras(split)


@dataclass(frozen=True)
class Frame:
    """One entry of transforms.json."""

    path: Path
    c2w: torch.Tensor
    """4 4, OpenGL camera axes."""
    fovx: float
    """Radians."""
    weight: float = 1.0
    """Weight of the image relative to the others."""


def read_transforms(path: Path) -> list[Frame]:
    """Read the frames of a NeRF-synthetic transforms.json; raises ConfigError or ImageError naming file and entry."""
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise ConfigError(
            f"data.transforms_path: '{path}' is not a file; it should be the transforms.json of a set of views."
        )
    if path.stat().st_size > MAX_TRANSFORMS_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size} bytes is too large for a transforms.json.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        frames = [_read_frame(path, content, entry) for entry in content["frames"]]
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ConfigError(f"{path}: not a NeRF-synthetic transforms.json ({type(error).__name__}: {error}).") from error
    if not frames:
        raise ConfigError(f"{path}: `frames` is empty.")
    return frames


def _read_frame(path: Path, content: dict, entry: dict) -> Frame:
    file = Path(entry["file_path"])
    image = path.parent / (file if file.suffix else file.with_suffix(".png"))
    if not image.resolve().is_relative_to(path.parent.resolve()):
        raise ImageError(f"{path}: '{file}' lies outside the folder of transforms.json; refused.")
    c2w = torch.tensor(entry["transform_matrix"], dtype=torch.float32)
    if c2w.shape != (4, 4) or not torch.isfinite(c2w).all():
        raise ConfigError(f"{path}: transform_matrix of '{file}' is not a finite 4x4 matrix.")
    fovx = entry["camera_angle_x"] if "camera_angle_x" in entry else content["camera_angle_x"]
    if not 0 < float(fovx) < math.pi:
        raise ConfigError(f"{path}: camera_angle_x of '{file}' is {fovx!r}; expected radians between 0 and pi.")
    return Frame(image, c2w, float(fovx), float(entry.get("weight", 1.0)))


def _named_frame(name: str, own: NamedImagesConfig, weights: NamedWeightsConfig) -> Frame:
    """Return the pose for a name; the images are square, so horizontal and vertical field of view are equal."""
    c2w = orbit_cameras(own.elevation_deg, AZIMUTHS_DEG[name], own.distance).c2w[0]
    return Frame(Path(getattr(own, name)), c2w, math.radians(own.fovy_deg), getattr(weights, name))


def _take(views: ReferenceView, index: torch.Tensor) -> ReferenceView:
    weights = None if views.weights is None else views.weights[index]
    return ReferenceView(views.cameras.select(index), views.rgb[index], views.mask[index], weights=weights)
