"""The small network that estimates the elevation of an image, and its training.

    python -m zero123s.preprocess.elevation_net RENDERS OUT.safetensors [--steps 1200]

RENDERS is what `zero123s render RENDERS --procedural 0:25000 --views 8 --supersample 2 --shard-size 500` wrote.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.errors import CheckpointError
from zero123s.preprocess.framing import SHARE
from zero123s.runtime.files import user_path
from zero123s.scenes.shards import read_shard

CANDIDATES_DEG = tuple(float(e) for e in range(-15, 61, 3))
SIZE = 64
"""Pixels per edge of the network's input."""
LABEL_WIDTH_DEG = 3.0
"""Standard deviation of the soft label: neighbouring candidates are nearly correct."""
HELD_OUT = 256
"""Objects at the end of the renders that are not trained on, as for the bundled Zero123."""


class ElevationNet(nn.Module):
    """A small convolutional classifier: from a framed image to one logit for each of CANDIDATES_DEG."""

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 16, 32, 64, 64)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(a, b, 5 if i == 0 else 3, stride=2, padding=2 if i == 0 else 1), nn.GroupNorm(8, b)]
            layers.append(nn.SiLU())
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(64 * 16, 96), nn.SiLU(), nn.Dropout(0.1), nn.Linear(96, len(CANDIDATES_DEG))
        )

    def forward(self, premultiplied: Float[Tensor, "B 4 64 64"]) -> Float[Tensor, "B C"]:
        """Compute the logits of framed images.

        Args:
            premultiplied: B 4 64 64 in [0, 1], colours multiplied by alpha; see `framed`.

        Returns:
            B C, one logit for each of CANDIDATES_DEG.
        """
        return self.head(self.body(2 * premultiplied - 1).flatten(1))


def load_elevation_net(path: Path) -> ElevationNet:
    """Load a trained network.

    Args:
        path: a .safetensors file that `train` wrote.

    Returns:
        The network in eval mode, float32.

    Raises:
        CheckpointError: the file is missing, damaged or not this network.
    """
    net = ElevationNet()
    try:
        net.load_state_dict({name: value.float() for name, value in load_file(str(path)).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"'{path}' is not an elevation network of this version; clone the repository again."
        ) from error
    return net.eval()


def framed(rgba: Float[Tensor, "B 4 S S"], generator: torch.Generator | None = None) -> Float[Tensor, "B 4 64 64"]:
    """Premultiply images and scale them so that the object's longer side takes SHARE of the frame.

    Args:
        rgba: B 4 S S, straight alpha in [0, 1].
        generator: for training: mirrors, shifts, scales and recolours the images slightly at random.

    Returns:
        B 4 64 64, premultiplied.
    """
    batch = len(rgba)
    alpha = rgba[:, 3:]
    pre = torch.cat([rgba[:, :3] * alpha, alpha], dim=1)
    low, high = _bounds(alpha[:, 0])
    scale = (high - low).amax(dim=1).clamp_min(0.05) / 2 / SHARE
    centre = (low + high) / 2
    flip = torch.ones(batch)
    if generator is not None:
        flip = 1.0 - 2.0 * (torch.rand(batch, generator=generator) < 0.5).float()
        scale = scale * (1 + 0.04 * torch.randn(batch, generator=generator))
        centre = centre + 0.02 * torch.randn(batch, 2, generator=generator)
        gain = torch.exp(0.15 * torch.randn(batch, 3, 1, 1, generator=generator))
        offset = 0.05 * torch.randn(batch, 3, 1, 1, generator=generator)
        colours = (pre[:, :3] * gain + offset * pre[:, 3:]).clamp(min=0).minimum(pre[:, 3:])
        pre = torch.cat([colours, pre[:, 3:]], dim=1)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale * flip, scale
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [batch, 4, SIZE, SIZE], align_corners=False)
    return F.grid_sample(pre, grid, mode="bilinear", align_corners=False)


def _bounds(alpha: Float[Tensor, "B S S"]) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    """Return left/top and right/bottom of the pixels that are at least half opaque, in [-1, 1]."""
    size = alpha.shape[-1]
    solid = torch.stack([alpha.amax(dim=1), alpha.amax(dim=2)], dim=1) >= 0.5
    index = torch.arange(size)
    first = torch.where(solid, index, size).amin(dim=-1)
    last = torch.where(solid, index, -1).amax(dim=-1)
    return first * (2 / size) - 1, (last + 1) * (2 / size) - 1


def labels(elevation_deg: Float[Tensor, "B"]) -> Float[Tensor, "B C"]:
    """Return soft labels: a narrow Gaussian over the candidates around each elevation.

    Args:
        elevation_deg: B.

    Returns:
        B C, rows summing to 1.

    Example:
        >>> import torch
        >>> from zero123s.preprocess.elevation_net import CANDIDATES_DEG, labels
        >>> CANDIDATES_DEG[labels(torch.tensor([30.0])).argmax()]
        30.0
    """
    distance = (elevation_deg[:, None] - torch.tensor(CANDIDATES_DEG)) / LABEL_WIDTH_DEG
    return torch.softmax(-0.5 * distance.square(), dim=1)


def _batches(folder: Path, batch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of images and elevations indefinitely, shuffled within a few shards at a time."""
    paths = sorted(folder.glob("shard_*.safetensors"))
    while True:
        order = rng.permutation(len(paths))
        for start in range(0, len(order), 3):
            images, elevations = [], []
            for i in order[start : start + 3]:
                shard = read_shard(paths[i])
                rows = slice(None, len(shard.images) - (HELD_OUT if i == len(paths) - 1 else 0))
                usable = shard.elevation_deg[rows] <= CANDIDATES_DEG[-1]
                images.append(shard.images[rows][usable])
                elevations.append(shard.elevation_deg[rows][usable])
            pixels, degrees = np.concatenate(images), np.concatenate(elevations)
            for part in np.array_split(rng.permutation(len(pixels)), max(1, len(pixels) // batch)):
                yield (
                    torch.from_numpy(pixels[part]).permute(0, 3, 1, 2).float() / 255,
                    torch.from_numpy(degrees[part]),
                )


def train(folder: Path, out: Path, steps: int, batch: int = 128, rate: float = 2e-3, seed: int = 0) -> ElevationNet:
    """Train the network from random weights; prints the loss at intervals.

    Args:
        folder: shards of renders, see the module's docstring.
        out: .safetensors file, written in half precision every 100 steps and at the end.
        steps: optimiser steps.
        batch: images per step.
        rate: peak learning rate of the one-cycle schedule.
        seed: of weights, shuffling and augmentation.

    Returns:
        The network in eval mode.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = ElevationNet().train()
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.02)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    source, started, mean = _batches(folder, batch, np.random.default_rng(seed)), time.perf_counter(), 0.0
    for step in range(steps):
        rgba, elevation_deg = next(source)
        loss = F.cross_entropy(net(framed(rgba, generator)), labels(elevation_deg))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99 or step == steps - 1:
            print(f"step {step + 1}: loss {mean:.3f}, {time.perf_counter() - started:.0f} s", flush=True)
            save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, str(out))
    return net.eval()


def main(argv: list[str] | None = None) -> int:
    """Train the network from the command line.

    Args:
        argv: arguments; None = those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=user_path)
    parser.add_argument("out", type=user_path)
    parser.add_argument("--steps", type=int, default=1200)
    args = parser.parse_args(argv)
    train(args.renders, args.out, args.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
