"""Training of a Zero123 model: condition dropout, noising, targets, losses and averages of weights."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.diffusion import conditioning
from zero123s.diffusion.checkpoint.layout import weight_sources
from zero123s.diffusion.checkpoint.weights_file import WeightsFile
from zero123s.diffusion.lift import MirrorLatents
from zero123s.diffusion.model import Zero123Model
from zero123s.errors import CheckpointError, ConfigError
from zero123s.structures import PosedViews

CACHE_TOLERANCE = 0.05
"""Relative; half precision makes 0.001."""


def draw_dropout(batch: int, share: float, generator: torch.Generator) -> tuple[Bool[Tensor, "B"], Bool[Tensor, "B"]]:
    """Draw which samples are trained without their conditioning, for classifier-free guidance.

    As in the original: `share` of the samples lose only the embedding, as many both, as many only the image latents.

    Args:
        batch: number of samples B.
        share: 0 to 1/3.
        generator: source of the random numbers.

    Returns:
        B, True where the embedding is dropped, and B, True where the image latents are.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.training import draw_dropout
        >>> no_embedding, no_latents = draw_dropout(10000, 0.05, torch.Generator().manual_seed(0))
        >>> round(no_embedding.float().mean().item(), 1), round(no_latents.float().mean().item(), 1)
        (0.1, 0.1)
    """
    r = torch.rand(batch, generator=generator)
    return r < 2 * share, (r >= share) & (r < 3 * share)


def draw_timesteps(
    batch: int, n_timesteps: int, high_noise_share: float, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Draw timesteps uniformly, a share of them from the noisier half of the schedule.

    Args:
        batch: number of samples B.
        n_timesteps: length T of the schedule.
        high_noise_share: expected share of samples drawn from [T / 2, T) instead of [0, T), 0 to 1.
        generator: source of the random numbers.

    Returns:
        B, in [0, T).

    Example:
        >>> import torch
        >>> from zero123s.diffusion.training import draw_timesteps
        >>> t = draw_timesteps(1000, 1000, high_noise_share=1.0, generator=torch.Generator().manual_seed(0))
        >>> bool((t >= 500).all())
        True
    """
    t = torch.randint(n_timesteps, (batch,), generator=generator)
    high = torch.randint(n_timesteps // 2, n_timesteps, (batch,), generator=generator)
    return torch.where(torch.rand(batch, generator=generator) < high_noise_share, high, t)


class Noising(NamedTuple):
    """The random draws for a batch of target latents."""

    no_embedding: Bool[Tensor, "B"]
    no_concat: Bool[Tensor, "B"]
    t: Int[Tensor, "B"]
    noise: Float[Tensor, "B C h w"]


def draw_noising(
    model: Zero123Model,
    latents: Float[Tensor, "B C h w"],
    dropout: float,
    high_noise_share: float,
    generator: torch.Generator,
    rank_of: tuple[int, int] = (0, 1),
) -> Noising:
    """Draw condition dropout, timesteps and noise of a batch.

    Everything is drawn for the joint batch of all processes and this process's part returned, so that several processes
    train on the same draws as one process with the whole batch.

    Args:
        model: gives the length of the schedule.
        latents: B C h w, scaled latents of this process's target views.
        dropout: see `draw_dropout`.
        high_noise_share: see `draw_timesteps`.
        generator: source of the random numbers, in the same state in every process.
        rank_of: (rank, number of processes).

    Returns:
        The draws, on the latents' device.
    """
    rank, n_processes = rank_of
    n = len(latents) * n_processes
    no_embedding, no_concat = draw_dropout(n, dropout, generator)
    t = draw_timesteps(n, model.n_timesteps, high_noise_share, generator)
    noise = torch.randn((n, *latents.shape[1:]), generator=generator).to(latents)
    local = slice(rank * len(latents), (rank + 1) * len(latents))
    device = latents.device
    return Noising(no_embedding[local].to(device), no_concat[local].to(device), t[local].to(device), noise[local])


def denoising_target(
    model: Zero123Model, latents: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], t: Int[Tensor, "B"]
) -> Float[Tensor, "B C h w"]:
    """Compute what the network is trained to predict.

    Args:
        model: its parameterisation decides: the noise, or v = sqrt(a_t) noise - sqrt(1 - a_t) latents (Salimans and Ho
            2022).
        latents: B C h w, scaled.
        noise: B C h w, standard normal.
        t: B, timesteps in [0, T).

    Returns:
        B C h w.
    """
    if model.config.parameterization == "eps":
        return noise
    signal = model.alphas_cumprod[t].to(latents).view(-1, 1, 1, 1)
    return signal.sqrt() * noise - (1 - signal).sqrt() * latents


