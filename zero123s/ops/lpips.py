"""LPIPS v0.1, the learned perceptual distance of Zhang et al. 2018, with weights that the caller brings."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.errors import CheckpointError

# Of images in [-1, 1]: the mean and deviation of ImageNet in that range, as the authors rounded them.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Conv:
    """A convolution with a ReLU behind it."""

    index: int
    """Its number in torchvision's `features`."""
    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Stage:
    """What lies between two places where features are compared: a max-pooling (0 = none), then convolutions."""

    pool: int
    convs: tuple[Conv, ...]


@dataclass(frozen=True)
class Backbone:
    """A classifier's convolutions; features are compared after every stage."""

    stages: tuple[Stage, ...]
    min_size: int
    """Pixels per side of the smallest image that leaves anything to compare after the last stage."""


BACKBONES = {
    "alex": Backbone(
        (
            Stage(0, (Conv(0, 3, 64, kernel=11, stride=4, padding=2),)),
            Stage(3, (Conv(3, 64, 192, kernel=5, padding=2),)),
            Stage(3, (Conv(6, 192, 384),)),
            Stage(0, (Conv(8, 384, 256),)),
            Stage(0, (Conv(10, 256, 256),)),
        ),
        min_size=31,
    ),
    "vgg": Backbone(
        (
            Stage(0, (Conv(0, 3, 64), Conv(2, 64, 64))),
            Stage(2, (Conv(5, 64, 128), Conv(7, 128, 128))),
            Stage(2, (Conv(10, 128, 256), Conv(12, 256, 256), Conv(14, 256, 256))),
            Stage(2, (Conv(17, 256, 512), Conv(19, 512, 512), Conv(21, 512, 512))),
            Stage(2, (Conv(24, 512, 512), Conv(26, 512, 512), Conv(28, 512, 512))),
        ),
        min_size=16,
    ),
}


def backbone_shapes(net: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a backbone's convolutions.

    Args:
        net: "alex" or "vgg".

    Returns:
        Shapes by torchvision's names.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in (conv for stage in BACKBONES[net].stages for conv in stage.convs):
        shapes[f"features.{conv.index}.weight"] = (conv.out_channels, conv.in_channels, conv.kernel, conv.kernel)
        shapes[f"features.{conv.index}.bias"] = (conv.out_channels,)
    return shapes


def linear_shapes(net: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the channel weights.

    Args:
        net: "alex" or "vgg".

    Returns:
        Shapes by the lpips package's names.

    Example:
        >>> from zero123s.ops.lpips import linear_shapes
        >>> linear_shapes("alex")["lin0.model.1.weight"]
        (1, 64, 1, 1)
    """
    stages = BACKBONES[net].stages
    return {f"lin{i}.model.1.weight": (1, s.convs[-1].out_channels, 1, 1) for i, s in enumerate(stages)}


def _checked(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the named weights as float32; raises CheckpointError, a fragment of a sentence."""
    found = {}
    for name, shape in shapes.items():
        tensor = weights.get(name)
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"it has no tensor '{name}'")
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"'{name}' has the shape {tuple(tensor.shape)} instead of {shape}")
        if not tensor.isfinite().all():
            raise CheckpointError(f"'{name}' holds values that are not finite")
        found[name] = tensor.detach().float().clone()
    return found


def checked_backbone(weights: Mapping[str, Tensor], net: str) -> dict[str, Tensor]:
    """Return a backbone's convolutions as float32.

    Args:
        weights: tensors by torchvision's names; others are ignored.
        net: "alex" or "vgg".

    Returns:
        The named weights.

    Raises:
        CheckpointError: the end of a sentence about a file: a tensor is missing, of another shape, or not finite.
    """
    return _checked(weights, backbone_shapes(net))


def checked_linear(weights: Mapping[str, Tensor], net: str) -> dict[str, Tensor]:
    """Return the channel weights as float32.

    Args:
        weights: tensors by the lpips package's names; others are ignored.
        net: "alex" or "vgg".

    Returns:
        The named weights, none below 0.

    Raises:
        CheckpointError: the end of a sentence about a file: a tensor is missing, of another shape, not finite, or
            negative.
    """
    found = _checked(weights, linear_shapes(net))
    for name, tensor in found.items():
        if (tensor < 0).any():  # a distance could become negative
            raise CheckpointError(f"'{name}' holds values below 0")
    return found


def _unit(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    return features / (features.norm(dim=1, keepdim=True) + 1e-10)


class Lpips(nn.Module):
    """Perceptual distance of two images: 0 = equal; it depends on their size.

    Both pass through a classifier's convolutions; features of unit length over the channels are subtracted, squared,
    weighted by channel, averaged over the image and summed over five depths.

    Args:
        backbone: convolutions under torchvision's names (`features.0.weight`), others are ignored.
        linear: weights of the channels under the lpips package's names (`lin0.model.1.weight`).
        net: "alex" or "vgg".

    Raises:
        CheckpointError: weights that are missing, of another shape, or not finite.

    Example:
        >>> import torch
        >>> from zero123s.ops.lpips import Lpips, backbone_shapes, linear_shapes
        >>> fill = lambda shapes: {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
        >>> lpips = Lpips(fill(backbone_shapes("alex")), fill(linear_shapes("alex")))
        >>> image = torch.rand(2, 3, 32, 32)
        >>> lpips.key, lpips(image, image).tolist()
        ('lpips', [0.0, 0.0])
    """

    def __init__(self, backbone: Mapping[str, Tensor], linear: Mapping[str, Tensor], net: str = "alex") -> None:
        """Copy the weights; see the class."""
        super().__init__()
        self.net = net
        for name, tensor in (checked_backbone(backbone, net) | checked_linear(linear, net)).items():
            self._keep(name.replace(".", "_"), tensor)
        self._keep("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self._keep("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def _keep(self, name: str, tensor: Tensor) -> None:
        """Hold a tensor that moves with the module but is not checkpointed: the weights have a licence of their own."""
        self.register_buffer(name, tensor, persistent=False)

    @property
    def key(self) -> str:
        """The score's name: `lpips` is the authors' default, AlexNet."""
        return "lpips" if self.net == "alex" else f"lpips_{self.net}"

    def _pass(self, x: Tensor, stage: Stage) -> Tensor:
        if stage.pool:
            x = F.max_pool2d(x, stage.pool, stride=2)
        for conv in stage.convs:
            weight, bias = (self.get_buffer(f"features_{conv.index}_{part}") for part in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, conv.stride, conv.padding).relu_()
        return x

    @torch.no_grad()
    def forward(self, a: Float[Tensor, "B 3 H W"], b: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B"]:
        """Return the perceptual distance of image pairs.

        Args:
            a: B 3 H W, in [0, 1], at least `BACKBONES[net].min_size` pixels wide and high.
            b: B 3 H W, as `a`.

        Returns:
            B, distances >= 0; without gradients.
        """
        backbone = BACKBONES[self.net]
        assert min(a.shape[-2:]) >= backbone.min_size, f"images of {tuple(a.shape[-2:])} pixels"
        shift, scale = self.get_buffer("shift"), self.get_buffer("scale")
        x, y = ((2 * image.to(shift) - 1 - shift) / scale for image in (a, b))
        distance = x.new_zeros(len(x))
        # Stage by stage, so that only one stage's features are in memory.
        for i, stage in enumerate(backbone.stages):
            x, y = self._pass(x, stage), self._pass(y, stage)
            apart = (_unit(x) - _unit(y)).square().mean((2, 3))
            distance += apart @ self.get_buffer(f"lin{i}_model_1_weight").flatten()
        return distance
