"""The typed data that crosses module borders.

Shapes use one letter per axis: B views, H rows, W columns, N points or samples, R rays, V vertices, F faces.
Colours are sRGB in [0, 1] with channels last; angles are degrees wherever a name ends in `_deg`; the world is
right-handed with z up, and cameras are OpenGL cameras (x right, y up, looking along -z). See docs/conventions.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

T = TypeVar("T")


def _map_tensors(obj: T, fn) -> T:
    """Return a copy of a dataclass with `fn` applied to its tensors, nested dataclasses included."""
    changes = {}
    for f in fields(obj):  # type: ignore[arg-type]
        value = getattr(obj, f.name)
        if isinstance(value, Tensor):
            changes[f.name] = fn(value)
        elif hasattr(value, "__dataclass_fields__"):
            changes[f.name] = _map_tensors(value, fn)
    return replace(obj, **changes)  # type: ignore[type-var]


class TensorData:
    """Moves, selects or detaches all tensors of a frozen dataclass at once."""

    def to(self: T, device: torch.device | str, dtype: torch.dtype | None = None) -> T:
        """Return a copy with every tensor on a device.

        Args:
            device: the target.
            dtype: of the floating point tensors; None leaves it.

        Returns:
            The copy; nested dataclasses are moved too.
        """
        # To a GPU the host need not wait: pageable memory is staged before the call returns. The other way it must.
        non_blocking = torch.device(device).type != "cpu"

        def move(t: Tensor) -> Tensor:
            return t.to(device, dtype if t.is_floating_point() else None, non_blocking=non_blocking)

        return _map_tensors(self, move)

    def select(self: T, index: slice | Tensor) -> T:
        """Select views, or objects, along the first axis of all tensors.

        Args:
            index: a slice, or K numbers.

        Returns:
            The K views or objects.
        """
        return _map_tensors(self, lambda t: t[index])

    def detach(self: T) -> T:
        """Return a copy with every tensor detached from the autograd graph.

        Returns:
            The copy, which shares the tensors' memory.
        """
        return _map_tensors(self, lambda t: t.detach())


@dataclass(frozen=True)
class Cameras(TensorData):
    """B pinhole cameras that share one image size."""

    c2w: Float[Tensor, "B 4 4"]
    """Camera-to-world matrices, columns right | up | back | position."""
    fovy_deg: Float[Tensor, "B"]
    elevation_deg: Float[Tensor, "B"]
    azimuth_deg: Float[Tensor, "B"]
    distance: Float[Tensor, "B"]
    height: int
    width: int
    light_positions: Float[Tensor, "B 3"] | None = None
    """World positions of one point light per view; None = at the camera."""

    def __len__(self) -> int:
        return self.c2w.shape[0]

    @property
    def positions(self) -> Float[Tensor, "B 3"]:
        """Camera centres in the world."""
        return self.c2w[:, :3, 3]

    def resized(self, height: int, width: int) -> "Cameras":
        """Return the same views at another image size.

        Args:
            height, width: pixels.

        Returns:
            Cameras with the same poses and fields of view.
        """
        return replace(self, height=height, width=width)


@dataclass(frozen=True)
class RayBundle(TensorData):
    """Rays of whole images, or of any other leading shape."""

    rays_o: Float[Tensor, "B H W 3"]
    rays_d: Float[Tensor, "B H W 3"]
    """Unit length."""
    light_positions: Float[Tensor, "B 3"]


@dataclass(frozen=True)
class ReferenceView(TensorData):
    """Images that supervise the rendering: the input image, or several posed ones."""

    cameras: Cameras
    rgb: Float[Tensor, "B H W 3"]
    """Straight (unpremultiplied) colour; outside the object it means nothing."""
    mask: Float[Tensor, "B H W 1"]
    """Coverage in [0, 1]."""
    depth: Float[Tensor, "B H W 1"] | None = None
    """Distance along the ray, up to an unknown scale and shift."""
    normal: Float[Tensor, "B H W 3"] | None = None
    """World-space unit normals."""
    weights: Float[Tensor, "B"] | None = None
    """Weight of each view, 1 on average over all images of a data source; None = equal weights."""


@dataclass(frozen=True)
class Batch(TensorData):
    """The input of one training step."""

    reference: ReferenceView | None
    """None = no reference image."""
    novel: Cameras | None
    """Views supervised by the guidance alone; None = a step without guidance."""


@dataclass(frozen=True)
class PosedViews(TensorData):
    """V rendered views each of B objects, view 0 first: the conditioning view. Training data of Zero123."""

    rgba: Float[Tensor, "B V H W 4"]
    """Straight alpha, in [0, 1]."""
    elevation_deg: Float[Tensor, "B V"]
    azimuth_deg: Float[Tensor, "B V"]
    distance: Float[Tensor, "B V"]
    latents: Float[Tensor, "B V C h w"] | None = None
    """Unscaled latents from a cache; None = encode the images."""
    embedding: Float[Tensor, "B N D"] | None = None
    """Image embedding of view 0 from a cache; None = embed the image."""

    def on_white(self) -> Float[Tensor, "B V 3 H W"]:
        """Composite the images on white.

        Returns:
            B V 3 H W, channels first, in [0, 1].
        """
        alpha = self.rgba[..., 3:]
        return (self.rgba[..., :3] * alpha + (1 - alpha)).movedim(-1, 2)


@dataclass(frozen=True)
class GaussianViews(TensorData):
    """N 3D Gaussians, and their colours and normals for B cameras."""

    means: Float[Tensor, "N 3"]
    scales: Float[Tensor, "N 3"]
    """Standard deviations along the Gaussian's own axes, world units."""
    quaternions: Float[Tensor, "N 4"]
    """(w, x, y, z), not normalised."""
    opacities: Float[Tensor, "N"]
    rgb: Float[Tensor, "B N 3"]
    normal: Float[Tensor, "B N 3"] | None = None
    """Unit normals that face the camera: the shortest axis."""
    record_screen_gradients: Callable[[Float[Tensor, "B N 2"], Bool[Tensor, "B N"]], None] | None = None
    """Called in the backward pass with the gradients of the means on the screen (in half images) and which Gaussians are
    visible; used for densification. None = not needed."""


