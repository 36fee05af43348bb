"""A perceptual distance from the features of EfficientNet-lite0, a small classifier trained on ImageNet."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.errors import CheckpointError
from zero123s.ops.lpips import Lpips

MEAN, DEVIATION = 127 / 255, 128 / 255
"""What the network was trained to have subtracted from sRGB in [0, 1], and divided by."""
EPS = 1e-3
"""Of the batch normalisations."""
MIN_SIZE = 32
"""Pixels per side of the smallest image."""


class Stage(NamedTuple):
    """Inverted bottlenecks of one resolution."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""The network, after a stem of 32 channels at half the resolution (Liu 2020, lite0 of Tan and Le 2019)."""
COMPARED = (0, 1, 2, 4, 6)
"""Stages whose features are compared: the last of each resolution, 1/2 to 1/32."""


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Compute the shapes of all tensors up to the last stage.

    Returns:
        Shapes by the names of the package's file.
    """
    shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (32, 3, 3, 3)}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})

    norm("_bn0", 32)
    block, channels = 0, 32
    for stage in STAGES:
        for _ in range(stage.repeats):
            prefix, wide = f"_blocks.{block}", channels * stage.expansion
            if stage.expansion > 1:
                shapes[f"{prefix}._expand_conv.weight"] = (wide, channels, 1, 1)
                norm(f"{prefix}._bn0", wide)
            shapes[f"{prefix}._depthwise_conv.weight"] = (wide, 1, stage.kernel, stage.kernel)
            norm(f"{prefix}._bn1", wide)
            shapes[f"{prefix}._project_conv.weight"] = (stage.channels, wide, 1, 1)
            norm(f"{prefix}._bn2", stage.channels)
            block, channels = block + 1, stage.channels
    return shapes


class EfficientNetDistance(nn.Module):
    """Perceptual distance of two images: 0 = equal; it depends on their size.

    As LPIPS without learned channel weights: features of unit length over the channels are subtracted, squared, summed
    over the channels, averaged over the image and over five resolutions.

    Args:
        weights: tensors by the names of `weight_shapes`; others are ignored.

    Raises:
        CheckpointError: the end of a sentence about a file: a tensor is missing, of another shape, or not finite.

    Example:
        >>> import torch
        >>> from zero123s.ops.efficientnet import EfficientNetDistance, weight_shapes
        >>> network = EfficientNetDistance({name: torch.full(shape, 0.1) for name, shape in weight_shapes().items()})
        >>> image = torch.rand(2, 3, 64, 64)
        >>> network.key, network(image, image).tolist()
        ('efficientnet', [0.0, 0.0])
    """

    key = "efficientnet"
    """The score's name."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the weights; see the class."""
        super().__init__()
        for name, shape in weight_shapes().items():
            tensor = weights.get(name)
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
                raise CheckpointError(f"it has no tensor '{name}' of the shape {shape}")
            if not tensor.isfinite().all():
                raise CheckpointError(f"'{name}' holds values that are not finite")
            # Not in checkpoints: the weights have terms of their own.
            self.register_buffer(name.replace(".", "-"), tensor.detach().float().clone(), persistent=False)

    def _weight(self, name: str) -> Tensor:
        return self.get_buffer(name.replace(".", "-"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self._weight(f"{name}.{part}") for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=EPS)

    def _conv(self, x: Tensor, name: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        """Convolve with TensorFlow's "same" padding, with which the weights were trained."""
        weight = self._weight(f"{name}.weight")
        kernel = weight.shape[-1]
        pads: list[int] = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=x.shape[1] if depthwise else 1)

    def _block(self, x: Tensor, prefix: str, stride: int, expands: bool) -> Tensor:
        y = x
        if expands:
            y = F.relu6(self._norm(self._conv(y, f"{prefix}._expand_conv"), f"{prefix}._bn0"))
        y = F.relu6(self._norm(self._conv(y, f"{prefix}._depthwise_conv", stride, depthwise=True), f"{prefix}._bn1"))
        y = self._norm(self._conv(y, f"{prefix}._project_conv"), f"{prefix}._bn2")
        return x + y if y.shape == x.shape else y

    def features(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Compute the features that are compared.

        Args:
            image: B 3 H W, in [0, 1].

        Returns:
            B C h w each, finest first: the last of each resolution from 1/2 to 1/32.
        """
        x = F.relu6(self._norm(self._conv((image - MEAN) / DEVIATION, "_conv_stem", 2), "_bn0"))
        found, block = [], 0
        for i, stage in enumerate(STAGES):
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                x = self._block(x, f"_blocks.{block}", stride, stage.expansion > 1)
                block += 1
            if i in COMPARED:
                found.append(x)
        return found

    @torch.no_grad()
    def forward(self, a: Float[Tensor, "B 3 H W"], b: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
        """Return the perceptual distance of image pairs.

        Args:
            a: B 3 H W, in [0, 1], at least `MIN_SIZE` pixels wide and high.
            b: B 3 H W, as `a`.

        Returns:
            B, distances in [0, 4]; without gradients.
        """
        assert min(a.shape[-2:]) >= MIN_SIZE, f"images of {tuple(a.shape[-2:])} pixels"
        distances = []
        for x, y in zip(self.features(a), self.features(b), strict=True):
            difference = F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)
            distances.append(difference.square().sum(1).mean((1, 2)))
        return torch.stack(distances).mean(0)


PerceptualNetwork = Lpips | EfficientNetDistance
"""What compares images by learned features."""
