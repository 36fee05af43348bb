"""Gives an autoencoder uncorrelated latents of unit variance, by changing nothing but its two 1 x 1 convolutions."""

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def whiten(vae: AutoencoderKL, latents: Float[Tensor, "N C"], variances: Float[Tensor, "N C"]) -> None:
    """Bake the principal axes of the latents into `quant_conv`, and the way back into `post_quant_conv`.

    Pictures are reconstructed as before. The posterior's variance, which the rotation would correlate, becomes its
    mean along each new axis: it is tiny beside one.

    Args:
        vae: changed in place.
        latents: posterior means of many cells.
        variances: posterior variances of the same cells.
    """
    mean = latents.double().mean(0)
    values, axes = torch.linalg.eigh(torch.cov(latents.double().T))
    forward = (axes / values.sqrt()).T
    backward = axes * values.sqrt()
    n = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    weight, bias = quant.weight.double().flatten(1), quant.bias.double()
    new_variance = (forward.square() @ variances.double().mean(0)).clamp_min(1e-12)
    quant.weight.copy_(torch.cat([forward @ weight[:n], torch.zeros_like(weight[n:])])[..., None, None])
    quant.bias.copy_(torch.cat([forward @ (bias[:n] - mean), new_variance.log()]))
    weight = post.weight.double().flatten(1)
    post.bias.copy_(post.bias.double() + weight @ mean)
    post.weight.copy_((weight @ backward)[..., None, None])