@dataclass(frozen=True)
class FieldOutput(TensorData):
    """A radiance field evaluated at N points; what was not requested is None."""

    sigma: Float[Tensor, "N"]
    rgb: Float[Tensor, "N C"] | None = None
    normal: Float[Tensor, "N 3"] | None = None
    """Unit outward normals."""
    normal_perturbed: Float[Tensor, "K 3"] | None = None
    """Normals a small random step away from the points `perturbed_at`, or from all of them, for the smoothness loss."""
    sdf: Float[Tensor, "N"] | None = None
    sdf_grad: Float[Tensor, "N 3"] | None = None
    perturbed_at: Int[Tensor, "K"] | None = None


@runtime_checkable
class RadianceField(Protocol):
    """The interface of a scene for renderer and exporter."""

    bound: float
    """Half edge of the cube [-bound, bound]^3 outside which there is nothing."""

    # Points may lie on any device: an exporter has them on the CPU. Results lie on the field's.

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the volume density.

        Args:
            x: N 3, world positions.

        Returns:
            N, per world unit, at least 0.
        """
        ...

    def query(
        self,
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        needs: frozenset[str],
        light_positions: Float[Tensor, "N 3"] | None = None,
    ) -> FieldOutput:
        """Evaluate the field for rendering.

        Args:
            x: N 3, world positions.
            dirs: N 3, unit directions from the camera.
            needs: any of "rgb", "normal", "normal_perturbed", "sdf".
            light_positions: N 3, world positions of a point light for each sample; None = unlit.

        Returns:
            Density, and the outputs that `needs` names; the others are None.
        """
        ...

    def surface_level(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the function whose level set the exporter extracts: density, or minus the signed distance.

        Args:
            x: N 3, world positions.

        Returns:
            N, larger inside the object.
        """
        ...

    def gaussians(
        self, centers: Float[Tensor, "B 3"], needs: frozenset[str], light_positions: Float[Tensor, "B 3"]
    ) -> GaussianViews | None:
        """Return the field as 3D Gaussians, with view-dependent colours.

        Args:
            centers: B 3, camera centres.
            needs: "normal", or empty.
            light_positions: B 3, one point light for each view.

        Returns:
            The Gaussians for B views; None for a field of another kind.
        """
        ...


