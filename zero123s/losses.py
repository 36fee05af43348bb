"""Loss terms: one function each, named as its YAML key `lambda_<name>`.

A term declares on which views it applies and what it needs from the renderer, so that a term that is switched off is neither
computed nor requested. Formulas: threestudio's zero123 system.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.config.options import option
from zero123s.config.schedule import Schedule
from zero123s.ops.triangles import edges_of, vertex_normals
from zero123s.structures import ReferenceView, RenderOutput

Scalar = Float[Tensor, ""]


@dataclass(frozen=True)
class View:
    """The input of a loss term."""

    out: RenderOutput
    reference: ReferenceView | None = None
    settings: Any = None
    """The section `system.loss`, for terms with settings besides their weight."""


@dataclass(frozen=True)
class Term:
    """A registered loss term: the function, the passes it applies to and what it needs of the renderer."""

    fn: Callable[[View], Scalar]
    views: frozenset[str]
    needs: frozenset[str]
    reference_maps: str | None = None
    """Maps that the reference views must have: "depth" or "normal"."""


TERMS: dict[str, Term] = {}
DISTILLED = {
    "sds": "Score distillation by the guidance.",
    "sds_img": "The same in image space, where system.guidance.image_loss is on (HiFA).",
}
"""Loss terms computed by the guidance, by name, with their documentation."""


def term(
    name: str, views: str, needs: tuple[str, ...] = (), reference_maps: str | None = None
) -> Callable[[Callable[[View], Scalar]], Callable[[View], Scalar]]:
    """Register a loss term.

    Args:
        name: YAML key without `lambda_`.
        views: "reference", "novel" or "both".
        needs: what the renderer must deliver: "normal", "samples", "normal_perturbed", "sdf", "mesh".
        reference_maps: maps that the reference views must have: "depth" or "normal".

    Returns:
        The decorator of a function View -> scalar.

    Raises:
        ValueError: another function has the name.
    """

    def decorate(fn: Callable[[View], Scalar]) -> Callable[[View], Scalar]:
        taken = TERMS.get(name)
        if name in DISTILLED or (taken is not None and taken.fn.__module__ != fn.__module__):
            raise ValueError(f"There is already a loss term '{name}'.")
        passes = ("reference", "novel") if views == "both" else (views,)
        TERMS[name] = Term(fn, frozenset(passes), frozenset(needs), reference_maps)
        return fn

    return decorate


def _view_mean(error: Float[Tensor, "B H W C"], reference: ReferenceView) -> Scalar:
    """Mean over pixels, then weighted mean over views."""
    per_view = error.flatten(1).mean(dim=1)
    if reference.weights is None:
        return per_view.mean()
    return (per_view * reference.weights).mean()


def _reference(view: View) -> ReferenceView:
    assert view.reference is not None
    return view.reference


@term("rgb", "reference")
def rgb(view: View) -> Scalar:
    """MSE over all pixels between the rendering and the image over the renderer's background."""
    reference = _reference(view)
    background = torch.ones_like(reference.rgb) if view.out.background is None else view.out.background
    target = reference.rgb * reference.mask + background * (1 - reference.mask)
    return _view_mean((view.out.comp_rgb - target).square(), reference)


@term("mask", "reference")
def mask(view: View) -> Scalar:
    """MSE between opacity and coverage."""
    reference = _reference(view)
    return _view_mean((view.out.opacity - reference.mask).square(), reference)


