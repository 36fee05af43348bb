"""How well the elevation of an image is estimated, on renders of known elevation that no training saw.

    python benchmarks/elevation.py [--count 200] [--first 9300000] [--zero123 40]

The network behind `data.default_elevation_deg: auto` is compared with constants, and with --zero123 N, on the first N
objects, criteria from the bundled Zero123: for each candidate elevation its denoising error of the image under
its own pose, the error of the image predicted back from a predicted view, and how much the vertical profile of the
lifted solid jumps (level faces).
"""

import argparse

import numpy as np
import torch
from torch.nn import functional as F

from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import locate_checkpoint
from zero123s.diffusion.model import Zero123Model
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.volume_sampling import sample_volume
from zero123s.preprocess.elevation import MIN_CONFIDENCE, estimate_elevation
from zero123s.preprocess.framing import frame_object
from zero123s.scenes.procedural import generate
from zero123s.scenes.render import random_light, render_views

LOW, HIGH = -5.0, 50.0
CANDIDATES = np.arange(-10.0, 56.0, 5.0)
NOISES = 4


def sample_view(seed: int) -> tuple[np.ndarray, float]:
    """Return one framed image of a generated object and the elevation it was rendered from."""
    rng = np.random.default_rng(seed)
    scene = generate(seed)
    elevation, azimuth = float(rng.uniform(LOW, HIGH)), float(rng.uniform(0, 360))
    camera = orbit_cameras(elevation, azimuth, height=256, width=256)
    return frame_object(render_views(scene, camera, random_light(rng)).rgba[0], 256)[0], elevation


def row(name: str, estimates: np.ndarray, truth: np.ndarray) -> str:
    """Return one line of the table."""
    error = np.abs(estimates - truth)
    return f"| {name} | {np.median(error):.1f} | {error.mean():.1f} | {np.mean(error <= 10):.2f} | {len(truth)} |"


class Zero123Criteria:
    """Scores of candidate elevations by a Zero123 with a pose lift; the lowest is the best."""

    def __init__(self) -> None:
        self.model = load_zero123(locate_checkpoint("load/zero123/small_zero123.safetensors").path)
        size = self.model.latent_size
        self.noise = torch.randn(NOISES, 4, size, size, generator=torch.Generator().manual_seed(0))
        axis = (torch.arange(32) + 0.5) * (1.36 / 32) - 0.68
        self.points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3)

    @torch.no_grad()
    def __call__(self, rgba: np.ndarray) -> dict[str, list[float]]:
        """Return criterion -> its score for each of CANDIDATES."""
        model, alpha = self.model, torch.from_numpy(rgba[..., 3:])
        white = (torch.from_numpy(rgba[..., :3]) * alpha + 1 - alpha).permute(2, 0, 1)[None]
        image = F.interpolate(white, (model.image_size, model.image_size), mode="area")
        latents, embedding = model.encode_image(image), model.embed_image(image)
        small = F.interpolate(white, (2 * model.latent_size,) * 2, mode="area")
        found: dict[str, list[float]] = {"denoising": [], "forth and back": [], "level faces": []}
        for e in CANDIDATES:
            own = model.pose_vector(e, 0.0, 3.8, e, 0.0, 3.8)
            volume = model.lift_volume(latents, own)
            assert volume is not None
            found["denoising"].append(self._denoising(model, latents, embedding, own, volume))
            found["forth and back"].append(self._forth_and_back(model, volume, small, float(e)))
            found["level faces"].append(self._level_faces(model, volume, float(e)))
        return found

    def _denoising(self, model: Zero123Model, latents: torch.Tensor, embedding, own, volume) -> float:
        context, concat = model.project(embedding, own), model.concat_for(latents, own, volume)
        error = 0.0
        for t in (300, 500, 700):
            steps = torch.full((NOISES,), t)
            noised = model.add_noise(latents.expand(NOISES, -1, -1, -1) * model.scale_factor, self.noise, steps)
            rest = (context.expand(NOISES, -1, -1), concat.expand(NOISES, -1, -1, -1))
            error += float((model.predict_noise(noised, steps, *rest) - self.noise).square().mean())
        return error

    def _render(self, model: Zero123Model, volume: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        assert model.lift is not None
        return ((model.lift.render(volume, pose[None]).features[:, :3] + 1) / 2).clamp(0, 1)

    def _forth_and_back(self, model: Zero123Model, volume: torch.Tensor, small: torch.Tensor, e: float) -> float:
        error = 0.0
        for azimuth in (60.0, -60.0, 180.0):
            there = self._render(model, volume, model.pose_vector(e, azimuth, 3.8, e, 0.0, 3.8))
            image = F.interpolate(there, (model.image_size,) * 2, mode="bicubic").clamp(0, 1)
            lifted = model.lift_volume(model.encode_image(image), model.pose_vector(e, 0.0, 3.8, e, 0.0, 3.8))
            assert lifted is not None
            back = self._render(model, lifted, model.pose_vector(e, -azimuth, 3.8, e, 0.0, 3.8))
            error += float((back - small).square().mean())
        return error

    def _level_faces(self, model: Zero123Model, volume: torch.Tensor, e: float) -> float:
        lift = model.lift
        assert lift is not None
        place = lift.to_volume(self.points, torch.deg2rad(torch.tensor([90 - e])))
        profile = sample_volume(lift.medium.opacity(volume[..., :1]), place).reshape(32, 32, 32).sum((0, 1))
        return -float(F.pad(profile / profile.sum(), (1, 1)).diff().abs().pow(3).sum())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=9_300_000)
    parser.add_argument("--zero123", type=int, default=0, metavar="N")
    args = parser.parse_args()
    images, truths = zip(*(sample_view(seed) for seed in range(args.first, args.first + args.count)), strict=True)
    truth = np.array(truths)
    estimates = [estimate_elevation(image) for image in images]
    guess = np.array([e.elevation_deg for e in estimates])
    sure = np.array([e.confidence >= MIN_CONFIDENCE for e in estimates])
    print("| | median error | mean error | within 10 degrees | images |\n|---|---|---|---|---|")
    print(row("auto", guess, truth))
    if 0 < sure.sum() < len(sure):
        print(row("auto, confidence at least 0.5", guess[sure], truth[sure]))
        print(row("auto, with the warning", guess[~sure], truth[~sure]))
    for constant in (5.0, 22.5):
        print(row(f"always {constant:g}", np.full_like(truth, constant), truth))
    if args.zero123:
        criteria = Zero123Criteria()
        scored = [criteria(image) for image in images[: args.zero123]]
        for name in scored[0]:
            best = np.array([CANDIDATES[int(np.argmin(s[name]))] for s in scored])
            print(row(f"Zero123: {name}", best, truth[: args.zero123]))
        print(row("always 22.5, the same images", np.full(args.zero123, 22.5), truth[: args.zero123]))


if __name__ == "__main__":
    main()
