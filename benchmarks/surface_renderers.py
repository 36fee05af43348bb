"""A rasterised step of the second stage compared with NeuS's: points evaluated, and CPU seconds forward and backward.

    python benchmarks/surface_renderers.py

A ball of radius 0.4 as `implicit-sdf`, with the sizes of the `cpu` profile, in four views of 64 x 64 and of 128 x 128; the
renderers take turns.
"""

from functools import partial

import compare
import torch

from zero123s.background.solid import SolidColorBackground
from zero123s.geometry.encoding import EncodingConfig
from zero123s.geometry.implicit_sdf import ImplicitSDF
from zero123s.material.diffuse import NoMaterial
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.networks import NetworkConfig
from zero123s.renderer.base import BaseRenderer
from zero123s.renderer.mesh_rasterizer import MeshRasterizer
from zero123s.renderer.neus_volume import NeusVolumeRenderer
from zero123s.structures import RayBundle
from zero123s.system.field import GeometryMaterialField

WHITE = SolidColorBackground(SolidColorBackground.Config())


def ball() -> GeometryMaterialField:
    """Return the field of both renderers."""
    encoding = EncodingConfig(n_levels=8, log2_hashmap_size=16, base_resolution=12, per_level_scale=1.35)
    network = NetworkConfig(n_neurons=32, n_hidden_layers=1)
    config = ImplicitSDF.Config(
        radius=0.7,
        sdf_bias_params=0.4,
        pos_encoding_config=encoding,
        mlp_network_config=network,
        normal_type="analytic",
    )
    geometry = ImplicitSDF(config)
    return GeometryMaterialField(geometry, NoMaterial(NoMaterial.Config(), geometry.n_features))


def step(renderer: BaseRenderer, field: GeometryMaterialField, rays: RayBundle) -> int:
    """Render and go back; return the points whose colours were evaluated."""
    out = renderer(rays, field, WHITE, frozenset(), torch.Generator().manual_seed(0))
    (out.comp_rgb.mean() + out.opacity.mean()).backward()
    return out.n_samples


def main() -> None:
    """Print a row per image size."""
    args = compare.arguments(__doc__)
    results: dict[str, dict] = {}
    torch.manual_seed(0)
    neus = NeusVolumeRenderer.Config(num_samples_per_ray=128, learned_variance_init=0.45, early_stop=0.01)
    sides = {"rasterizer": MeshRasterizer(MeshRasterizer.Config(), 0.7), "neus": NeusVolumeRenderer(neus, 0.7)}
    field = ball()
    for number in range(32):  # the occupancy grid has refine_vertices
        for renderer in sides.values():
            renderer.update(field, number, torch.Generator().manual_seed(number))
    for size in (64, 128):
        rays = generate_rays(orbit_cameras(20.0, torch.tensor([0.0, 90.0, 180.0, 270.0]), height=size, width=size))
        points = {name: step(renderer, field, rays) for name, renderer in sides.items()}
        seconds = compare.medians({n: partial(step, r, field, rays) for n, r in sides.items()}, args.repeats)
        compare.report(
            results, f"{size} x {size}", seconds, {"neus / rasterizer": seconds["neus"] / seconds["rasterizer"]}
        )
        print(f"  points: {points}")
    compare.save(results, args.output)


if __name__ == "__main__":
    main()
