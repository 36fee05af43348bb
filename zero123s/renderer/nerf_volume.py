"""Volume rendering of a density field: march through occupied space, shade the visible samples, composite."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.ops.compositing import Composited, composite
from zero123s.ops.memory import retry_on_oom
from zero123s.ops.occupancy import OccupancyGrid
from zero123s.ops.ray_marching import Samples, march, march_visible
from zero123s.ops.sections import section
from zero123s.ops.vectors import unit
from zero123s.randomness import generator_on
from zero123s.renderer.base import RENDERERS, BaseRenderer
from zero123s.structures import BackgroundFunction, FieldOutput, RadianceField, RayBundle, RenderOutput

MIN_CHUNK = 256
"""Rays; smaller chunks would save no significant memory."""


@RENDERERS.register("nerf-volume-renderer")
class NerfVolumeRenderer(BaseRenderer):
    """Marches occupied space in uniform steps and composites by alpha = 1 - exp(-sigma dt) (Max 1995).

    A subclass may find the opacity in another way: `occupancy`, `opacity` and `composite`.
    """

    @dataclass
    class Config(BaseRenderer.Config):
        """Settings of `nerf-volume-renderer`."""

        num_samples_per_ray: int = option(512, low=1, high=65536)
        """Steps along the cube's diagonal."""
        randomized: bool = True
        """Offset every training ray by a random part of a step."""
        grid_prune: bool = True
        """Skip empty cells of the occupancy grid."""
        prune_alpha_threshold: bool = True
        """Evaluate opacity first and shade only visible samples, by the next two keys."""
        alpha_threshold: float = option(0.01, low=0.0, high=1.0)
        """Opacity of a step below which it is not shaded."""
        early_stop: float = option(1e-4, low=0.0, high=1.0)
        """Transmittance below which a ray ends; samples behind get no gradient."""
        estimator: str = "occgrid"
        """"occgrid"; threestudio's "proposal" and "importance" are not built."""
        grid_resolution: int = option(32, low=1, high=512)
        """Cells per axis of the occupancy grid."""
        grid_update_every: int = option(16, low=1)
        """Steps between refreshes of the occupancy grid."""
        grid_warmup_steps: int = option(256, low=0)
        """Steps during which every cell is refreshed."""
        grid_ema_decay: float = option(0.95, low=0.0, high=0.9999)
        """Decay of a cell's old occupancy at a refresh; lower values free emptied space sooner, for short runs."""
        backend: str = "auto"
        """Marching backend: "auto", "reference", "numba", "triton" or "nerfacc"."""

    cfg: Config
    always_needed: frozenset[str] = frozenset({"rgb"})
    """Quantities that every sample needs, independent of the losses."""
    backend_of = "ray_marching"

    def __init__(self, cfg: Config, bound: float) -> None:
        super().__init__(cfg, bound)
        if cfg.estimator != "occgrid":
            raise ConfigError(f"renderer.estimator: '{cfg.estimator}' is not known; use occgrid.")
        self.eval_chunk_size = cfg.eval_chunk_size
        self.step_size = math.sqrt(3) * 2 * bound / cfg.num_samples_per_ray
        self.grid = OccupancyGrid([-bound] * 3 + [bound] * 3, cfg.grid_resolution)
        if not cfg.grid_prune:
            self.grid.mark_all_occupied()

    # ------------------------------------------------------------ how opaque the field is

    def occupancy(self, field: RadianceField, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the optical depth of one step."""
        return field.density(x) * self.step_size

    def opacity(
        self, field: RadianceField, x: Float[Tensor, "S 3"], dt: Float[Tensor, "S"] | float
    ) -> Float[Tensor, "S"]:
        """Return 1 - exp(-sigma dt)."""
        return -torch.expm1(-field.density(x) * dt)

    def composite(
        self, out: FieldOutput, dirs: Float[Tensor, "S 3"], samples: Samples, values: Float[Tensor, "S C"]
    ) -> Composited:
        """Composite by density."""
        return composite(out.sigma, samples.t_starts, samples.t_ends, samples.packed_info, values)

    # ------------------------------------------------------------ rendering

    def update(self, field: RadianceField, step: int, generator: torch.Generator) -> None:
        """Refresh the occupancy grid when its time has come."""
        if not self.cfg.grid_prune:
            return
        with section("occupancy grid"):
            self.grid.update(
                step,
                lambda x: self.occupancy(field, x),
                generator,
                n=self.cfg.grid_update_every,
                warmup_steps=self.cfg.grid_warmup_steps,
                ema_decay=self.cfg.grid_ema_decay,
            )

    def occupied(self) -> Bool[Tensor, "X Y Z"] | None:
        """Return the flags of the occupancy grid, None without one."""
        return self.grid.binaries[0] if self.cfg.grid_prune else None

    def forward(
        self,
        rays: RayBundle,
        field: RadianceField,
        background: BackgroundFunction,
        needs: frozenset[str] = frozenset(),
        generator: torch.Generator | None = None,
    ) -> RenderOutput:
        """Render all rays at once in training, in chunks and without samples otherwise."""
        batch, height, width, _ = rays.rays_o.shape
        rays_o, rays_d = rays.rays_o.reshape(-1, 3), rays.rays_d.reshape(-1, 3)
        lights = rays.light_positions[:, None].expand(batch, height * width, 3).reshape(-1, 3)
        if self.training:
            flat = self._render(rays_o, rays_d, lights, field, needs, generator)
        else:
            flat = self._render_in_chunks(rays_o, rays_d, lights, field, needs & {"normal"})
        behind = background(rays.rays_d, generator)
        return _as_images(flat, behind, needs, self.training)

    def _render_in_chunks(
        self,
        rays_o: Float[Tensor, "R 3"],
        rays_d: Float[Tensor, "R 3"],
        lights: Float[Tensor, "R 3"],
        field: RadianceField,
        needs: frozenset[str],
    ) -> "_Flat":
        """Render chunk by chunk; where memory runs out, in smaller ones from then on, with the same result."""
        parts: list[_Flat] = []
        done = 0

        def render_chunk() -> _Flat:
            chunk = slice(done, done + self.eval_chunk_size)
            return self._render(rays_o[chunk], rays_d[chunk], lights[chunk], field, needs, None)

        def halve_chunk() -> str | None:
            if self.eval_chunk_size <= MIN_CHUNK:
                return None
            self.eval_chunk_size = max(MIN_CHUNK, min(self.eval_chunk_size, len(rays_o)) // 2)
            return f"rendering {self.eval_chunk_size} rays at once"

        while done < len(rays_o):
            parts.append(retry_on_oom(render_chunk, halve_chunk))
            done += self.eval_chunk_size
        return _Flat(
            *(torch.cat(column) for column in zip(*(p.images() for p in parts), strict=True)),
            n_samples=sum(p.n_samples for p in parts),
        )

    def _render(
        self,
        rays_o: Float[Tensor, "R 3"],
        rays_d: Float[Tensor, "R 3"],
        lights: Float[Tensor, "R 3"],
        field: RadianceField,
        needs: frozenset[str],
        generator: torch.Generator | None,
    ) -> "_Flat":
        jitter = None
        if self.training and self.cfg.randomized and generator is not None:
            drawn_by = generator_on(rays_o.device, generator)
            jitter = torch.rand(len(rays_o), generator=drawn_by, device=rays_o.device).to(rays_o)
        samples = self._samples(field, rays_o, rays_d, jitter)
        x, dirs = samples.positions(rays_o, rays_d), rays_d.index_select(0, samples.ray_indices)
        required = self.always_needed | (needs & {"normal", "normal_perturbed", "sdf"})
        with section("field"):
            out = field.query(x, dirs, required, lights.index_select(0, samples.ray_indices))
        assert out.rgb is not None
        values = out.rgb if out.normal is None else torch.cat([out.rgb, out.normal], dim=-1)
        with section("composite"):
            weights, opacity, depth, summed = self.composite(out, dirs, samples, values)
        n = out.rgb.shape[-1]
        normal = summed[:, n:] if out.normal is not None else torch.zeros_like(rays_o)
        extra = {}
        if "samples" in needs:
            extra = {"weights": weights, "dirs": dirs, "ray_indices": samples.ray_indices}
            extra |= {"t": 0.5 * (samples.t_starts + samples.t_ends)}
            extra |= {"normal": out.normal, "sdf_grad": out.sdf_grad}
            extra |= {"normal_perturbed": out.normal_perturbed, "perturbed_at": out.perturbed_at}
        return _Flat(summed[:, :n], opacity, depth, normal, samples.ray_indices.shape[0], extra)

    def _samples(self, field: RadianceField, rays_o: Tensor, rays_d: Tensor, jitter: Tensor | None) -> Samples:
        """Return the samples to shade: where they are pruned, those that are opaque enough and not hidden."""
        cfg, box = self.cfg, (self.grid.aabbs[0], self.grid.binaries, self.step_size)
        if not (cfg.prune_alpha_threshold and cfg.grid_prune):
            with section("march"):
                return march(rays_o, rays_d, *box, jitter=jitter, backend=cfg.backend)

        def alphas_at(x: Float[Tensor, "K 3"]) -> Float[Tensor, "K"]:
            return self.opacity(field, x, self.step_size)

        limits = cfg.alpha_threshold, cfg.early_stop
        with section("march and choose samples"):
            return march_visible(rays_o, rays_d, *box, alphas_at, *limits, jitter=jitter, backend=cfg.backend)


@dataclass(frozen=True)
class _Flat:
    """Composited rays before they become images."""

    rgb: Float[Tensor, "R K"]
    opacity: Float[Tensor, "R"]
    depth: Float[Tensor, "R"]
    normal: Float[Tensor, "R 3"]
    n_samples: int = 0
    extra: dict[str, Tensor | None] | None = None

    def images(self) -> tuple[Tensor, ...]:
        return self.rgb, self.opacity, self.depth, self.normal


def _as_images(flat: _Flat, behind: Float[Tensor, "B H W K"], needs: frozenset[str], training: bool) -> RenderOutput:
    shape = behind.shape[:3]
    opacity = flat.opacity.reshape(*shape, 1)
    out = RenderOutput(
        comp_rgb=flat.rgb.reshape(*shape, flat.rgb.shape[-1]) + (1 - opacity) * behind,
        opacity=opacity,
        depth=flat.depth.reshape(*shape, 1),
        background=behind,
        n_samples=flat.n_samples,
    )
    if "normal" in needs:
        mean = unit(flat.normal.reshape(*shape, 3))
        out = replace(out, comp_normal=0.5 * (mean + 1) * opacity)
    return replace(out, **(flat.extra or {})) if training else out