def pairwise_poses(model: Zero123Model, views: PosedViews) -> Float[Tensor, "B K 4"]:
    """Compute the pose vectors of all views relative to the first view of each object.

    Args:
        model: its family decides the fourth term of the vector.
        views: of B objects, K + 1 views each.

    Returns:
        B K 4, see `conditioning.pose_vector`.
    """
    k = views.elevation_deg.shape[1] - 1
    angles = (views.elevation_deg, views.azimuth_deg, views.distance)
    targets = [a[:, 1:].reshape(-1) for a in angles]
    inputs = [a[:, :1].expand(-1, k).reshape(-1) for a in angles]
    return model.pose_vector(*targets, *inputs).unflatten(0, (-1, k))


def fit_views(views: PosedViews, size: int) -> PosedViews:
    """Resize the images of views with premultiplied colours, so that no background bleeds in.

    Args:
        views: of any size.
        size: edge of the result in pixels.

    Returns:
        The views with images of `size` x `size` pixels.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.training import fit_views
        >>> from zero123s.structures import PosedViews
        >>> angles = torch.zeros(1, 2)  # one object, two views
        >>> fit_views(PosedViews(torch.rand(1, 2, 8, 8, 4), angles, angles, angles), 4).rgba.shape
        torch.Size([1, 2, 4, 4, 4])
    """
    if views.rgba.shape[2:4] == (size, size):
        return views
    alpha = views.rgba[..., 3:]
    flat = torch.cat([views.rgba[..., :3] * alpha, alpha], dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
    fitted = conditioning.fit_image(flat, size).permute(0, 2, 3, 1).unflatten(0, views.rgba.shape[:2])
    straight = fitted[..., :3] / fitted[..., 3:].clamp_min(1e-6)
    return replace(views, rgba=torch.cat([straight, fitted[..., 3:]], dim=-1))


@torch.no_grad()
def check_cached(model: Zero123Model, views: PosedViews, embeddings: bool) -> None:
    """Check that cached latents and embeddings are those that this model computes of the first image.

    Args:
        model: which is trained.
        views: with cached latents.
        embeddings: compare the cached embeddings as well.

    Raises:
        ConfigError: they differ in shape, or by more than half precision and other hardware explain.
    """
    rgb = views.on_white()[:1, 0]
    assert views.latents is not None
    pairs = [("latents", views.latents[:1, 0], model.encode_image(rgb))]
    if embeddings and views.embedding is not None:
        pairs.append(("embeddings", views.embedding[:1], model.embed_image(rgb)))
    for name, cached, own in pairs:
        shapes = [" x ".join(str(n) for n in x.shape[1:]) for x in (cached, own)]
        what = f"{shapes[0]} numbers instead of {shapes[1]}"
        if shapes[0] == shapes[1]:
            off = float((cached - own).norm() / own.norm().clamp_min(1e-12))
            if off < CACHE_TOLERANCE:
                continue
            what = f"{off:.0%} off from its encoding of the same image"
        raise ConfigError(
            f"data.latents: the cached {name} were not computed by this model ({what}); compute them again with `zero123s "
            "cache-latents --checkpoint` and the checkpoint that is fine-tuned, or leave data.latents empty."
        )


def lift_loss(
    rgb_lift: Float[Tensor, "B 3 R R"],
    opacity: Float[Tensor, "B 1 R R"],
    rgb: Float[Tensor, "B 3 H W"],
    alpha: Float[Tensor, "B 1 H W"],
) -> Float[Tensor, ""]:
    """Compare the rendered views of a pose lift with images, both at the lift's resolution.

    The sum of absolute and squared differences: the first gives sharp outlines, the second stable gradients at the
    start.

    Args:
        rgb_lift: B 3 R R, rendered colours on white in [-1, 1].
        opacity: B 1 R R, rendered opacity in [0, 1].
        rgb: B 3 H W, images on white in [0, 1].
        alpha: B 1 H W, their masks in [0, 1].

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.training import lift_loss
        >>> white, empty = torch.ones(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
        >>> lift_loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 1, 4, 4), white, empty).item()
        0.0
    """
    size = (rgb_lift.shape[-2], rgb_lift.shape[-1])
    small, cover = (F.adaptive_avg_pool2d(x, size) for x in (rgb * 2 - 1, alpha))
    colour, outline = rgb_lift - small, opacity - cover
    return 0.5 * (colour.abs().mean() + colour.square().mean()) + outline.abs().mean() + outline.square().mean()


def mirror_lift(model: Zero123Model) -> None:
    """Make a model's pose lift average two volumes, of the input and of its mirror image; see `PoseLift`.

    Args:
        model: changed in place, its configuration included.

    Raises:
        ConfigError: the model has no pose lift.
    """
    if model.lift is None:
        raise ConfigError("system.mirror_lift: this model has no lift.")
    if model.lift.mirror is None:
        model.lift.mirror = MirrorLatents(model.latent_channels).to(model.device)
        model.config = replace(model.config, pose_lift={**(model.config.pose_lift or {}), "mirrored": True})


class WeightAverage:
    """Exponential moving average of trainable weights, with decay min(decay, (1 + n) / (10 + n)) after n updates.

    Args:
        module: whose trainable parameters are averaged.
        decay: of one update, 0 to 1.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.training import WeightAverage
        >>> module = torch.nn.Linear(1, 1, bias=False)
        >>> _ = module.weight.data.fill_(1.0)
        >>> average = WeightAverage(module, decay=0.999)
        >>> _ = module.weight.data.fill_(2.0)
        >>> average.update(module)  # the first update keeps a tenth of the old average
        >>> round(average.averaged(module).weight.item(), 4)
        1.9
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.names = [n for n, p in module.named_parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in module.parameters() if p.requires_grad]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Average in the current weights.

        Args:
            module: the one being trained.
        """
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.n_updates += 1
        current = [p.detach() for p in module.parameters() if p.requires_grad]
        # A system is built on the CPU and moved to its device afterwards; the averages follow their weights.
        self.averages = [average.to(p.device) for average, p in zip(self.averages, current, strict=True)]
        torch._foreach_lerp_(self.averages, current, 1 - decay)  # type: ignore[attr-defined]

    @torch.no_grad()
    def averaged(self, module: nn.Module) -> nn.Module:
        """Copy a module with the averages as weights.

        Args:
            module: the one being trained; not changed.

        Returns:
            A frozen copy in eval mode.
        """
        clone = copy.deepcopy(module)
        parameters = dict(clone.named_parameters())
        for name, average in zip(self.names, self.averages, strict=True):
            parameters[name].copy_(average)
        return clone.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint.

        Returns:
            Averages by parameter name, and the number of updates under "n_updates".
        """
        return {"n_updates": torch.tensor(self.n_updates)} | dict(zip(self.names, self.averages, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state from a checkpoint.

        Args:
            state: as `state_dict` returned it.
        """
        self.n_updates = int(state["n_updates"])
        for name, average in zip(self.names, self.averages, strict=True):
            average.copy_(state[name])


def load_component(model: Zero123Model, component: str, file: WeightsFile) -> None:
    """Copy the weights of one component from a file with the original's key names.

    Args:
        model: changed in place.
        component: its attribute: "unet", "vae", "image_encoder", "cc_projection" or "lift".
        file: an open checkpoint.

    Raises:
        CheckpointError: the file lacks a weight, or is damaged.
    """
    module = getattr(model, component)
    state = module.state_dict()
    for name, source in weight_sources(model.config, component, state).items():
        if source.key not in file.tensors:
            raise CheckpointError(f"{file.path}: has no '{source.key}'; it is not a file with a {component}.")
        state[name] = source.extract(file.tensors[source.key].read()).to(state[name])
    module.load_state_dict(state)


def parameter_groups(
    model: Zero123Model, components: Iterable[str], lr: float, projection_factor: float
) -> list[dict[str, object]]:
    """Make the optimiser's parameter groups, one per component.

    Args:
        model: whose trainable parameters are collected.
        components: attributes of the model; those that it does not have are skipped.
        lr: learning rate.
        projection_factor: the camera projection's learning rate is this times `lr` (10 in the original).

    Returns:
        Groups with "params", "lr" and "name", as torch's optimisers take them.
    """
    groups = []
    for component in components:
        module = getattr(model, component)
        if module is not None:
            factor = projection_factor if component == "cc_projection" else 1.0
            trainable = [p for p in module.parameters() if p.requires_grad]
            groups.append({"params": trainable, "lr": lr * factor, "name": component})
    return groups
