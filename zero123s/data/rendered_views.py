"""Rendered views of many objects, to train Zero123 and its autoencoder on."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from zero123s.config.options import option, ordered
from zero123s.data.base import DATA, BaseData
from zero123s.errors import ConfigError
from zero123s.randomness import generator_for, world_size
from zero123s.scenes.latents import LatentFolder
from zero123s.scenes.renders import open_renders
from zero123s.structures import PosedViews


@DATA.register("rendered-views-datamodule")
class RenderedViews(BaseData):
    """One condition view and some target views of a few objects per step; each object is drawn once per epoch."""

    @dataclass
    class Config(BaseData.Config):
        """Settings of `rendered-views-datamodule`."""

        root: str = option("???", path=True)
        """Folder of shards that `zero123s render` wrote, or of renders in the original Zero123's layout."""
        latents: str = option("", path=True)
        """Folder of `zero123s cache-latents`; empty = the images are encoded at every step."""
        batch_size: int = option(16, low=1, high=65536)
        """Objects per step."""
        n_targets: int = option(1, low=1, high=1000)
        """Target views of each."""
        condition_elevation_range: list[float] = field(default_factory=lambda: [-10.0, 45.0])
        """Degrees; condition views are chosen from this range only."""
        held_out: int = option(256, low=0)
        """Objects at the end that are kept for validation."""

        def __post_init__(self) -> None:
            ordered(self.condition_elevation_range, "condition_elevation_range", -90, 90)

    cfg: Config

    def prepare(self) -> None:
        """Open the shards; raises ImageError or ConfigError."""
        cfg = self.cfg
        self.views = open_renders(cfg.root)
        self.latents = LatentFolder(Path(cfg.latents), self.views) if cfg.latents else None
        low, high = cfg.condition_elevation_range
        elevation = self.views.elevation_deg
        allowed = (elevation >= low) & (elevation <= high)
        usable = np.flatnonzero(allowed.any(1) & (elevation.shape[1] > cfg.n_targets))
        if not 0 <= cfg.held_out < len(usable):
            raise ConfigError(
                f"data.held_out={cfg.held_out} leaves nothing to train on: {cfg.root} has {len(usable)} usable objects "
                f"(with a view from {low} to {high} degrees and {cfg.n_targets} more)."
            )
        self.allowed = allowed
        self.train = torch.from_numpy(usable[: len(usable) - cfg.held_out])
        self.validation = torch.from_numpy(usable[len(usable) - cfg.held_out :])
        self._order: tuple[tuple[int, int], torch.Tensor] = ((-1, 0), self.train)

    def check_files(self) -> None:
        """Open the shards and the cached latents; see `BaseData`."""
        self.prepare()  # reads their heads only

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> PosedViews:  # type: ignore[override]
        """Return the views of global step `step`."""
        batch, n, world = self.cfg.batch_size, len(self.train), world_size()
        # Counted over all processes: what is drawn for a sample depends on its number, not on who draws it.
        numbers = [(step * world + rank) * batch + k for k in range(batch)]
        index = [self._permutation(number // n, micro_step)[number % n] for number in numbers]
        generators = [generator_for(self.seed, number, "views", 0, micro_step) for number in numbers]
        return self._draw(torch.stack(index), generators, self.cfg.n_targets)

    def validation_batch(self, number: int, size: int) -> PosedViews:
        """Return a fixed batch of held-out objects, one target each; the same in every run with these shards."""
        index = self.validation[number * size : (number + 1) * size]
        generators = [generator_for(0, int(i), "validation") for i in index]
        return self._draw(index, generators, n_targets=1)

    def _permutation(self, epoch: int, micro_step: int) -> torch.Tensor:
        key = (epoch, micro_step)
        if self._order[0] != key:
            generator = generator_for(self.seed, epoch, "objects", 0, micro_step)
            self._order = (key, self.train[torch.randperm(len(self.train), generator=generator)])
        return self._order[1]

    def _draw(self, index: torch.Tensor, generators: list[torch.Generator], n_targets: int) -> PosedViews:
        """Return the objects at `index`, a random permitted view first, then random others."""
        chosen, images, latents, embeddings = [], [], [], []
        for i, generator in zip(index.tolist(), generators, strict=True):
            allowed = torch.from_numpy(np.flatnonzero(self.allowed[i]))
            first = int(allowed[torch.randint(len(allowed), (1,), generator=generator)])
            others = torch.randperm(self.views.elevation_deg.shape[1], generator=generator)
            order = [first, *others[others != first][:n_targets].tolist()]
            chosen.append(order)
            images.append(self.views.images(i)[order])
            if self.latents is not None:
                latents.append(self.latents.latents(i)[order])
                embeddings.append(self.latents.embeddings(i)[first])
        rows, columns = index.numpy()[:, None], np.array(chosen)
        poses = (self.views.elevation_deg, self.views.azimuth_deg, self.views.distance)
        elevation, azimuth, distance = (torch.from_numpy(p[rows, columns]).float() for p in poses)
        rgba = torch.from_numpy(np.stack(images)).float() / 255
        cached = [torch.from_numpy(np.stack(x)).float() if x else None for x in (latents, embeddings)]
        return PosedViews(rgba, elevation, azimuth, distance, *cached)
