"""The pose lift: renders the target view's geometry for Zero123, which a small network does not learn by attention.

The input view's latents become a feature volume in the frustum of the conditioning camera; volume rendering it along
the target camera's rays gives maps that are concatenated to the denoiser's input. The relative pose enters only through
geometry, so the network cannot ignore it. The original Zero123 has no such part: it belongs to the small model, and its
weights have the prefix `pose_lift.` in the checkpoint.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.ops.volume_sampling import Medium, composite_volume

DENSITY_GAIN, DENSITY_SHIFT = 4.0, 6.0
"""sigma = softplus(gain f - shift): near zero at the start, else every ray is opaque and gradients vanish."""
DENSITY_SCALE = 40.0
"""Per world unit."""


@dataclass(frozen=True)
class LiftedView:
    """The lifted volume, rendered from the target cameras."""

    features: Float[Tensor, "V F R R"]
    """Composited features, the first three of them colours on white in [-1, 1]."""
    opacity: Float[Tensor, "V 1 R R"]


class PoseLift(nn.Module):
    """Predicts maps of the target view from the latents of the input view.

    Args:
        in_channels: channels of the latents.
        latent_size: edge of the latents in cells.
        widths: channels of the 2-D network at full, half, quarter... size.
        volume_channels: channels while the volume is refined, at `latent_size`^3 cells.
        features: channels of the rendered volume, at (2 latent_size)^3 cells; colour first.
        n_samples: samples per ray.
        out_channels: maps that are concatenated to the denoiser's input.
        distance: of every camera, world units.
        fovy_deg: vertical field of view of every camera.
        bound: half depth of the volume, world units.
        mirrored: also lift the mirrored input, and average the volume with the mirrored one's mirror image: the result
            is then equivariant to mirroring the input.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.lift import PoseLift
        >>> lift = PoseLift(latent_size=4, widths=(32, 32), volume_channels=2, features=3, n_samples=4, out_channels=8)
        >>> pose = torch.tensor([[0.0, 1.0, 0.0, 1.5708]])  # 90 degrees to the right of a view at elevation 0
        >>> lift(torch.rand(1, 4, 4, 4), pose).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(
        self,
        in_channels: int = 4,
        latent_size: int = 16,
        widths: Sequence[int] = (64, 128, 192),
        volume_channels: int = 16,
        features: int = 12,
        n_samples: int = 24,
        out_channels: int = 32,
        distance: float = 3.8,
        fovy_deg: float = 20.0,
        bound: float = 0.75,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.latent_size, self.features, self.n_samples = latent_size, features, n_samples
        self.distance, self.bound = distance, bound
        self.tangent = math.tan(math.radians(fovy_deg) / 2)
        self.volume_channels = volume_channels
        self.planes = PlaneNetwork(in_channels + 4, volume_channels * latent_size, widths)
        self.refine = nn.Sequential(
            nn.Conv3d(volume_channels + 3, volume_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(volume_channels, volume_channels, 3, padding=1),
        )
        self.expand = nn.Conv3d(volume_channels, 8 * (features + 1), 1)
        self.to_maps = nn.Sequential(
            nn.Conv2d(features + 1, out_channels, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.mirror = MirrorLatents(in_channels) if mirrored else None

    def forward(self, image_latents: Float[Tensor, "B 4 h w"], pose: Float[Tensor, "B 4"]) -> Float[Tensor, "B C h w"]:
        """Predict the maps of one target view per input view.

        Args:
            image_latents: B 4 h w, unscaled latents of the input views.
            pose: B 4, as `pose_vector` of the family stable-zero123 gives it.

        Returns:
            B C h w, to concatenate to the denoiser's input.
        """
        volume = self.volume(image_latents, pose[:, 3])
        return self.maps(self.render(volume, pose[:, None]))

    def maps(self, view: LiftedView) -> Float[Tensor, "B C h w"]:
        """Turn a rendered view into the denoiser's input.

        Args:
            view: of V target cameras, at 2h x 2w pixels.

        Returns:
            V C h w.
        """
        rendered = torch.cat([view.features, view.opacity], dim=1)
        return self.to_maps(rendered.to(self.expand.weight.dtype))  # rendering is float32 in half precision models too

    def volume(self, image_latents: Float[Tensor, "B 4 h w"], polar: Float[Tensor, "B"]) -> Float[Tensor, "B D H W G"]:
        """Lift the latents of a view to a feature volume in its camera's frustum.

        Args:
            image_latents: B 4 h w, unscaled.
            polar: B, polar angle of the input cameras in radians, measured from +z.

        Returns:
            B D H W G: depth, row, column; the first of the G channels is the raw density.
        """
        if self.mirror is None:
            return self._volume(image_latents, polar)
        both = torch.cat([image_latents, self.mirror(image_latents)])
        volume, mirrored = self._volume(both, polar.repeat(2)).chunk(2)
        return torch.lerp(volume, mirrored.flip(3), 0.5)  # its columns, left to right

    def _volume(self, image_latents: Float[Tensor, "B 4 h w"], polar: Float[Tensor, "B"]) -> Float[Tensor, "B D H W G"]:
        batch, size = len(image_latents), self.latent_size
        axis = (torch.arange(size, device=polar.device, dtype=polar.dtype) + 0.5) * (2 / size) - 1
        v, u = torch.meshgrid(axis, axis, indexing="ij")
        pixels = torch.stack([u, v]).expand(batch, -1, -1, -1)
        view = torch.stack([polar.sin(), polar.cos()], 1)[:, :, None, None].expand(-1, -1, size, size)
        x = self.planes(torch.cat([image_latents, pixels, view], dim=1))
        x = x.unflatten(1, (self.volume_channels, size))
        # World coordinates, not image coordinates: objects stand upright and are mostly symmetric left to right.
        world = self._world(axis, polar).movedim(-1, 1)
        x = x + self.refine(torch.cat([x, world], dim=1))
        x = self.expand(F.silu(x)).unflatten(1, (self.features + 1, 2, 2, 2))
        # B G 2 2 2 D H W -> B 2D 2H 2W G
        return x.permute(0, 5, 2, 6, 3, 7, 4, 1).reshape(batch, 2 * size, 2 * size, 2 * size, self.features + 1)

    def render(self, volume: Float[Tensor, "B D H W G"], poses: Float[Tensor, "B K 4"]) -> LiftedView:
        """Render each volume from K target cameras.

        Args:
            volume: B D H W G, as `volume` returns it.
            poses: B K 4, as `pose_vector` of the family stable-zero123 gives them.

        Returns:
            B*K views, ordered object by object, at 2h x 2w pixels.
        """
        batch, k = poses.shape[:2]
        size = 2 * self.latent_size
        with torch.autocast(volume.device.type, enabled=False):  # half precision is half a cell off in a ray's sample
            points = self._points(poses.float().flatten(0, 1), size).reshape(batch, -1, self.n_samples, 3)
            gathered = composite_volume(volume.float(), points, self.medium).reshape(batch * k, size * size, -1)
        opacity, features = gathered[..., :1], gathered[..., 1:]
        features = torch.cat([features[..., :3] + 1 - opacity, features[..., 3:]], dim=-1)
        to_image = lambda x: x.transpose(1, 2).unflatten(2, (size, size))  # noqa: E731
        return LiftedView(to_image(features), to_image(opacity))

    @property
    def medium(self) -> Medium:
        """How the volume's first channel becomes density along one step of a ray."""
        return Medium(DENSITY_GAIN, DENSITY_SHIFT, DENSITY_SCALE * 2 * self.bound / self.n_samples)

    def _world(self, axis: Float[Tensor, "S"], polar: Float[Tensor, "B"]) -> Float[Tensor, "B S S S 3"]:
        """Return the world position of every cell (depth, row, column), the conditioning camera at azimuth 0."""
        depth, v, u = torch.meshgrid(axis, axis, axis, indexing="ij")
        along = self.distance + self.bound * depth
        x, y = u * self.tangent * along, -v * self.tangent * along
        centre, frame = camera_frame(polar, torch.zeros_like(polar), self.distance)
        local = torch.stack([x, y, -along], dim=-1)
        return torch.einsum("dhwj,bij->bdhwi", local, frame) + centre[:, None, None, None]

    def _points(self, pose: Float[Tensor, "B 4"], size: int) -> Float[Tensor, "B P 3"]:
        """Return the samples of the target camera's rays in the volume's coordinates, in [-1, 1] inside it."""
        polar = pose[:, 3]
        given_centre, given_frame = camera_frame(polar, torch.zeros_like(polar), self.distance)
        centre, frame = camera_frame(polar + pose[:, 0], torch.atan2(pose[:, 1], pose[:, 2]), self.distance)
        axis = ((torch.arange(size, device=pose.device, dtype=pose.dtype) + 0.5) * (2 / size) - 1) * self.tangent
        y, x = torch.meshgrid(-axis, axis, indexing="ij")
        rays = torch.stack([x, y, -torch.ones_like(x)], dim=-1).reshape(1, -1, 3)
        # Origin and directions are few, samples are many: turn the former into the conditioning camera's frame.
        rays_o = ((centre - given_centre)[:, None] @ given_frame).movedim(-1, 0)[..., None]
        rays_d = (rays @ (frame.transpose(1, 2) @ given_frame)).movedim(-1, 0)[..., None]
        steps = (torch.arange(self.n_samples, device=pose.device, dtype=pose.dtype) + 0.5) / self.n_samples
        along = self.distance + self.bound * (2 * steps - 1)
        x, y, z = (torch.addcmul(o, d, along) for o, d in zip(rays_o, rays_d, strict=True))
        widening = (z * -self.tangent).reciprocal_()
        place = [x.mul_(widening), y.mul_(widening).neg_(), z.add_(self.distance).div_(-self.bound)]
        return torch.stack(place, dim=-1).flatten(1, 2)

    def to_volume(self, world: Float[Tensor, "B P 3"], polar: Float[Tensor, "B"]) -> Float[Tensor, "B P 3"]:
        """Transform world points to the coordinates of a lifted volume.

        Args:
            world: B P 3, world coordinates with the conditioning camera at azimuth 0.
            polar: B, polar angle of the conditioning cameras in radians.

        Returns:
            B P 3: column, row, depth, in [-1, 1] inside the volume.
        """
        centre, frame = camera_frame(polar, torch.zeros_like(polar), self.distance)
        local = (world - centre[:, None]) @ frame
        depth = -local[..., 2]
        u, v = local[..., 0] / (depth * self.tangent), -local[..., 1] / (depth * self.tangent)
        return torch.stack([u, v, (depth - self.distance) / self.bound], dim=-1)


class MirrorLatents(nn.Module):
    """Predicts the latents of the mirrored image: the flipped latents, corrected by small convolutions.

    Flipping an image does not flip its latents exactly: a channel may encode edges from the left. Initialised as the
    flip.

    Args:
        channels: of the latents.
        width: channels between the two correcting convolutions.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.lift import MirrorLatents
        >>> latents = torch.arange(4.0).reshape(1, 1, 1, 4)
        >>> MirrorLatents(1)(latents).flatten().tolist()
        [3.0, 2.0, 1.0, 0.0]
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, channels, 3, padding=1)
        last = nn.Conv2d(width, channels, 3, padding=1)
        self.mend = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), last)
        nn.init.dirac_(self.linear.weight)
        for parameter in (self.linear.bias, last.weight, last.bias):
            assert parameter is not None
            nn.init.zeros_(parameter)

    def forward(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Predict the latents of the mirrored images.

        Args:
            latents: B C h w, of the images.

        Returns:
            B C h w.
        """
        flipped = latents.flip(-1)
        return self.linear(flipped) + self.mend(flipped)


def camera_frame(
    polar: Float[Tensor, "B"], azimuth: Float[Tensor, "B"], distance: float
) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3 3"]]:
    """Compute centre and axes of a camera that looks at the origin.

    Args:
        polar: B, angle from +z in radians.
        azimuth: B, angle from +x towards +y in radians.
        distance: from the origin, world units.

    Returns:
        B 3, the centre, and B 3 3, the axes as columns: right, up, back (OpenGL).

    Example:
        >>> import torch
        >>> from zero123s.diffusion.lift import camera_frame
        >>> centre, axes = camera_frame(torch.tensor([torch.pi / 2]), torch.tensor([0.0]), 2.0)
        >>> centre.round().abs().tolist(), axes[0, :, 2].round().abs().tolist()  # on the x axis, looking back along it
        ([[2.0, 0.0, 0.0]], [1.0, 0.0, 0.0])
    """
    sin_p, cos_p, sin_a, cos_a = polar.sin(), polar.cos(), azimuth.sin(), azimuth.cos()
    back = torch.stack([sin_p * cos_a, sin_p * sin_a, cos_p], dim=-1)
    right = torch.stack([-sin_a, cos_a, torch.zeros_like(sin_a)], dim=-1)
    up = torch.linalg.cross(back, right)
    return back * distance, torch.stack([right, up, back], dim=-1)


class PlaneNetwork(nn.Module):
    """A small 2-D U-Net with self-attention at its two coarsest resolutions.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        widths: channels at full, half, quarter... size; multiples of 32.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        levels = range(len(widths))
        attends = [level >= max(1, len(widths) - 2) for level in levels]
        self.down = nn.ModuleList(PlaneBlock(w, w, a) for w, a in zip(widths, attends, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.middle = PlaneBlock(widths[-1], widths[-1], True)
        self.up = nn.ModuleList(PlaneBlock(2 * widths[i], widths[i], attends[i]) for i in levels)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.last = nn.Sequential(
            nn.GroupNorm(32, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], out_channels, 3, padding=1)
        )

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K h w"]:
        """Apply the network.

        Args:
            x: B C h w; h and w are multiples of 2 ** (number of widths - 1).

        Returns:
            B K h w, K = `out_channels`.
        """
        x = self.first(x)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x)
            skips.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
        x = self.middle(x)
        for level in reversed(range(len(skips))):
            x = self.up[level](torch.cat([x, skips[level]], dim=1))
            if level > 0:
                x = self.grow[level - 1](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(x)


class PlaneBlock(nn.Module):
    """A residual block, optionally followed by self-attention over all cells.

    Args:
        in_channels: of the input.
        out_channels: of the output; a multiple of 32.
        attends: add the attention.
    """

    def __init__(self, in_channels: int, out_channels: int, attends: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(32, in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.GroupNorm(32, out_channels), nn.SiLU(), nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )  # fmt: skip
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.norm = nn.LayerNorm(out_channels) if attends else None
        self.attention = nn.MultiheadAttention(out_channels, 4, batch_first=True) if attends else None

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K h w"]:
        """Apply the block.

        Args:
            x: B C h w.

        Returns:
            B K h w, K = `out_channels`.
        """
        x = self.skip(x) + self.body(x)
        if self.attention is None or self.norm is None:
            return x
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        mixed = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])
