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
    """Return approximate colours of scaled latents, without a decoder.

    Args:
        latents: ... 4, latents times the autoencoder's scale factor.
        matrix: 4 3, colours in [-1, 1] of each channel; None = Latent-NeRF's.

    Returns:
        ... 3, red, green and blue in [0, 1].

    Example:
        >>> import torch
        >>> from zero123s.ops.latent_colors import latents_to_rgb
        >>> latents_to_rgb(torch.zeros(4)).tolist()
        [0.5, 0.5, 0.5]
    """
    matrix = latents.new_tensor(LATENT_TO_RGB) if matrix is None else matrix
    return ((latents @ matrix + 1) / 2).clamp(0, 1)