def _masked_depths(view: View) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Return given and rendered depths inside the mask, the given ones detached."""
    reference = _reference(view)
    assert reference.depth is not None, "a depth loss is checked against the data before training"
    inside = reference.mask[..., 0] > 0.5
    return reference.depth[..., 0][inside].detach(), view.out.depth[..., 0][inside]


@term("depth", "reference", reference_maps="depth")
def depth(view: View) -> Scalar:
    """MSE inside the mask after the best scale and shift of the given depth (least squares)."""
    given, rendered = _masked_depths(view)
    with torch.no_grad():
        a = given - _mean_or_zero(given)
        b = rendered - _mean_or_zero(rendered)
        # A flat image has no scale to find: its best fit is the mean.
        target = _mean_or_zero(rendered) + a * (a * b).sum() / a.square().sum().clamp_min(1e-12)
    return _mean_or_zero((rendered - target).square())


@term("depth_rel", "reference", reference_maps="depth")
def depth_rel(view: View) -> Scalar:
    """1 - Pearson correlation of depths inside the mask."""
    given, rendered = _masked_depths(view)
    a, b = given - _mean_or_zero(given), rendered - _mean_or_zero(rendered)
    return 1 - (a * b).sum() / (a.norm() * (b.square().sum() + 1e-16).sqrt()).clamp_min(1e-8)


@term("near", "reference")
def near(view: View) -> Scalar:
    """Mean distance of the surface inside the mask: fills pits that colours do not determine, up to the visual hull."""
    inside = _reference(view).mask > 0.5
    return _mean_or_zero((view.out.depth / view.out.opacity.clamp_min(0.1))[inside])


@term("normal", "reference", needs=("normal",), reference_maps="normal")
def normal(view: View) -> Scalar:
    """1 - cosine between rendered and given normals inside the mask."""
    reference = _reference(view)
    assert reference.normal is not None
    assert view.out.comp_normal is not None
    inside = reference.mask[..., 0] > 0.5
    given = F.normalize(reference.normal[inside], dim=-1)
    rendered = F.normalize(2 * view.out.comp_normal[inside] - 1, dim=-1)
    return _mean_or_zero(1 - (given * rendered).sum(-1))


@term("normal_smooth", "both", needs=("normal",))
def normal_smooth(view: View) -> Scalar:
    """Mean squared difference of neighbouring pixels of the normal image, down plus across."""
    n = view.out.comp_normal
    assert n is not None
    return (n[:, 1:] - n[:, :-1]).square().mean() + (n[:, :, 1:] - n[:, :, :-1]).square().mean()


@term("3d_normal_smooth", "both", needs=("samples", "normal", "normal_perturbed"))
def normal_smooth_3d(view: View) -> Scalar:
    """Mean absolute difference of normals at the samples (or at some of them) and a small random step away."""
    out = view.out
    assert out.normal is not None
    assert out.normal_perturbed is not None
    normal = out.normal if out.perturbed_at is None else out.normal.index_select(0, out.perturbed_at)
    return _mean_or_zero((normal - out.normal_perturbed).abs())


@term("orient", "both", needs=("samples", "normal"))
def orient(view: View) -> Scalar:
    """Normals that face away from the camera, weighted by visibility, per ray that hits something (Ref-NeRF)."""
    out = view.out
    assert out.weights is not None
    assert out.normal is not None
    assert out.dirs is not None
    facing = (out.normal * out.dirs).sum(-1).clamp_min(0)
    hit = (out.opacity > 0).sum().clamp_min(1)
    return (out.weights.detach() * facing.square()).sum() / hit


@term("sparsity", "novel")
def sparsity(view: View) -> Scalar:
    """Mean of sqrt(opacity^2 + 0.01): prefers empty space."""
    return (view.out.opacity.square() + 0.01).sqrt().mean()


@term("opaque", "both")
def opaque(view: View) -> Scalar:
    """Binary entropy of opacity: prefers solid or empty to foggy."""
    o = view.out.opacity.clamp(1e-3, 1 - 1e-3)
    return -(o * o.log() + (1 - o) * (1 - o).log()).mean()


@term("eikonal", "both", needs=("samples", "sdf"))
def eikonal(view: View) -> Scalar:
    """Mean squared distance of the SDF gradient's length from 1."""
    assert view.out.sdf_grad is not None
    return _mean_or_zero((view.out.sdf_grad.norm(dim=-1) - 1).square())


@term("mask_bce", "reference")
def mask_bce(view: View) -> Scalar:
    """Binary cross-entropy of opacity and coverage, as Magic123 has it."""
    opacity = view.out.opacity.clamp(1e-5, 1 - 1e-5)
    mask = _reference(view).mask
    return _view_mean(-(mask * opacity.log() + (1 - mask) * (1 - opacity).log()), _reference(view))


