"""Rasterises the surface of a signed distance field: a mesh made anew in every pass (DMTet, Shen et al. 2021)."""

import logging
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.ops import rasterization
from zero123s.ops.marching_tetrahedra import cell_tetrahedra, marching_tetrahedra
from zero123s.ops.rasterization import Fragments, MeshEdges, Silhouettes
from zero123s.ops.sections import section
from zero123s.ops.vectors import unit
from zero123s.renderer.base import RENDERERS, BaseRenderer
from zero123s.structures import BackgroundFunction, FieldOutput, RadianceField, RayBundle, RenderOutput

logger = logging.getLogger(__name__)
COARSE = 4
"""Cells per edge of the blocks of the coarse search for the surface."""
BLOCK_MARGIN = 1.75
"""Largest distance, in edges of a block, at which a block is refined: twice its half diagonal, for slopes up to 2."""
CELL_MARGIN = 2.5
"""Largest distance, in cell edges, at which a cell is kept: the surface may move this far until the next refresh."""
PER_CALL = 1 << 18
"""Points per evaluation of the distance without gradients."""


@dataclass(frozen=True)
class _Surface:
    """A triangle mesh with its edges."""

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    edges: MeshEdges

    @property
    def whole(self) -> bool:
        """Whether there is a surface, and no gap in it."""
        return len(self.faces) > 0 and self.edges.closed


