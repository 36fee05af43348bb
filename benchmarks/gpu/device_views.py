"""Renders that live on the device as 8-bit images, and batches that are drawn and augmented there."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from pack_renders import Renders, read_folder, read_pack
from torch import Tensor

from zero123s.errors import ConfigError, ImageError
from zero123s.ops.constants import constant
from zero123s.randomness import generator_for, generator_on
from zero123s.scenes.augment import FEW_COLOURS
from zero123s.structures import PosedViews

CONDITION_ELEVATION = (-10.0, 45.0)
"""Degrees of the views that may be inputs, as in train-zero123.yaml."""
GREY_WEIGHT = 0.5
"""How often an object of few colours is drawn, against one of many."""
HUE, PERMUTED, FADED = 0.25, 0.15, 0.1
"""Shares of the objects whose hues are rotated, whose channels are permuted, whose colours fade towards grey. Greys stay."""
MIRRORED = 0.5


@dataclass
class Source:
    """A folder of shards, which may still grow, or a package; `share` of the draws relative to the others'."""

    path: Path
    share: float

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read PATH or PATH:SHARE."""
        path, _, share = text.rpartition(":")
        try:
            return cls(Path(path), float(share)) if path else cls(Path(text), 1.0)
        except ValueError:
            return cls(Path(text), 1.0)

    def files(self) -> list[Path]:
        """Return the files that are there now: complete ones, because both kinds are written atomically."""
        return [self.path] if self.path.suffix == ".safetensors" else sorted(self.path.glob("shard_*.safetensors"))


class DeviceViews:
    """All objects of some sources on one device.

    Args:
        sources: at least one.
        device: keeps images and poses.
        only: names of the files to read, in this order; None = all that are there.

    Raises:
        ImageError: a file is missing, damaged, or has other numbers of views or pixels.
    """

    def __init__(self, sources: list[Source], device: torch.device, only: list[str] | None = None) -> None:
        self.sources, self.device = sources, device
        self.files: list[str] = []
        """What was read, in this order; the draws depend on it."""
        known = {str(file): number for number, source in enumerate(sources) for file in source.files()}
        if only is not None and (gone := [name for name in only if name not in known]):
            raise ImageError(f"{gone[0]}: the run that is resumed had read this file, and --data does not hold it now.")
        self._append([(name, known[name]) for name in (known if only is None else only)])
        if not self.files:
            raise ImageError(f"{sources[0].path}: holds no renders yet.")

    def grow(self) -> int:
        """Read what has been added to the folders; return how many objects."""
        before = len(self.images)
        found = [(str(file), number) for number, source in enumerate(self.sources) for file in source.files()]
        self._append([(name, number) for name, number in found if name not in self.files])
        return len(self.images) - before

    def _append(self, found: list[tuple[str, int]]) -> None:
        if not found:
            return
        read = [_read(Path(name)) for name, _ in found]
        parts = [[torch.from_numpy(getattr(r, name)).to(self.device) for name in _ARRAYS] for r in read]
        owners = [torch.full((len(r.images),), number) for r, (_, number) in zip(read, found, strict=True)]
        chroma = [_mean_chroma(some) for part in parts for some in part[0].split(256)]
        if self.files:
            parts.insert(0, [self.images, self.elevation_deg, self.azimuth_deg, self.distance])
            owners.insert(0, self.owner)
            chroma.insert(0, self.chroma)
        if len({part[0].shape[1:] for part in parts}) > 1:
            shapes = sorted({tuple(part[0].shape[1:3]) for part in parts})
            raise ImageError(f"--data: views and pixels differ, {shapes}; render all with the same --views and --size.")
        self.images, self.elevation_deg, self.azimuth_deg, self.distance = (
            torch.cat(column) for column in zip(*parts, strict=True)
        )
        self.owner, self.chroma = torch.cat(owners), torch.cat(chroma)
        self.files += [name for name, _ in found]
        low, high = CONDITION_ELEVATION
        self.allowed = (self.elevation_deg >= low) & (self.elevation_deg <= high)
        self._weigh()

    def _weigh(self) -> None:
        """Compute the cumulative probabilities of the objects."""
        weight = torch.where(self.chroma < FEW_COLOURS, GREY_WEIGHT, 1.0) * self.allowed.any(1)
        owner = self.owner.to(self.device)
        total = torch.zeros(len(self.sources), device=self.device).index_add_(0, owner, weight)
        share = torch.tensor([source.share for source in self.sources], device=self.device)
        share = torch.where(total > 0, share, 0.0)
        if not float(share.sum()) > 0:
            raise ConfigError("--data: no object may be drawn; give a share above 0 and views that may be inputs.")
        probability = weight.double() * (share / total.clamp_min(1e-9)).double()[owner]
        self.cumulative = (probability / probability.sum()).cumsum(0)

    def draw(self, seed: int, step: int, n_objects: int, n_targets: int) -> PosedViews:
        """Return the augmented batch of a step: one permitted view of each object first, then others.

        Args:
            seed: of the run.
            step: what is drawn depends on it, the seed and the files alone (and on the kind of device).
            n_objects: B.
            n_targets: K, below the number of views.

        Returns:
            B objects, K + 1 views each.
        """
        generator = generator_on(self.device, generator_for(seed, step, "gpu-views"))
        assert generator is not None
        at = torch.rand(n_objects, generator=generator, device=self.device, dtype=torch.float64)
        rows = torch.searchsorted(self.cumulative, at).clamp_max(len(self.images) - 1)
        views = self._select(rows, n_targets, generator)
        return mirrored(recoloured(views, generator), generator)

    def fixed_pairs(self) -> PosedViews:
        """Return one pair of every object, an input and a target, the same at every call."""
        generator = generator_on(self.device, generator_for(0, 0, "gpu-validation"))
        assert generator is not None
        return self._select(self.allowed.any(1).nonzero()[:, 0], 1, generator)

    def _select(self, rows: Int[Tensor, "B"], n_targets: int, generator: torch.Generator) -> PosedViews:
        shape = (len(rows), self.images.shape[1])
        keys = torch.rand(shape, generator=generator, device=self.device)
        first = torch.where(self.allowed[rows], keys, -1.0).argmax(1, keepdim=True)
        keys = torch.rand(shape, generator=generator, device=self.device).scatter_(1, first, -1.0)
        columns = torch.cat([first, keys.topk(n_targets, dim=1).indices], dim=1)
        rows = rows[:, None]
        poses = (self.elevation_deg, self.azimuth_deg, self.distance)
        return PosedViews(self.images[rows, columns].float() / 255, *(pose[rows, columns] for pose in poses))


_ARRAYS = ("images", "elevation_deg", "azimuth_deg", "distance")


def _read(path: Path) -> Renders:
    if not path.is_file():
        raise ImageError(f"{path}: does not exist; give a folder of zero123s render or a file of pack_renders.py.")
    return read_folder(path.parent, [path]) if path.name.startswith("shard_") else read_pack(path)


def _mean_chroma(images: Int[Tensor, "N V H W 4"]) -> Float[Tensor, "N"]:
    """Return the mean difference of the largest and the smallest of red, green and blue over the foreground."""
    alpha = images[..., 3].float()
    colors = images[..., :3]
    chroma = (colors.amax(-1) - colors.amin(-1)).float() / 255  # the larger comes first: no wrap-around
    return (chroma * alpha).flatten(1).sum(1) / alpha.flatten(1).sum(1).clamp_min(1)


def recoloured(views: PosedViews, generator: torch.Generator) -> PosedViews:
    """Change the colours of a share of the objects, alike in all views of one, by a matrix that keeps greys."""
    b, device = len(views.rgba), views.rgba.device
    kind = torch.rand(b, generator=generator, device=device)
    angle = torch.rand(b, generator=generator, device=device) * (2 * np.pi)
    order = torch.rand(b, 3, generator=generator, device=device).argsort(1)
    amount = torch.rand(b, generator=generator, device=device)[:, None, None]
    eye = torch.eye(3, device=device)
    grey = torch.full((3, 3), 1 / 3, device=device)
    cross = constant((0.0, -1.0, 1.0, 1.0, 0.0, -1.0, -1.0, 1.0, 0.0), views.rgba).view(3, 3) / 3**0.5
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    hue = grey + cos * (eye - grey) + sin * cross  # Rodrigues' formula about the grey axis
    matrix = eye.expand(b, 3, 3)
    for limit, other in ((HUE + PERMUTED + FADED, eye.lerp(grey, amount)), (HUE + PERMUTED, eye[order]), (HUE, hue)):
        matrix = torch.where((kind < limit)[:, None, None], other, matrix)
    rgb = (views.rgba[..., :3].flatten(1, 3) @ matrix.transpose(1, 2)).clamp(0, 1).view_as(views.rgba[..., :3])
    return replace(views, rgba=torch.cat([rgb, views.rgba[..., 3:]], dim=-1))


def mirrored(views: PosedViews, generator: torch.Generator, share: float = MIRRORED) -> PosedViews:
    """Mirror a share of the objects left to right: the images flipped, the azimuths with the opposite sign."""
    flip = torch.rand(len(views.rgba), generator=generator, device=views.rgba.device) < share
    rgba = torch.where(flip[:, None, None, None, None], views.rgba.flip(3), views.rgba)
    return replace(views, rgba=rgba, azimuth_deg=torch.where(flip[:, None], -views.azimuth_deg, views.azimuth_deg))
