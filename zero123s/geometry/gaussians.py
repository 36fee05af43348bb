"""3D Gaussians (Kerbl et al. 2023): an explicit geometry, rendered by splatting instead of ray marching."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from zero123s.config.options import option
from zero123s.geometry.base import GEOMETRIES, BaseGeometry, GeometryOutput
from zero123s.geometry.densification import Densification, DensificationConfig
from zero123s.mesh.silhouette import hull_surface
from zero123s.mesh.splats import SH_0, GaussianParameters, gaussians_at, read_splats
from zero123s.ops.gaussian_splatting import covariance_factors, rotation_matrices
from zero123s.ops.gaussian_sum import gaussian_sum
from zero123s.ops.spherical_harmonics import spherical_harmonics
from zero123s.ops.vectors import unit
from zero123s.randomness import generator_on
from zero123s.structures import GaussianViews, ReferenceView

NEARBY = 0.01
"""Standard deviation of the steps to perturbed normals, as a share of the radius."""
MIN_SCALE = 1e-7
"""Smallest standard deviation in world units, so that covariances stay invertible."""


@GEOMETRIES.register("gaussians")
class Gaussians(BaseGeometry):
    """Means, log-scales, quaternions, opacity logits and colour as spherical harmonics.

    Rendered by `gaussian-rasterizer`. Features are colours: 0.5 plus the harmonics, as in 3DGS's files, so that the
    material should leave them as they are (`no-material` with `color_activation: none`).
    """

    @dataclass
    class Config(BaseGeometry.Config):
        """Settings of `gaussians`."""

        sh_degree: int = option(0, low=0, high=3)
        """Degree of the spherical harmonics; 0 = one colour from every side."""
        start: str = option("blob", path=True)
        """"blob": points drawn uniformly from a ball; "hull": from the surface of the images' visual hull; or a .ply file
        of splats or of coloured points."""
        n_points: int = option(5000, low=1)
        """Gaussians of the blob, on the hull, or on a first stage's surface."""
        start_radius: float = option(0.5, above=0.0)
        """Radius of the blob, world units."""
        start_opacity: float = option(0.1, low=0.001, high=0.99)
        """Initial opacity of Gaussians that do not come from a file."""
        densification: DensificationConfig = field(default_factory=DensificationConfig)
        """When Gaussians are cloned, split and pruned."""

    cfg: Config
    has_gaussians = True
    n_features = 3

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if cfg.start in ("blob", "hull"):  # the hull's images come later
            start = _blob(cfg.n_points, cfg.start_radius, cfg.start_opacity, (cfg.sh_degree + 1) ** 2)
        else:
            start = read_splats(cfg.start, cfg.sh_degree)
        self.means = nn.Parameter(start.means)
        self.log_scales = nn.Parameter(start.log_scales)
        self.quaternions = nn.Parameter(start.quaternions)
        self.opacity_logits = nn.Parameter(start.opacity_logits)
        self.sh_0 = nn.Parameter(start.sh[:, :1])
        self.sh_rest = nn.Parameter(start.sh[:, 1:]) if cfg.sh_degree else None
        self.densification = Densification(cfg.densification, len(start.means))

    # ------------------------------------------------------------ as Gaussians

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        """Standard deviations along the Gaussians' own axes, world units."""
        return self.log_scales.exp().clamp_min(MIN_SCALE)

    @property
    def opacities(self) -> Float[Tensor, "N"]:
        """Opacity of every Gaussian at its centre, in (0, 1)."""
        return torch.sigmoid(self.opacity_logits)

    def gaussians(self, centers: Float[Tensor, "B 3"], needs: frozenset[str]) -> GaussianViews:
        """Return the Gaussians with view-dependent colours for camera centres; see `BaseGeometry`."""
        normal = self._normals_from(centers) if "normal" in needs else None
        record = self.densification.record if self.training else None
        return GaussianViews(
            self.means, self.scales, self.quaternions, self.opacities, self._colors_from(centers), normal, record
        )

    def gaussian_parameters(self) -> GaussianParameters:
        """Return all parameters without a graph; see `BaseGeometry`."""
        named = (self.means, self.log_scales, self.quaternions, self.opacity_logits, self._harmonics())
        return GaussianParameters(*(p.detach() for p in named))

    def _harmonics(self) -> Float[Tensor, "N K 3"]:
        return self.sh_0 if self.sh_rest is None else torch.cat([self.sh_0, self.sh_rest], dim=1)

    def _colors_from(self, centers: Float[Tensor, "B 3"]) -> Float[Tensor, "B N 3"]:
        """Return the colour of every Gaussian in the direction of each camera centre."""
        sh = self._harmonics()
        if self.cfg.sh_degree == 0:
            colors = (SH_0 * sh[:, 0]).expand(len(centers), -1, -1)
        else:
            dirs = unit(self.means.detach() - centers[:, None])
            basis = spherical_harmonics(dirs, self.cfg.sh_degree + 1)
            colors = (basis[..., None] * sh).sum(-2)
        return (0.5 + colors).clamp_min(0)

    def _normals_from(self, centers: Float[Tensor, "B 3"]) -> Float[Tensor, "B N 3"]:
        """Return the shortest axis of every Gaussian, turned towards the camera."""
        shortest = self.log_scales.argmin(-1)
        rotations = rotation_matrices(self.quaternions)
        axis = rotations.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
        towards = ((centers[:, None] - self.means) * axis).sum(-1, keepdim=True)
        return torch.where(towards < 0, -axis, axis)

    def start_from_views(self, reference: ReferenceView, generator: torch.Generator) -> None:
        """Start on the visual hull if the settings say so; see `BaseGeometry`."""
        if self.cfg.start == "hull":
            points = hull_surface(reference.to("cpu"), self.cfg.radius, self.cfg.n_points, generator)
            self.start_from_points(points, torch.full_like(points, 0.5))

    def start_from_points(self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"]) -> None:
        """Place a round Gaussian at every point; see `BaseGeometry`."""
        start = gaussians_at(points.cpu(), colors.cpu(), self.cfg.sh_degree, self.cfg.start_opacity)
        values = [start.means, start.log_scales, start.quaternions, start.opacity_logits, start.sh[:, :1]]
        parameters = [self.means, self.log_scales, self.quaternions, self.opacity_logits, self.sh_0]
        if self.sh_rest is not None:
            values.append(start.sh[:, 1:])
            parameters.append(self.sh_rest)
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value.to(parameter)
        self.densification.resize(len(points))

    def before_step(self, optimizer: Optimizer, step: int, generator: torch.Generator) -> None:
        """Clone, split and prune, or reset opacities, at the configured steps; see `BaseGeometry`."""
        self.densification.apply(self, optimizer, step, generator)

    # ------------------------------------------------------------ as a field

    def forward(
        self, x: Float[Tensor, "N 3"], needs: frozenset[str], generator: torch.Generator | None = None
    ) -> GeometryOutput:
        """Evaluate the field behind the Gaussians: density, mean colour, and the direction in which the opacity falls."""
        opacities = self.opacities[:, None]
        colors = (0.5 + SH_0 * self.sh_0[:, 0]).clamp_min(0)
        sums, gradient = self._sum(x, torch.cat([opacities, self._peak_density()[:, None], opacities * colors], dim=1))
        features = sums[:, 2:] / sums[:, :1].clamp_min(1e-8) if "features" in needs else None
        perturbed = None
        if "normal_perturbed" in needs:
            drawn_by = generator_on(x.device, generator)
            step = torch.randn(x.shape, generator=drawn_by, device=x.device).to(x)
            perturbed = _falling(self._sum(x + NEARBY * self.cfg.radius * step, opacities)[1], x)
        normal = _falling(gradient, x) if "normal" in needs else None
        return GeometryOutput(sums[:, 1], features, normal, perturbed)

    def surface_level(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the sum of opacities, which grows towards the inside (DreamGaussian's local density)."""
        return self._sum(x, self.opacities[:, None])[0][:, 0]

    def _sum(self, x: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        return gaussian_sum(x, self.means, covariance_factors(self.scales, self.quaternions), columns)

    def _peak_density(self) -> Float[Tensor, "N"]:
        """Return the density at each centre that gives a ray along the shortest axis the Gaussian's opacity."""
        thickness = (2 * torch.pi) ** 0.5 * self.scales.amin(-1)
        return -torch.log1p(-self.opacities.clamp_max(0.99)) / thickness

    # ------------------------------------------------------------ checkpoints

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Take the number of Gaussians from the checkpoint."""
        saved = state_dict.get(f"{prefix}means")
        if saved is not None and len(saved) != len(self.means):
            for parameter in self.parameters(recurse=False):
                parameter.data = parameter.data.new_zeros(len(saved), *parameter.shape[1:])
            self.densification.resize(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _falling(gradient: Float[Tensor, "N 3"], x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Return the direction in which a sum decreases; away from the centre beyond the reach of all Gaussians."""
    return unit(torch.where((gradient == 0).all(-1, keepdim=True), x, -gradient))


def _blob(n: int, radius: float, opacity: float, n_harmonics: int) -> GaussianParameters:
    """Return grey Gaussians spread uniformly over a ball, each as large as the distance between them."""
    means = radius * torch.rand(n, 1) ** (1 / 3) * unit(torch.randn(n, 3))
    spacing = radius * (4 / 3 * torch.pi / n) ** (1 / 3)
    return GaussianParameters(
        means,
        torch.full((n, 3), spacing).log(),
        torch.tensor([1.0, 0, 0, 0]).repeat(n, 1),
        torch.logit(torch.full((n,), opacity)),
        torch.zeros(n, n_harmonics, 3),
    )