@RENDERERS.register("mesh-rasterizer")
class MeshRasterizer(BaseRenderer):
    """Renders the zero level of the field's signed distance as a mesh: one sample per pixel, antialiased silhouettes.

    Gradients reach the distance from silhouettes, depth and, through the field, normals; colours where the
    surface is. The distance gets no gradient where there is no surface yet: this renderer refines an existing one.
    """

    @dataclass
    class Config(BaseRenderer.Config):
        """Settings of `mesh-rasterizer`."""

        grid_resolution: int = option(64, low=COARSE, high=512)
        """Cells per axis of the grid that the surface is found on, a multiple of 4; a cell should be about a pixel."""
        grid_update_every: int = option(16, low=1)
        """Steps between searches of the whole cube for the surface; in between only its surroundings are evaluated."""
        randomized: bool = True
        """Move the grid by a random part of a cell in every training pass, so that no bias of the grid is learned."""
        backend: str = "auto"
        """Rasterization backend: "auto", "reference", "numba", "triton" or "nvdiffrast"."""

    cfg: Config
    needs_sdf = True
    has_mesh = True
    backend_of = "rasterization"

    def __init__(self, cfg: Config, bound: float) -> None:
        super().__init__(cfg, bound)
        if cfg.grid_resolution % COARSE:
            raise ConfigError(f"renderer.grid_resolution: must be a multiple of {COARSE}, got {cfg.grid_resolution}.")
        n = cfg.grid_resolution
        self.cell = 2 * bound / n
        # Travels in checkpoints: a resumed run continues bit-exactly.
        self.register_buffer("near", torch.ones(n, n, n, dtype=torch.bool))
        self.near: Tensor
        self._warned_empty = False

    # ------------------------------------------------------------ the surface

    def update(self, field: RadianceField, step: int, generator: torch.Generator) -> None:
        """Search the whole cube for the surface every `grid_update_every` steps."""
        if step % self.cfg.grid_update_every == 0:
            with section("find surface"):
                self._refresh(field)

    @torch.no_grad()
    def _refresh(self, field: RadianceField) -> None:
        """Select the cells near the surface, within blocks of cells near the surface."""
        n = self.cfg.grid_resolution // COARSE
        device = self.near.device
        blocks = torch.cartesian_prod(*[torch.arange(n, device=device)] * 3)
        blocks = blocks[self._holds_surface(field, blocks, n, BLOCK_MARGIN)]
        within = torch.cartesian_prod(*[torch.arange(COARSE, device=device)] * 3)
        cells = (COARSE * blocks[:, None] + within).reshape(-1, 3)
        cells = cells[self._holds_surface(field, cells, self.cfg.grid_resolution, CELL_MARGIN)]
        self.near.zero_()
        self.near[cells.unbind(-1)] = True

    def _holds_surface(
        self, field: RadianceField, index: Int[Tensor, "N 3"], n: int, margin: float
    ) -> Bool[Tensor, "N"]:
        """Return which cells of the cube split into n^3 are up to `margin` edges from the surface, or from its lid.

        What reaches out of the cube is cut off there, and closed by the cube's faces.
        """
        edge = 2 * self.bound / n
        sdf = self._distance(field, (index + 0.5) * edge - self.bound)
        border = ((index == 0) | (index == n - 1)).any(-1)
        return (sdf.abs() <= margin * edge) | ((sdf < 0) & border)

    @torch.no_grad()
    def _distance(self, field: RadianceField, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return torch.cat([-field.surface_level(part).to(x.dtype) for part in x.split(PER_CALL)])

    def _surface(self, field: RadianceField, offset: Float[Tensor, "3"]) -> _Surface:
        """Return the mesh on the grid moved by `offset` cells; search again if it left the selected cells."""
        surface = self._march(field, offset)
        if not surface.whole:
            self._refresh(field)
            surface = self._march(field, offset)
        if not surface.whole:  # nothing, or steeper than a distance may be: evaluate everywhere
            self.near.fill_(True)
            surface = self._march(field, offset)
        return surface

    def _march(self, field: RadianceField, offset: Float[Tensor, "3"]) -> _Surface:
        """Return the mesh within the selected cells; only nodes of cells that it crosses get gradients."""
        n = self.cfg.grid_resolution
        cells = self.near.nonzero()
        index = _corner_nodes(cells, n)
        nodes = index.new_zeros((n + 1) ** 3, dtype=torch.bool).index_fill(0, index.flatten(), True).nonzero()[:, 0]
        x, border = self._positions_of_nodes(nodes, offset)
        # Outside the cube there is nothing, so that every surface is closed.
        sdf = self._distance(field, x)
        sdf = torch.where(border, sdf.clamp_min(0.5 * self.cell), sdf)
        inside = torch.zeros((n + 1) ** 3, dtype=torch.bool, device=sdf.device).index_put((nodes,), sdf < 0)
        some = inside[index]
        crossed = some.any(-1) & ~some.all(-1)
        used = torch.unique(index[crossed])
        number = torch.zeros((n + 1) ** 3, dtype=torch.long, device=sdf.device)
        number[nodes] = torch.arange(len(nodes), device=sdf.device)
        x, border, sdf = x[number[used]], border[number[used]], sdf[number[used]]
        if torch.is_grad_enabled():
            # The values of the first pass, whose signs chose the cells, with the gradients of this one.
            learned = -field.surface_level(x)
            sdf = sdf + torch.where(border, 0.0, learned - learned.detach())
        number[used] = torch.arange(len(used), device=sdf.device)
        vertices, faces = marching_tetrahedra(x, sdf, number[cell_tetrahedra(cells[crossed], n)])
        return _Surface(vertices, faces, rasterization.mesh_edges(faces, len(vertices)))

    def _positions_of_nodes(
        self, nodes: Int[Tensor, "N"], offset: Float[Tensor, "3"]
    ) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, "N"]]:
        """Return the positions of numbered nodes, within the cube, and which of them lie on its faces."""
        n = self.cfg.grid_resolution + 1
        index = torch.stack([nodes // (n * n), nodes // n % n, nodes % n], dim=-1)
        x = ((index + offset) * self.cell - self.bound).clamp(-self.bound, self.bound)
        return x, ((index == 0) | (index == n - 1)).any(-1)

    # ------------------------------------------------------------ images of it

    def forward(
        self,
        rays: RayBundle,
        field: RadianceField,
        background: BackgroundFunction,
        needs: frozenset[str] = frozenset(),
        generator: torch.Generator | None = None,
    ) -> RenderOutput:
        """Render whole pinhole images; raises ConfigError for other rays.

        A sample is the surface point visible at a pixel's centre, in that pixel and in the neighbours that it is blended
        into.
        """
        offset = torch.zeros(3)
        if self.training and self.cfg.randomized and generator is not None:
            offset = torch.rand(3, generator=generator) - 0.5
        height, width = rays.rays_d.shape[1:3]
        centers, matrices = rasterization.pinhole(rays)
        with section("extract surface"):
            surface = self._surface(field, offset.to(rays.rays_o))
        if len(surface.faces) == 0 and not self._warned_empty:
            self._warned_empty = True
            logger.warning("warning: the field has no surface inside its cube; only the background is shown.")
        with section("rasterize"):
            fragments, silhouettes = self._rasterize(surface, centers, matrices, (height, width))
        points = fragments.interpolate(surface.vertices, surface.faces)
        rays_o, dirs = (r.reshape(-1, 3)[fragments.pixel] for r in (rays.rays_o, rays.rays_d))
        lights = rays.light_positions[fragments.pixel // (height * width)]
        required = needs if self.training else needs & {"normal"}
        with section("field"):
            field_output = self._query(field, points.detach(), dirs, required, lights)
        along = ((points - rays_o) * dirs).sum(-1)
        behind = background(rays.rays_d, generator)
        out = _composite(fragments, silhouettes, field_output, along, dirs, behind, required)
        if "mesh" in required:
            out = replace(out, mesh_vertices=surface.vertices, mesh_faces=surface.faces)
        return out

    def _rasterize(
        self, surface: _Surface, centers: Float[Tensor, "B 3"], matrices: Float[Tensor, "B 3 3"], size: tuple[int, int]
    ) -> tuple[Fragments, Silhouettes]:
        screen = rasterization.to_screen(surface.vertices, centers, matrices)
        face_id = rasterization.visible_faces(screen, surface.faces, *size, backend=self.cfg.backend)
        fragments = rasterization.fragments_of(face_id, screen, surface.faces)
        depth = torch.full_like(face_id, torch.inf, dtype=screen.dtype)
        depth.view(-1)[fragments.pixel] = fragments.depth.detach()
        return fragments, rasterization.find_silhouettes(screen, surface.edges, surface.faces, depth)

    def _query(
        self,
        field: RadianceField,
        x: Float[Tensor, "K 3"],
        dirs: Float[Tensor, "K 3"],
        needs: frozenset[str],
        lights: Float[Tensor, "K 3"],
    ) -> FieldOutput:
        """Evaluate the field at the visible points, in chunks outside training."""
        required = frozenset({"rgb"} | (needs & {"normal", "normal_perturbed", "sdf"}))
        if self.training or len(x) <= self.cfg.eval_chunk_size:
            return field.query(x, dirs, required, lights)
        chunks = zip(*(t.split(self.cfg.eval_chunk_size) for t in (x, dirs, lights)), strict=True)
        parts = [field.query(at, along, required, light) for at, along, light in chunks]
        known = [name for name in ("sigma", "rgb", "normal") if getattr(parts[0], name) is not None]
        return FieldOutput(**{name: torch.cat([getattr(part, name) for part in parts]) for name in known})


def _corner_nodes(cells: Int[Tensor, "C 3"], resolution: int) -> Int[Tensor, "C 8"]:
    """Return the node numbers of the corners of cells."""
    n = resolution + 1
    corners = torch.cartesian_prod(*[torch.arange(2, device=cells.device)] * 3)
    nodes = cells[:, None] + corners
    return (nodes[..., 0] * n + nodes[..., 1]) * n + nodes[..., 2]


def _composite(
    fragments: Fragments,
    silhouettes: Silhouettes,
    field_output: FieldOutput,
    along: Float[Tensor, "K"],
    dirs: Float[Tensor, "K 3"],
    behind: Float[Tensor, "B H W 3"],
    needs: frozenset[str],
) -> RenderOutput:
    """Composite the pixel centres over the background; `along` is the distance along the rays `dirs`."""
    shape = behind.shape[:3]
    weights, pixels, source = _samples(fragments, silhouettes)
    assert field_output.rgb is not None
    columns = [torch.ones_like(along)[:, None], along[:, None], field_output.rgb]
    if "normal" in needs:
        assert field_output.normal is not None
        columns.append(field_output.normal)
    values = torch.cat(columns, dim=-1)
    summed = values.new_zeros(behind[..., 0].numel(), values.shape[-1])
    summed = summed.index_add(0, pixels, weights[:, None] * values[source]).reshape(*shape, values.shape[-1])
    n = 2 + field_output.rgb.shape[-1]
    opacity, depth, rgb = summed[..., :1], summed[..., 1:2], summed[..., 2:n]
    out = RenderOutput(rgb + (1 - opacity) * behind, opacity, depth, behind, n_samples=len(along))
    if "normal" in needs:
        out = replace(out, comp_normal=0.5 * (unit(summed[..., n:]) + 1) * opacity)
    if "samples" not in needs:
        return out
    # `perturbed_at` counts the surface points, which are the first of the samples, in the same order.
    perturbed = field_output.normal_perturbed
    if perturbed is not None and field_output.perturbed_at is None:
        perturbed = perturbed[source]
    return replace(
        out,
        weights=weights,
        dirs=dirs[source],
        ray_indices=pixels,
        t=along[source],
        normal=None if field_output.normal is None else field_output.normal[source],
        normal_perturbed=perturbed,
        perturbed_at=field_output.perturbed_at,
        sdf_grad=None if field_output.sdf_grad is None else field_output.sdf_grad[source],
    )


def _samples(
    fragments: Fragments, silhouettes: Silhouettes
) -> tuple[Float[Tensor, "S"], Int[Tensor, "S"], Int[Tensor, "S"]]:
    """Return weights, pixels and fragments of all samples: every fragment in its own pixel, then in its neighbours."""
    weights = [silhouettes.own.reshape(-1)[fragments.pixel]]
    pixels = [fragments.pixel]
    source = [torch.arange(len(fragments.pixel), device=fragments.pixel.device)]
    number = torch.full_like(silhouettes.own, -1, dtype=torch.long)
    number.view(-1)[fragments.pixel] = source[0]
    for direction, share in enumerate(silhouettes.shares):
        neighbour = rasterization.neighbours(number, direction).reshape(-1)
        at = ((share.detach().reshape(-1) > 0) & (neighbour >= 0)).nonzero()[:, 0]
        weights.append(share.reshape(-1)[at])
        pixels.append(at)
        source.append(neighbour[at])
    return torch.cat(weights), torch.cat(pixels), torch.cat(source)
