"""3D Gaussians as a geometry: what they are as a field, and how their number changes."""

import math
from types import SimpleNamespace

import pytest
import torch

from zero123s.config.parse import parse
from zero123s.errors import MeshError
from zero123s.geometry.gaussians import Gaussians
from zero123s.material import MATERIALS
from zero123s.mesh.splats import SH_0, GaussianParameters, read_splats, write_splat, write_splat_ply
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.structures import ReferenceView
from zero123s.system import refinement
from zero123s.system.field import GeometryMaterialField

NEEDS = frozenset({"features", "normal"})


def geometry(n_points=40, **overrides):
    torch.manual_seed(0)
    return Gaussians(parse(Gaussians.Config, {"n_points": n_points, **overrides}, "system.geometry"))


def trained(g):
    """Return an Adam that has done one step on every parameter."""
    optimizer = torch.optim.Adam(g.parameters(), lr=0.01)
    sum(p.square().sum() for p in g.parameters()).backward()
    optimizer.step()
    return optimizer


def test_one_gaussian_as_a_field():
    g = geometry(1)
    with torch.no_grad():
        g.means.zero_()
        g.log_scales.fill_(math.log(0.1))
        g.opacity_logits.fill_(math.log(0.5 / 0.5))
        g.sh_0.copy_(torch.tensor([[[0.2, 0.0, -0.3]]]) / SH_0)
    out = g(torch.tensor([[0.1, 0.0, 0.0]]), NEEDS)
    falloff = math.exp(-0.5)
    assert g.surface_level(torch.tensor([[0.1, 0.0, 0.0]])).item() == pytest.approx(0.5 * falloff, rel=1e-4)
    assert out.sigma.item() == pytest.approx(math.log(2) / (math.sqrt(2 * math.pi) * 0.1) * falloff, rel=1e-4)
    assert out.features[0].tolist() == pytest.approx([0.7, 0.5, 0.2], abs=1e-4)
    assert out.normal[0].tolist() == pytest.approx([1, 0, 0], abs=1e-4)


def test_density_reproduces_the_opacity_of_a_gaussian():
    g = geometry(1)
    with torch.no_grad():
        g.means.zero_()
        g.log_scales.copy_(torch.tensor([[0.3, 0.3, 0.05]]).log())
        g.opacity_logits.fill_(torch.logit(torch.tensor(0.8)).item())
    z = torch.linspace(-0.5, 0.5, 2001)
    sigma = g.density(torch.stack([0 * z, 0 * z, z], dim=-1))
    assert 1 - math.exp(-float(torch.trapezoid(sigma, z))) == pytest.approx(0.8, abs=2e-3)


def test_colour_depends_on_direction_with_harmonics():
    g = geometry(3, sh_degree=1)
    with torch.no_grad():
        g.sh_rest.copy_(torch.tensor([0.0, 0.0, -0.1])[:, None].expand(3, 3, 3))
    front, back = g.gaussians(torch.tensor([[4.0, 0, 0], [-4.0, 0, 0]]), frozenset()).rgb
    # A camera on +x looks along -x, where the harmonic -0.4886 x is positive.
    assert front[:, 0].tolist() == pytest.approx([0.5 - 0.04886] * 3, abs=1e-3)
    assert back[:, 0].tolist() == pytest.approx([0.5 + 0.04886] * 3, abs=1e-3)


def test_normals_are_the_shortest_axis_towards_the_camera():
    g = geometry(1)
    with torch.no_grad():
        g.means.zero_()
        g.log_scales.copy_(torch.tensor([[0.0, -3.0, 0.0]]))
    normal = g.gaussians(torch.tensor([[0.0, 3.0, 1.0], [0.0, -3.0, 1.0]]), frozenset({"normal"})).normal
    assert normal[:, 0].tolist() == [[0, 1, 0], [0, -1, 0]]


def densify(g, optimizer, pulled, **overrides):
    cfg = g.densification.cfg
    for name, value in {
        "start_step": 1,
        "interval": 1,
        "opacity_reset_interval": 0,
        "max_scale": 10.0,
        **overrides,
    }.items():
        setattr(cfg, name, value)
    g.densification.grad_sum.copy_(torch.where(pulled, 2 * cfg.grad_threshold, 0.0))
    g.densification.n_seen.fill_(1)
    g.before_step(optimizer, 5, torch.Generator().manual_seed(1))