@term("z_variance", "novel", needs=("samples",))
def z_variance(view: View) -> Scalar:
    """Variance of the depth along rays that hit something: prefers one thin surface (HiFA)."""
    out = view.out
    assert out.weights is not None
    assert out.t is not None
    assert out.ray_indices is not None
    opacity, total = out.opacity.flatten(), torch.zeros_like(out.opacity).flatten()
    share = out.weights / opacity.index_select(0, out.ray_indices).clamp_min(1e-6)
    mean = total.index_add(0, out.ray_indices, share * out.t)
    deviation = (out.t - mean.index_select(0, out.ray_indices)).square()
    variance = total.index_add(0, out.ray_indices, share * deviation)
    return _mean_or_zero(variance[opacity > 0.5])


@term("emptiness", "novel", needs=("samples",))
def emptiness(view: View) -> Scalar:
    """Mean of log(1 + emptiness_scale * weight) over the samples: prefers few full ones (SJC)."""
    assert view.out.weights is not None
    return _mean_or_zero(torch.log(1 + view.settings.emptiness_scale * view.out.weights))


@term("convex", "novel", needs=("normal",))
def convex(view: View) -> Scalar:
    """Minus the mean bend of neighbouring normals of a small normal map: prefers bulges to dents (SDI)."""
    assert view.out.comp_normal is not None
    n = F.interpolate(
        view.out.comp_normal.permute(0, 3, 1, 2),
        [view.settings.convexity_resolution] * 2,
        mode="bilinear",
        align_corners=False,
    ).permute(0, 2, 3, 1)
    across = torch.linalg.cross(n[:, :, :-1], n[:, :, 1:])[..., 2]
    down = torch.linalg.cross(n[:, 1:], n[:, :-1])[..., 2]
    return -(across.mean() + down.mean())


@term("normal_consistency", "both", needs=("mesh",))
def normal_consistency(view: View) -> Scalar:
    """Mean of 1 - cosine between the vertex normals at the ends of the mesh's edges."""
    vertices, faces = view.out.mesh_vertices, view.out.mesh_faces
    assert vertices is not None
    assert faces is not None
    normals = vertex_normals(vertices, faces)[edges_of(faces)]
    return _mean_or_zero(1 - (normals[:, 0] * normals[:, 1]).sum(-1))


@term("laplacian_smoothness", "both", needs=("mesh",))
def laplacian_smoothness(view: View) -> Scalar:
    """Mean length of the uniform Laplacian: how far vertices lie from the sum of their neighbours' positions."""
    vertices, faces = view.out.mesh_vertices, view.out.mesh_faces
    assert vertices is not None
    assert faces is not None
    a, b = edges_of(faces).unbind(-1)
    towards = vertices[b] - vertices[a]
    return _mean_or_zero(torch.zeros_like(vertices).index_add(0, a, -towards).index_add(0, b, towards).norm(dim=-1))


def _mean_or_zero(values: Tensor) -> Scalar:
    """The mean, or a zero with a graph if no ray hit anything."""
    return values.sum() / max(values.numel(), 1)


def _weight_field(name: str) -> Any:
    """A weight of 0 whose documentation is the term's own."""
    doc = DISTILLED.get(name) or TERMS[name].fn.__doc__
    limits = option(0.0, low=0.0, schedule=True).metadata
    return field(default=0.0, metadata={**limits, "doc": f"Weight of: {doc}"})


@dataclass
class TermSettings:
    """Settings of single terms besides their weights."""

    emptiness_scale: float = option(10.0, above=0.0)
    """Emptiness: factor on the weights; larger = samples saturate earlier."""
    convexity_resolution: int = option(8, low=2, high=1024)
    """Convex: edge in pixels of the downsampled normal map."""


