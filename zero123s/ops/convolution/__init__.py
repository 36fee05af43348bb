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
    """Return whether the numba kernels can run this convolution and are faster than torch's own.

    Args:
        x: B C H W, the input.
        weight: K C 3 3, the kernels.

    Returns:
        True for large float32 CPU inputs with H and W multiples of 4.

    Example:
        >>> import torch
        >>> from zero123s.ops.convolution import gains_from_winograd
        >>> weight, sizes = torch.zeros(128, 128, 3, 3), (32, 8)
        >>> tuple(gains_from_winograd(torch.zeros(1, 128, n, n), weight) for n in sizes)
        (True, False)
    """
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
    """Convolve with zero padding of one pixel.

    `auto` takes the numba kernels (float32, H and W multiples of 4, Winograd's F(4 x 4, 3 x 3): some 8e-6 of the
    largest value off, where torch is 4e-6 off) for frozen weights where they are faster, else torch. The `numba`
    backend is differentiable in `x` only.

    Args:
        x: B C H W, the input.
        weight: K C 3 3, the kernels.
        bias: K, added to the output channels.
        backend: "auto", "reference" or "numba" (CPU).

    Returns:
        B K H W.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.convolution import conv3x3
        >>> conv3x3(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 3, 3))[0, 0].tolist()  # counts the pixels around each
        [[4.0, 6.0, 4.0], [4.0, 6.0, 4.0]]
    """
    if backend == "auto" and (weight.requires_grad or not gains_from_winograd(x, weight)):
        backend = "reference"
    if backends.resolve("convolution", backend, x.device) == "numba":
        from zero123s.ops.convolution.numba import conv3x3 as winograd

        return winograd(x, weight, bias)
    return reference.conv3x3(x, weight, bias)
