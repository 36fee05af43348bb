"""Rasterised meshes: closed forms of depth and barycentrics, backends against each other, gradients of silhouettes."""

import importlib
import math
import sys
import types

import pytest
import torch

from zero123s.errors import ConfigError, MissingDependencyError
from zero123s.ops import rasterization
from zero123s.ops.cameras import generate_rays, orbit_cameras, project
from zero123s.ops.marching_tetrahedra import cell_tetrahedra, marching_tetrahedra
from zero123s.ops.rasterization import (
    find_silhouettes,
    fragments_of,
    mesh_edges,
    pinhole,
    to_screen,
    visible_faces,
)

CPU_BACKENDS = ("reference", "numba")
SQUARE = torch.tensor([[0, 1, 2], [0, 2, 3]])


def on_screen(xy, depth: float = 2.0) -> torch.Tensor:
    """Screen vertices of one view at one depth."""
    points = torch.as_tensor(xy, dtype=torch.float64)
    return torch.cat([points, torch.full((len(points), 1), depth, dtype=torch.float64)], dim=-1)[None]


def square(center=(10.0, 10.0), half: float = 5.0, angle_deg: float = 0.0) -> torch.Tensor:
    """Corners of a turned square in pixels, 4 2."""
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return corners @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64) * half + torch.tensor(center)


