"""3 x 3 convolutions with frozen weights, padded by one pixel: what the Zero123 networks spend most of their time in."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.convolution import reference

__all__ = ["conv3x3", "gains_from_winograd"]

# Below, the transforms cost more than the products that they save (measured on one core with AVX2).
MIN_CHANNELS = 96
MIN_PIXELS = 32 * 32


def gains_from_winograd(x: Tensor, weight: Tensor) -> bool:
    """Tell whether the numba kernels can take this convolution and are faster than torch's own."""
    height, width = x.shape[-2:]
    return (
        height * width >= MIN_PIXELS
        and height % 4 == 0
        and width % 4 == 0
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
    )


def conv3x3(
    x: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "K C 3 3"],
    bias: Float[Tensor, "K"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "B K H W"]:
    """Convolve with zero padding of one pixel; the `numba` backend is differentiable in `x` only.

    `auto` takes the numba kernels (float32, H and W multiples of 4, Winograd's F(4 x 4, 3 x 3): some 8e-6 of the largest
    value off, where torch is 4e-6 off) for frozen weights where they are faster, else torch.
    """
    if backend == "auto" and (weight.requires_grad or not gains_from_winograd(x, weight)):
        backend = "reference"
    if backends.resolve("convolution", backend, x.device) == "numba":
        from zero123s.ops.convolution.numba import conv3x3 as winograd

        return winograd(x, weight, bias)
    return reference.conv3x3(x, weight, bias)
