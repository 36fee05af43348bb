"""The arithmetic of training a Zero123: what is dropped, what is noised, what is compared."""

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
    """Return which samples lose their embedding and which their image latents.

    As in the original: `share` of them lose only the embedding, as many both, as many only the latents.
    """
    r = torch.rand(batch, generator=generator)
    return r < 2 * share, (r >= share) & (r < 3 * share)


def draw_timesteps(
    batch: int, n_timesteps: int, high_noise_share: float, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Draw t uniformly from the whole schedule, and for `high_noise_share` of the samples from its noisier half."""
    t = torch.randint(n_timesteps, (batch,), generator=generator)
    high = torch.randint(n_timesteps // 2, n_timesteps, (batch,), generator=generator)
    return torch.where(torch.rand(batch, generator=generator) < high_noise_share, high, t)


class Noising(NamedTuple):
    """What is drawn for a batch of target latents."""

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
    """Draw dropout, noise levels and noise.

    `rank_of` = (rank, processes): everything is drawn for the batch of all processes and this one's part returned, so
    that several processes see what one with the whole batch would.
    """
    rank, n_processes = rank_of
    n = len(latents) * n_processes
    no_embedding, no_concat = draw_dropout(n, dropout, generator)
    t = draw_timesteps(n, model.n_timesteps, high_noise_share, generator)
    noise = torch.randn((n, *latents.shape[1:]), generator=generator).to(latents)
    mine = slice(rank * len(latents), (rank + 1) * len(latents))
    device = latents.device
    return Noising(no_embedding[mine].to(device), no_concat[mine].to(device), t[mine].to(device), noise[mine])


def denoising_target(
    model: Zero123Model, latents: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], t: Int[Tensor, "B"]
) -> Float[Tensor, "B C h w"]:
    """Return what the network should say: the noise, or v = sqrt(a) noise - sqrt(1 - a) latents (Salimans 2022)."""
    if model.config.parameterization == "eps":
        return noise
    signal = model.alphas_cumprod[t].to(latents).view(-1, 1, 1, 1)
    return signal.sqrt() * noise - (1 - signal).sqrt() * latents


def pairwise_poses(model: Zero123Model, views: PosedViews) -> Float[Tensor, "B K 4"]:
    """Return the pose vectors of every view behind the first, relative to the first."""
    k = views.elevation_deg.shape[1] - 1
    angles = (views.elevation_deg, views.azimuth_deg, views.distance)
    wanted = [a[:, 1:].reshape(-1) for a in angles]
    given = [a[:, :1].expand(-1, k).reshape(-1) for a in angles]
    return model.pose_vector(*wanted, *given).unflatten(0, (-1, k))


def fit_views(views: PosedViews, size: int) -> PosedViews:
    """Return the images at `size` x `size` pixels, resampled with premultiplied colours."""
    if views.rgba.shape[2:4] == (size, size):
        return views
    alpha = views.rgba[..., 3:]
    flat = torch.cat([views.rgba[..., :3] * alpha, alpha], dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
    fitted = conditioning.fit_image(flat, size).permute(0, 2, 3, 1).unflatten(0, views.rgba.shape[:2])
    straight = fitted[..., :3] / fitted[..., 3:].clamp_min(1e-6)
    return replace(views, rgba=torch.cat([straight, fitted[..., 3:]], dim=-1))


@torch.no_grad()
def check_cached(model: Zero123Model, views: PosedViews, embeddings: bool) -> None:
    """Refuse cached latents, and embeddings where they are used, that another model made of the first image.

    Raises:
        ConfigError: another size, or numbers further off than half precision and other hardware explain.
    """
    picture = views.on_white()[:1, 0]
    assert views.latents is not None
    pairs = [("latents", views.latents[:1, 0], model.encode_image(picture))]
    if embeddings and views.embedding is not None:
        pairs.append(("embeddings", views.embedding[:1], model.embed_image(picture)))
    for name, cached, own in pairs:
        shapes = [" x ".join(str(n) for n in x.shape[1:]) for x in (cached, own)]
        what = f"{shapes[0]} numbers instead of {shapes[1]}"
        if shapes[0] == shapes[1]:
            off = float((cached - own).norm() / own.norm().clamp_min(1e-12))
            if off < CACHE_TOLERANCE:
                continue
            what = f"{off:.0%} off from its encoding of the same image"
        raise ConfigError(
            f"data.latents: the cached {name} are not this model's ({what}); make them again with `zero123s "
            "cache-latents --checkpoint` and the checkpoint that is trained, or leave data.latents empty."
        )


def lift_loss(
    rgb_lift: Float[Tensor, "B 3 R R"],
    opacity: Float[Tensor, "B 1 R R"],
    rgb: Float[Tensor, "B 3 H W"],
    alpha: Float[Tensor, "B 1 H W"],
) -> Float[Tensor, ""]:
    """Compare colours on white in [-1, 1] and opacity of lifted views with images in [0, 1] shrunken to their size.

    The sum of absolute and squared differences: the one for crisp outlines, the other for stable starts.
    """
    size = (rgb_lift.shape[-2], rgb_lift.shape[-1])
    small, cover = (F.adaptive_avg_pool2d(x, size) for x in (rgb * 2 - 1, alpha))
    colour, outline = rgb_lift - small, opacity - cover
    return 0.5 * (colour.abs().mean() + colour.square().mean()) + outline.abs().mean() + outline.square().mean()


def mirror_lift(model: Zero123Model) -> None:
    """Let a model's lift answer with the mean of two volumes, its own and its mirror image's; see `PoseLift`.

    Raises:
        ConfigError: it has no lift.
    """
    if model.lift is None:
        raise ConfigError("system.mirror_lift: this model has no lift.")
    if model.lift.mirror is None:
        model.lift.mirror = MirrorLatents(model.latent_channels).to(model.device)
        model.config = replace(model.config, pose_lift={**(model.config.pose_lift or {}), "mirrored": True})


class WeightAverage:
    """Exponential moving average of trainable weights; decay min(decay, (1 + n) / (10 + n)) after n updates.

    Args:
        module: whose parameters are followed.
        decay: of one update.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.names = [n for n, p in module.named_parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in module.parameters() if p.requires_grad]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the current weights."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.n_updates += 1
        current = [p.detach() for p in module.parameters() if p.requires_grad]
        # A system is built on the CPU and moved to its device afterwards; the averages follow their weights.
        self.averages = [average.to(p.device) for average, p in zip(self.averages, current, strict=True)]
        torch._foreach_lerp_(self.averages, current, 1 - decay)  # type: ignore[attr-defined]

    @torch.no_grad()
    def averaged(self, module: nn.Module) -> nn.Module:
        """Return a copy of `module` that has the averages as weights."""
        clone = copy.deepcopy(module)
        parameters = dict(clone.named_parameters())
        for name, average in zip(self.names, self.averages, strict=True):
            parameters[name].copy_(average)
        return clone.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return averages by parameter name, and the number of updates."""
        return {"n_updates": torch.tensor(self.n_updates)} | dict(zip(self.names, self.averages, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self.n_updates = int(state["n_updates"])
        for name, average in zip(self.names, self.averages, strict=True):
            average.copy_(state[name])


def load_component(model: Zero123Model, component: str, file: WeightsFile) -> None:
    """Copy one component's weights from a file with the original's key names; raises CheckpointError if one lacks."""
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
    """Return optimiser groups: the camera projection learns `projection_factor` times faster, as in the original."""
    groups = []
    for component in components:
        module = getattr(model, component)
        if module is not None:
            factor = projection_factor if component == "cc_projection" else 1.0
            learning = [p for p in module.parameters() if p.requires_grad]
            groups.append({"params": learning, "lr": lr * factor, "name": component})
    return groups