def test_small_gaussians_are_cloned_and_large_ones_split():
    g = geometry(4)
    optimizer = trained(g)
    with torch.no_grad():
        g.log_scales.copy_(torch.tensor([0.01, 0.01, 0.3, 0.3]).log()[:, None].expand(4, 3))
    before = {n: p.detach().clone() for n, p in g.named_parameters()}
    moments = optimizer.state[g.means]["exp_avg"].clone()
    densify(g, optimizer, torch.tensor([False, True, False, True]))
    # Kept: 0, 1, 2; then the clone of 1; then the two halves of 3.
    assert len(g.means) == 6
    assert torch.equal(g.means[:4], before["means"][[0, 1, 2, 1]])
    assert not torch.equal(g.means[4], g.means[5])
    torch.testing.assert_close(g.scales[4:], torch.full((2, 3), 0.3 / 1.6))
    assert torch.equal(optimizer.state[g.means]["exp_avg"][:3], moments[:3])
    assert optimizer.state[g.means]["exp_avg"][3:].abs().sum() == 0
    assert g.densification.grad_sum.shape == (6,)


def test_transparent_gaussians_are_pruned_but_never_all():
    g = geometry(3)
    optimizer = trained(g)
    with torch.no_grad():
        g.opacity_logits.copy_(torch.logit(torch.tensor([0.5, 0.001, 0.5])))
    densify(g, optimizer, torch.zeros(3, dtype=torch.bool))
    assert len(g.means) == 2
    with torch.no_grad():
        g.opacity_logits.fill_(-9.0)
    densify(g, optimizer, torch.zeros(2, dtype=torch.bool))
    assert len(g.means) == 2


def test_reset_caps_opacities_and_forgets_their_moments():
    g = geometry(3, densification={"opacity_reset_interval": 5, "start_step": 100})
    optimizer = trained(g)
    with torch.no_grad():
        g.opacity_logits.copy_(torch.logit(torch.tensor([0.9, 0.005, 0.5])))
    g.before_step(optimizer, 5, torch.Generator())
    assert g.opacities.tolist() == pytest.approx([0.01, 0.005, 0.01], rel=1e-4)
    assert optimizer.state[g.opacity_logits]["exp_avg"].abs().sum() == 0


def test_a_checkpoint_brings_its_own_number():
    saved = geometry(7)
    saved.densification.grad_sum.fill_(3.0)
    fresh = geometry(4)
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh.means, saved.means)
    assert fresh.densification.grad_sum.tolist() == [3.0] * 7


def test_the_hull_start_lies_on_the_silhouettes_hull():
    cameras = orbit_cameras(0.0, torch.tensor([0.0, 90.0, 45.0]), height=64, width=64)
    rays = generate_rays(cameras)
    closest = torch.linalg.cross(rays.rays_o, rays.rays_d).norm(dim=-1, keepdim=True)
    mask = (closest < 0.3).float()
    g = geometry(500, start="hull", radius=0.7, start_opacity=0.4, sh_degree=1)
    g.start_from_views(ReferenceView(cameras, mask.expand(-1, -1, -1, 3), mask), torch.Generator().manual_seed(0))
    around = g.means[:, :2].norm(dim=-1)
    assert len(g.means) == 500
    assert g.opacities.tolist() == pytest.approx([0.4] * 500)
    assert float(g.means.detach().norm(dim=-1).min()) > 0.25, "nothing deep inside a ball's hull"
    assert float(around.detach().max()) < 0.3 * math.sqrt(2) + 0.03, (
        "the square that two of the views leave, and a cell"
    )
    assert g.densification.grad_sum.shape == (500,)


def test_gaussians_start_on_and_below_a_surface():
    first = geometry(1)
    with torch.no_grad():
        first.means.zero_()
        first.log_scales.fill_(math.log(0.2))
        first.opacity_logits.fill_(torch.logit(torch.tensor(0.9)).item())
        first.sh_0.copy_(torch.tensor([[[0.2, 0.0, -0.3]]]) / SH_0)
    material = MATERIALS.get("no-material")(MATERIALS.get("no-material").Config(color_activation="none"), 3)
    system = SimpleNamespace(geometry=geometry(200), seed=0)
    record = refinement._start_gaussians(system, GeometryMaterialField(first, material), 0.5, {})
    radius = 0.2 * math.sqrt(2 * math.log(0.9 / 0.5))
    assert record["gaussians"] == len(system.geometry.means) == 200
    distances = system.geometry.means.detach().norm(dim=-1)
    assert distances[1::2].tolist() == pytest.approx([radius] * 100, abs=0.01)
    assert radius - refinement.SHELL - 0.01 < distances[::2].min() < radius - 0.09
    assert float(distances[::2].mean()) == pytest.approx(radius - refinement.SHELL / 2, abs=0.02)
    assert (0.5 + SH_0 * system.geometry.sh_0[0, 0]).tolist() == pytest.approx([0.7, 0.5, 0.2], abs=1e-3)