@runtime_checkable
class BackgroundFunction(Protocol):
    """A colour for every unit ray direction."""

    def __call__(
        self, dirs: Float[Tensor, "B H W 3"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B H W C"]: ...


@dataclass(frozen=True)
class RenderOutput(TensorData):
    """Rendered images, and the samples behind them if a loss needs them."""

    comp_rgb: Float[Tensor, "B H W C"]
    """Colours; where a field holds latents, those."""
    opacity: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"]
    """Opacity-weighted distance along the ray, not divided by opacity."""
    background: Float[Tensor, "B H W C"] | None = None
    """Background colour behind the object."""
    comp_normal: Float[Tensor, "B H W 3"] | None = None
    """(unit normal + 1) / 2, times opacity."""
    weights: Float[Tensor, "N"] | None = None
    dirs: Float[Tensor, "N 3"] | None = None
    ray_indices: Int[Tensor, "N"] | None = None
    normal: Float[Tensor, "N 3"] | None = None
    normal_perturbed: Float[Tensor, "K 3"] | None = None
    perturbed_at: Int[Tensor, "K"] | None = None
    """The samples that `normal_perturbed` belongs to; None = all."""
    sdf_grad: Float[Tensor, "N 3"] | None = None
    t: Float[Tensor, "N"] | None = None
    """Distances of the samples along their rays."""
    mesh_vertices: Float[Tensor, "V 3"] | None = None
    """The surface that was rasterised, differentiable."""
    mesh_faces: Int[Tensor, "F 3"] | None = None
    n_samples: int = 0
    """Samples that took part, for logs and budgets."""


@dataclass(frozen=True)
class GuidanceOutput(TensorData):
    """The loss of a guidance on a batch of rendered views."""

    loss: Float[Tensor, ""]
    """Its gradient with respect to the images is the guidance; its value is not meaningful for SDS."""
    grad_norm: Float[Tensor, ""]
    timesteps: Int[Tensor, "B"]
    image_loss: Float[Tensor, ""] | None = None
    """The same in image space (HiFA), weighted by `lambda_sds_img`; None where the guidance has none."""


@dataclass(frozen=True)
class StepDiagnostics:
    """Values of a training step for callbacks: detached tensors, reduced only on request.

    Losses and images are those of the last step; opacity and guidance those of the last step that had them.
    """

    step: int = 0
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Unweighted loss terms by "<pass>/<name>"."""
    numbers: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """All that the step logs, by name."""
    opacity: Float[Tensor, "B H W 1"] | None = None
    """Rendered opacity of the reference views."""
    mask: Float[Tensor, "B H W 1"] | None = None
    """Given mask of the reference views."""
    occupancy: Bool[Tensor, "X Y Z"] | None = None
    """Cells of the scene that may hold matter."""
    guidance_grad_norm: Float[Tensor, ""] | None = None
    elevation_deg: float | None = None
    """Of the input image, where there is one and a guidance conditioned on it."""
    guidance_images: dict[str, Float[Tensor, "B h w 3"]] = field(default_factory=dict)
    """Input and prediction of the guidance, every `freq.guidance_eval` steps."""


@dataclass(frozen=True)
class Provenance:
    """The origin of a mesh: the program, and the model that guided it. Saved in the formats that have metadata."""

    generator: str = "zero123s"
    model_path: str | None = None
    model_sha256: str | None = None
    model_family: str | None = None
    model_license: str | None = None
    model_weights: str | None = None
    model_dtype: str | None = None
    model_bundled: str | None = None
    model_prompt: str | None = None
    model_also: str | None = None
    """Paths of further models."""

    @classmethod
    def of_model(cls, record: Mapping[str, object]) -> "Provenance":
        """Return the provenance of a guidance's model.

        Args:
            record: the result of `BaseGuidance.describe()`; entries without a field here are ignored.

        Returns:
            The provenance.
        """
        known = {f.name for f in fields(cls)}
        return cls(**{f"model_{k}": str(v) for k, v in record.items() if v is not None and f"model_{k}" in known})

    def as_dict(self) -> dict[str, str]:
        """Return the entries that are not None.

        Returns:
            Field name -> value.
        """
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass
class Mesh:
    """A triangle mesh on the CPU in the world frame (z up), ready to be written."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    """Counter-clockwise seen from outside."""
    normals: Float[np.ndarray, "V 3"] | None = None
    vertex_colors: Float[np.ndarray, "V 3"] | None = None
    uvs: Float[np.ndarray, "V 2"] | None = None
    """Per vertex (vertices are split at seams), origin at the lower left."""
    texture: Float[np.ndarray, "TH TW 3"] | None = None
    """Base colour, row 0 on top."""
    normal_map: Float[np.ndarray, "NH NW 3"] | None = None
    """Tangent-space normals, (n + 1) / 2; x along `tangents`, y along the bitangent, z along `normals`."""
    extras: Provenance = field(default_factory=Provenance)
    tangents: Float[np.ndarray, "V 4"] | None = None
    """Unit direction in which u grows, and the sign that makes the bitangent sign * cross(normal, tangent)."""