def loss_config(own_terms: tuple[str, ...] = ()) -> type:
    """Return the dataclass of all weights, `lambda_<name>`, those of terms registered by plugins included.

    Args:
        own_terms: names of further terms, which a geometry returns itself; see `BaseGeometry.regularization`.

    Returns:
        The dataclass, with a field `lambda_<name>` for every term and the fields of `TermSettings`.

    Raises:
        ValueError: a loss term has one of these names.
    """
    doc = "Weights of the loss terms: numbers or schedules; 0 switches a term off."
    entries = [(f"lambda_{name}", Any, _weight_field(name)) for name in (*DISTILLED, *TERMS)]
    entries += [(f.name, f.type, field(default=f.default, metadata=f.metadata)) for f in fields(TermSettings)]
    for name in own_terms:
        if name in DISTILLED or name in TERMS:
            raise ValueError(f"There is already a loss term '{name}'; a geometry needs another name.")
        metadata = option(0.0, low=0.0, schedule=True).metadata
        doc_of_term = f"Weight of the geometry's own term {name}."
        entries.append((f"lambda_{name}", Any, field(default=0.0, metadata={**metadata, "doc": doc_of_term})))
    return make_dataclass("LossConfig", entries, namespace={"__doc__": doc})


@dataclass(frozen=True)
class LossTerm:
    """A term's value and its weight at this step."""

    value: Scalar
    weight: float


class LossWeights:
    """The weights of all terms over training.

    Args:
        cfg: an instance of `loss_config()`.
        key: full configuration key, named in errors.
        skipped: terms that are off whatever their weight.
        regularized: "both", or "novel": where the terms of both passes apply.
        normals_every: n; terms on rendered normals count in every n-th step, n-fold: in steps 0, n, ... on the
            reference pass and in steps n - 1, 2 n - 1, ... on the novel pass.
    """

    def __init__(
        self,
        cfg: Any,
        key: str = "system.loss",
        skipped: frozenset[str] = frozenset(),
        regularized: str = "both",
        normals_every: int = 1,
    ) -> None:
        self.settings = cfg
        self.regularized = regularized
        self.normals_every = normals_every
        self.schedules = {
            f.name.removeprefix("lambda_"): Schedule(getattr(cfg, f.name), f"{key}.{f.name}")
            for f in fields(cfg)
            if f.name.startswith("lambda_")
        }
        self.schedules |= {name: Schedule(0.0) for name in skipped}
        self.halvings: dict[str, int] = {}
        """How often a term's weight was halved because its value was not finite."""

    def weight(self, name: str, step: int) -> float:
        """Return the weight of one term at global step `step`."""
        return self.schedules[name](step) * 0.5 ** self.halvings.get(name, 0)

    def is_ever_used(self, name: str) -> bool:
        """Tell whether a term has a nonzero weight at any step."""
        return not self.schedules[name].is_zero

    def required_maps(self) -> dict[str, str]:
        """Return the maps of the reference views that the terms with a nonzero weight at any step need."""
        return {name: t.reference_maps for name, t in TERMS.items() if t.reference_maps and self.is_ever_used(name)}

    def weight_in(self, view: str, name: str, step: int) -> float:
        """Return the weight of one term on a pass at `step`; see `normals_every`."""
        weight = self.weight(name, step)
        if "normal" not in TERMS[name].needs:
            return weight
        pauses = (step + (view == "novel")) % self.normals_every != 0
        return 0.0 if pauses else weight * self.normals_every

    def active(self, view: str, step: int) -> dict[str, Term]:
        """Return the terms with a nonzero weight on a "reference" or "novel" pass at `step`."""
        passed_over = view == "reference" and self.regularized == "novel"
        return {
            n: t
            for n, t in TERMS.items()
            if view in t.views and not (passed_over and len(t.views) > 1) and self.weight_in(view, n, step) != 0
        }

    def needs(self, view: str, step: int) -> frozenset[str]:
        """Return what the active terms need of the renderer."""
        return frozenset().union(*(t.needs for t in self.active(view, step).values()))

    def compute(self, view: str, step: int, rendered: View) -> dict[str, LossTerm]:
        """Return value and weight of every active term of a pass."""
        rendered = replace(rendered, settings=self.settings)
        return {
            name: LossTerm(t.fn(rendered), self.weight_in(view, name, step))
            for name, t in self.active(view, step).items()
        }
