"""What is added to a network's output before training: a function of the distance from the origin."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from zero123s.ops.vectors import unit


class Cone(NamedTuple):
    """a + b |x| in a box [-radius, radius]^3."""

    radius: float
    a: float
    b: float

    def value(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return a + b |x|, with a finite gradient at the origin.

        Args:
            x: N 3, points.

        Returns:
            N.
        """
        return self.a + self.b * (x.square().sum(-1) + 1e-12).sqrt()

    def gradient(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Return the gradient by x.

        Args:
            x: N 3, points.

        Returns:
            N 3, zero at the origin.
        """
        return self.b * unit(x, 1e-6)
