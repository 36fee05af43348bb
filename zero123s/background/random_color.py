"""Random uniform backgrounds of training views, so that the field cannot blend into a fixed background colour."""

import torch
from jaxtyping import Float
from torch import Tensor


def replace_by_random_color(
    color: Float[Tensor, "B H W K"], probability: float, generator: torch.Generator | None
) -> Float[Tensor, "B H W K"]:
    """Return one uniformly random colour per view in place of `color`, with `probability` for the whole batch."""
    if generator is None:
        return color
    chance = torch.rand((), generator=generator)
    drawn = torch.rand(color.shape[0], 1, 1, color.shape[-1], generator=generator).to(color)
    return drawn.expand_as(color) if chance < probability else color
