"""Latents of Stable Diffusion 1 and 2 as colours, by the linear map of Latent-NeRF (Metzer et al. 2023)."""

from jaxtyping import Float
from torch import Tensor

LATENT_TO_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
"""Red, green and blue in [-1, 1] of each latent channel."""


def latents_to_rgb(
    latents: Float[Tensor, "... 4"], matrix: Float[Tensor, "4 3"] | None = None
) -> Float[Tensor, "... 3"]:
    """Return colours in [0, 1] of scaled latents; a rough image that needs no decoder."""
    matrix = latents.new_tensor(LATENT_TO_RGB) if matrix is None else matrix
    return ((latents @ matrix + 1) / 2).clamp(0, 1)
