"""3 x 3 convolution with plain torch."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def conv3x3(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "K C 3 3"], bias: Float[Tensor, "K"] | None = None
) -> Float[Tensor, "B K H W"]:
    """Convolve with zero padding of one pixel; see `zero123s.ops.convolution.conv3x3`.

    Args:
        x: B C H W, the input.
        weight: K C 3 3, the kernels.
        bias: K, added to the output channels.

    Returns:
        B K H W.
    """
    return F.conv2d(x, weight, bias, padding=1)