def disc(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """A unit disc in the plane: vertices, n + 1 2, and faces, most of them smaller than a pixel at the rim."""
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    rim = torch.stack([angle.cos(), angle.sin()], dim=-1)
    i = torch.arange(n)
    return torch.cat([torch.zeros(1, 2, dtype=torch.float64), rim]), torch.stack(
        [torch.zeros_like(i), 1 + i, 1 + (i + 1) % n], dim=-1
    )


def ball(resolution: int = 24, radius: float = 0.5, bound: float = 0.7):
    cells = torch.cartesian_prod(*[torch.arange(resolution)] * 3)
    nodes = torch.cartesian_prod(*[torch.linspace(-bound, bound, resolution + 1)] * 3)
    return marching_tetrahedra(nodes, nodes.norm(dim=-1) - radius, cell_tetrahedra(cells, resolution))


def coverage(screen, faces, size: int = 20) -> torch.Tensor:
    """Number of pixels covered in each view, antialiased."""
    face_id = visible_faces(screen, faces, size, size)
    depth = torch.full(face_id.shape, torch.inf, dtype=screen.dtype)
    found = fragments_of(face_id, screen, faces)
    depth.view(-1)[found.pixel] = found.depth.detach()
    silhouettes = find_silhouettes(screen, mesh_edges(faces, screen.shape[1]), faces, depth)
    return silhouettes.antialias((face_id >= 0).to(screen)[..., None]).sum((1, 2, 3))


# ---------------------------------------------------------------- cameras


def test_a_pinhole_camera_is_recovered_from_rays():
    cameras = orbit_cameras(torch.tensor([10.0, -30, 80]), torch.tensor([0.0, 120, 250]), 3.1, 33.0, 9, 14)
    centers, matrices = pinhole(generate_rays(cameras))
    torch.testing.assert_close(centers, cameras.positions)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    expected = project(points, cameras)
    torch.testing.assert_close(to_screen(points, centers, matrices), expected, atol=1e-4, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(to_screen(points, centers, matrices), expected, atol=1e-4, rtol=1e-5)


def test_rays_of_no_pinhole_are_refused():
    rays = generate_rays(orbit_cameras(0.0, 0.0, height=4, width=4))
    bent = rays.rays_d.clone()
    bent[0, 1, 1] = -bent[0, 1, 1]
    with pytest.raises(ConfigError, match="whole pinhole images"):
        pinhole(type(rays)(rays.rays_o, bent, rays.light_positions))
    moved = rays.rays_o.clone()
    moved[0, 2, 2] += 0.1
    with pytest.raises(ConfigError, match="whole pinhole images"):
        pinhole(type(rays)(moved, rays.rays_d, rays.light_positions))
    with pytest.raises(ConfigError, match="2x2 or more"):
        pinhole(generate_rays(orbit_cameras(0.0, 0.0, height=1, width=4)))


# ---------------------------------------------------------------- who is seen where


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_nearest_face_before_the_camera_wins(backend):
    near, far = on_screen(square(half=2), 1.0), on_screen(square(half=6), 3.0)
    behind = on_screen(square(half=9), -1.0)
    faces = torch.cat([SQUARE + 4 * i for i in range(3)])
    face_id = visible_faces(torch.cat([far, near, behind], dim=1), faces, 20, 20, backend)[0]
    assert (face_id >= 2).sum() == 16
    assert (face_id >= 0).sum() == 144
    assert face_id.max() <= 3
    assert face_id[0, 0] == -1


def test_backends_see_the_same_faces(monkeypatch):
    from zero123s.ops.rasterization import reference

    cameras = orbit_cameras(torch.tensor([10.0, 60.0]), torch.tensor([0.0, 100.0]), height=33, width=40)
    vertices, faces = ball()
    screen = project(vertices, cameras)
    views = [visible_faces(screen, faces, 33, 40, backend) for backend in CPU_BACKENDS]
    assert torch.equal(*views)
    assert 300 < (views[0] >= 0).sum() < 2640
    monkeypatch.setattr(reference, "MAX_TESTS", 500)
    assert torch.equal(visible_faces(screen, faces, 33, 40, "reference"), views[1]), "in parts"
    empty = visible_faces(screen, faces[:0], 33, 40, "reference")
    assert (empty == -1).all()


def test_nvdiffrast_needs_a_cuda_device():
    with pytest.raises(MissingDependencyError, match=r"'nvdiffrast' of rasterization .* needs a CUDA device"):
        visible_faces(on_screen(square()), SQUARE, 20, 20, "nvdiffrast")


def test_barycentrics_and_depth_of_a_tilted_face():
    """A plane in the world: depth and position are known in closed form at every pixel."""
    cameras = orbit_cameras(0.0, 0.0, 3.0, 40.0, 24, 24)
    vertices = torch.tensor([[0.6, -0.9, -0.8], [-0.5, 0.9, -0.7], [0.1, 0.0, 0.9]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    rays = generate_rays(cameras)
    screen = to_screen(vertices, *(t.double() for t in pinhole(rays)))
    found = fragments_of(visible_faces(screen, faces, 24, 24), screen, faces)
    assert len(found.pixel) > 50
    torch.testing.assert_close(found.bary.sum(-1), torch.ones(len(found.pixel), dtype=torch.float64))
    normal = torch.linalg.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    d, o = (t.reshape(-1, 3).double()[found.pixel] for t in (rays.rays_d, rays.rays_o))
    along = ((vertices[0] - o) @ normal) / (d @ normal)
    torch.testing.assert_close(found.interpolate(vertices, faces), o + along[:, None] * d, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.depth, along * -d[:, 0], atol=1e-5, rtol=0)  # it looks along -x
    corner = fragments_of(torch.zeros(1, 1, 1, dtype=torch.long), on_screen([[0.5, 0.5], [4, 0], [0, 4]]), faces)
    torch.testing.assert_close(corner.bary[0], torch.tensor([1.0, 0, 0], dtype=torch.float64))


def test_fragments_are_differentiable_in_the_vertices():
    screen = on_screen([[1.0, 1.2], [8.3, 2.0], [3.0, 9.1]])
    screen[..., 2] += torch.tensor([0.0, 0.5, 1.0])
    faces = torch.tensor([[0, 1, 2]])
    face_id = visible_faces(screen, faces, 10, 10)
    screen.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: fragments_of(face_id, s, faces).bary, screen)
    assert torch.autograd.gradcheck(lambda s: fragments_of(face_id, s, faces).depth, screen)


# ---------------------------------------------------------------- edges


def test_edges_of_closed_and_open_meshes():
    vertices, faces = ball(8)
    edges = mesh_edges(faces, len(vertices))
    assert edges.closed
    assert len(edges.ends) == 3 * len(faces) // 2
    for side in range(2):
        corners = torch.cat([edges.ends, edges.third[:, side : side + 1]], dim=-1).sort(-1).values
        assert torch.equal(corners, faces[edges.faces[:, side]].sort(-1).values)
    assert not torch.equal(edges.faces[:, 0], edges.faces[:, 1])
    open_edges = mesh_edges(SQUARE, 4)
    assert not open_edges.closed
    assert (open_edges.faces[:, 1] < 0).sum() == 4
    assert len(open_edges.ends) == 5
    assert mesh_edges(faces[:0], 0).closed


# ---------------------------------------------------------------- antialiasing


@pytest.mark.parametrize("half", [4.8, 5.0, 5.3])
def test_a_square_covers_its_area_except_corners(half):
    covered = coverage(on_screen(square((10.2, 9.9), half)), SQUARE)
    assert covered.item() == pytest.approx(4 * half**2, abs=4 * 0.25)


@pytest.mark.parametrize("angle_deg", [10.0, 30.0, 45.0, 77.0])
def test_a_turned_square_covers_its_area(angle_deg):
    size = square((20.1, 19.8), 12.0, angle_deg)
    assert coverage(on_screen(size), SQUARE, 40).item() == pytest.approx(576, rel=0.01)


def test_half_plane_border_pixels_have_exact_coverage():
    face_id = visible_faces(on_screen([[-5.0, -5], [3.2, -5], [3.2, 25], [-5, 25]]), SQUARE, 20, 20)
    screen = on_screen([[-5.0, -5], [3.2, -5], [3.2, 25], [-5, 25]])
    depth = torch.where(face_id >= 0, 2.0, torch.inf).double()
    found = find_silhouettes(screen, mesh_edges(SQUARE, 4), SQUARE, depth)
    image = found.antialias((face_id >= 0).double()[..., None])[0, :, :, 0]
    expected = torch.tensor([1.0, 1, 1, 0.2, 0], dtype=torch.float64).expand(20, 5)
    torch.testing.assert_close(image[:, :5], expected)
    assert ((found.shares >= 0) & (found.shares <= 1)).all()


@pytest.mark.parametrize("radius", [4.3, 7.7])
def test_disc_coverage_changes_with_its_area(radius):
    shape, faces = disc()
    scale = torch.tensor(radius, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    centers = 9.5 + torch.rand(25, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = shape * scale + centers + shift
    covered = coverage(torch.cat([points, torch.full_like(points[..., :1], 2.0)], dim=-1), faces)
    torch.testing.assert_close(covered, torch.full_like(covered, math.pi * radius**2), rtol=0.02, atol=0)
    by_scale, by_shift = torch.autograd.grad(covered.mean(), (scale, shift))
    assert by_scale.item() == pytest.approx(2 * math.pi * radius, rel=0.03)
    assert by_shift.abs().max() < 0.1 * radius, "all of it is in the image: a shift covers nothing more"


@pytest.mark.parametrize(("axis", "center"), [(0, (0.3, 10.1)), (1, (10.1, 0.3))])
@pytest.mark.parametrize("angle_deg", [0.0, 20.0])
def test_what_moves_into_the_image_covers_more(axis, center, angle_deg):
    """A square half outside: a shift inwards by one pixel uncovers nothing and covers its width at the border."""
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    points = square(center, 5.0, angle_deg) + shift
    covered = coverage(torch.cat([points, torch.full_like(points[:, :1], 2.0)], dim=-1)[None], SQUARE)[0]
    gradient = torch.autograd.grad(covered, shift)[0]
    assert gradient[axis].item() == pytest.approx(10.0 / math.cos(math.radians(angle_deg)), rel=0.06)


def test_a_marched_silhouette_grows_with_its_ball():
    """Faces smaller than pixels, seen in perspective: the disc's radius is f r / sqrt(d^2 - r^2) pixels."""
    cells = torch.cartesian_prod(*[torch.arange(48)] * 3)
    nodes = torch.cartesian_prod(*[torch.linspace(-0.7, 0.7, 49)] * 3)
    radius = torch.tensor(0.45, requires_grad=True)
    vertices, faces = marching_tetrahedra(nodes, nodes.norm(dim=-1) - radius, cell_tetrahedra(cells, 48))
    cameras = orbit_cameras(torch.tensor([7.0, 40.0]), torch.tensor([20.0, 100.0]), height=40, width=40)
    covered = coverage(project(vertices, cameras), faces, 40)
    focal, d2 = 20 / math.tan(math.radians(10)), 3.8**2 - 0.45**2
    area = math.pi * focal**2 * 0.45**2 / d2
    torch.testing.assert_close(covered.detach(), torch.full((2,), area), rtol=0.01, atol=0)
    gradient = torch.autograd.grad(covered.mean(), radius)[0]
    assert gradient.item() == pytest.approx(2 * math.pi * focal**2 * 0.45 * 3.8**2 / d2**2, rel=0.05)


def test_only_the_front_edge_is_blended():
    """A small square before a large one: only the small one's outline blends within, in its own depth order."""
    near, far = on_screen(square((10.2, 10.2), 3.0), 1.0), on_screen(square((10.0, 10.0), 8.0), 3.0)
    hidden = on_screen(square((10.2, 10.2), 1.5), 2.0)
    faces = torch.cat([SQUARE + 4 * i for i in range(3)])
    screen = torch.cat([far, near, hidden], dim=1)
    face_id = visible_faces(screen, faces, 20, 20)
    depth = torch.where(face_id < 0, torch.inf, torch.tensor([3.0, 3, 1, 1, 2, 2, 0])[face_id]).double()
    found = find_silhouettes(screen, mesh_edges(faces, 12), faces, depth)
    image = found.antialias(((face_id == 2) | (face_id == 3)).double()[..., None])
    assert image.sum().item() == pytest.approx(36.0, abs=4 * 0.25)
    assert (found.shares[:, 0, 9:12, 9:12] == 0).all(), "a hidden outline blends nothing"


# ---------------------------------------------------------------- nvdiffrast


@pytest.fixture
def stand_in(monkeypatch):
    """nvdiffrast's interface: clip coordinates in, row 0 at y = -1, the number of the face plus one in the last channel."""

    def rasterize(context, clip, faces, resolution):
        height, width = resolution
        assert (clip.dtype, faces.dtype, clip.dim()) == (torch.float32, torch.int32, 3)
        depth = clip[0, :, 3]
        assert ((clip[0, :, 2] / depth).abs() < 1)[faces.long()].all(), "within the near and the far plane"
        u, v = ((clip[0, :, i] / depth + 1) / 2 * n for i, n in ((0, width), (1, height)))
        face_id = visible_faces(torch.stack([u, v, depth], -1)[None], faces.long(), height, width, "reference")
        return torch.stack([torch.zeros_like(face_id)] * 3 + [face_id + 1], dim=-1).float(), None

    module = types.ModuleType("nvdiffrast.torch")
    module.rasterize, module.RasterizeCudaContext = rasterize, lambda device: None
    monkeypatch.setitem(sys.modules, "nvdiffrast", types.SimpleNamespace(torch=module))
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    name = "zero123s.ops.rasterization.nvdiffrast"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


def test_nvdiffrast_is_called_as_the_reference_is(stand_in):
    vertices, faces = ball()
    screen = project(vertices, orbit_cameras(20.0, 30.0, height=24, width=30))
    expected = visible_faces(screen, faces, 24, 30, "reference")[0]
    found = stand_in.visible_faces(screen[0], faces, 24, 30)
    assert (found == expected).float().mean() > 0.99, "all but what rounding decides at edges"
    assert torch.equal(found < 0, expected < 0)
    screen[0, faces[expected.max()], 2] = -1.0  # one face less, the numbers of the others stay
    found = stand_in.visible_faces(screen[0], faces, 24, 30)
    assert (found == visible_faces(screen, faces, 24, 30, "reference")[0]).float().mean() > 0.99
    assert (stand_in.visible_faces(-screen[0].abs(), faces, 24, 30) == -1).all()


@pytest.mark.gpu
def test_nvdiffrast_sees_what_the_reference_sees():
    pytest.importorskip("nvdiffrast", reason="nvdiffrast is not installed")
    vertices, faces = (t.cuda() for t in ball())
    cameras = orbit_cameras(torch.tensor([20.0, 60.0]), torch.tensor([30.0, 200.0]), height=64, width=64).to("cuda")
    screen = project(vertices, cameras)
    found, expected = (visible_faces(screen, faces, 64, 64, backend) for backend in ("nvdiffrast", "reference"))
    assert (found == expected).float().mean() > 0.98
    assert ((found < 0) == (expected < 0)).float().mean() > 0.998


@pytest.mark.gpu
def test_silhouettes_have_the_same_gradient_on_the_gpu():
    gradients = []
    for device in ("cpu", "cuda"):
        vertices = ball()[0].to(device).requires_grad_()
        faces = ball()[1].to(device)
        screen = project(vertices, orbit_cameras(20.0, 30.0, height=40, width=40).to(device))
        face_id = visible_faces(screen, faces, 40, 40, "reference")
        found = fragments_of(face_id, screen, faces)
        depth = torch.full((face_id.numel(),), torch.inf, device=device).index_put((found.pixel,), found.depth.detach())
        silhouettes = rasterization.find_silhouettes(
            screen, mesh_edges(faces, len(vertices)), faces, depth.view(face_id.shape)
        )
        covered = silhouettes.antialias((face_id >= 0).float()[..., None]).sum()
        gradients.append(torch.autograd.grad(covered, vertices)[0].cpu())
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-2)