def test_masks_without_a_common_point_are_said():
    cameras = orbit_cameras(0.0, torch.tensor([0.0, 90.0]), height=16, width=16)
    empty = ReferenceView(cameras, torch.zeros(2, 16, 16, 3), torch.zeros(2, 16, 16, 1))
    with pytest.raises(MeshError, match="check masks and poses"):
        geometry(5, start="hull", radius=0.5).start_from_views(empty, torch.Generator())


# ---------------------------------------------------------------- files


def parameters(n=5, degree=2):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return GaussianParameters(draw(n, 3), draw(n, 3), draw(n, 4), draw(n), draw(n, (degree + 1) ** 2, 3))


def test_ply_reads_back(tmp_path):
    written = parameters()
    read = read_splats(write_splat_ply(tmp_path / "a.ply", written), 2)
    for name in ("means", "log_scales", "opacity_logits", "sh"):
        torch.testing.assert_close(getattr(read, name), getattr(written, name))
    torch.testing.assert_close(read.quaternions, torch.nn.functional.normalize(written.quaternions, dim=-1))
    assert read_splats(tmp_path / "a.ply", 0).sh.shape == (5, 1, 3)


def test_ply_has_the_layout_of_other_readers(tmp_path):
    """trimesh's reader, written by others, sees the vertices and the columns."""
    import trimesh

    path = write_splat_ply(tmp_path / "a.ply", parameters(degree=1))
    cloud = trimesh.load(path)
    torch.testing.assert_close(torch.tensor(cloud.vertices).float(), parameters(degree=1).means)
    columns = cloud.metadata["_ply_raw"]["vertex"]["data"]
    torch.testing.assert_close(
        torch.tensor(columns["f_rest_3"].copy()).reshape(-1), parameters(degree=1).sh[:, 1, 1], msg="channel by channel"
    )


def test_plyfile_reads_the_ply(tmp_path):
    """plyfile is in the test extra: its absence is an error, not a reason to skip."""
    import numpy as np
    import plyfile

    rows = plyfile.PlyData.read(write_splat_ply(tmp_path / "a.ply", parameters(degree=1)))["vertex"]
    np.testing.assert_allclose(rows["opacity"], parameters(degree=1).opacity_logits)
    np.testing.assert_allclose(rows["scale_2"], parameters(degree=1).log_scales[:, 2])


def test_splat_files_list_the_most_visible_first(tmp_path):
    import numpy as np

    p = parameters(3, 0)
    p.log_scales[:] = torch.tensor([[-3.0] * 3, [-1.0] * 3, [-2.0] * 3])
    p.opacity_logits[:] = 0
    data = write_splat(tmp_path / "a.splat", p).read_bytes()
    assert len(data) == 3 * 32
    first = np.frombuffer(data[:24], "<f4")
    assert first[:3].tolist() == pytest.approx(p.means[1].tolist())
    assert first[3:].tolist() == pytest.approx([math.exp(-1)] * 3)
    assert data[27] == 128, "opacity one half"


def test_points_become_balls(tmp_path):
    import trimesh

    trimesh.PointCloud([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]], colors=[[255, 0, 0]] * 4).export(
        tmp_path / "points.ply"
    )
    read = read_splats(tmp_path / "points.ply", 0)
    assert read.log_scales[0].exp().tolist() == pytest.approx([0.1] * 3, rel=1e-3)
    assert (0.5 + SH_0 * read.sh[0, 0]).tolist() == pytest.approx([1, 0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n", "binary little-endian"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n", "cannot be read"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nend_header\n", "0 vertices"),
        (b"no ply at all", "cannot be read"),
    ],
)
def test_broken_files_get_a_sentence(tmp_path, content, said):
    if content is not None:
        (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(MeshError, match=said):
        read_splats(tmp_path / "a.ply", 0)
