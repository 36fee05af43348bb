"""The ray march: closed forms, and the kernel against the reference."""

import pytest
import torch

from zero123s.errors import ConfigError, MissingDependencyError
from zero123s.ops import backends
from zero123s.ops.ray_marching import march, march_visible, pack_info

BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])
BACKENDS = ["reference", "numba"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_box_is_sampled_between_faces(backend):
    o, d = torch.tensor([[3.0, 0, 0], [3.0, 0, 0]]), torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]])
    samples = march(o, d, BOX, torch.ones(1, 4, 4, 4, dtype=torch.bool), 0.125, backend=backend)
    assert samples.packed_info.tolist() == [[0, 16], [16, 0]]
    torch.testing.assert_close(samples.t_starts, 2 + 0.125 * torch.arange(16.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_occupied_cell_is_sampled(backend):
    grid = torch.zeros(4, 4, 4, dtype=torch.bool)
    grid[3, 2, 2] = True  # x from 0.5 to 1
    o, d = torch.tensor([[3.0, 0.25, 0.25]]), torch.tensor([[-1.0, 0, 0]])
    samples = march(o, d, BOX, grid, 0.125, backend=backend)
    torch.testing.assert_close(samples.t_starts, torch.tensor([2.0, 2.125, 2.25, 2.375]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rays_and_no_hits_give_no_samples(backend):
    grid = torch.ones(4, 4, 4, dtype=torch.bool)
    assert march(torch.zeros(0, 3), torch.zeros(0, 3), BOX, grid, 0.1, backend=backend).t_starts.shape == (0,)
    away = march(torch.tensor([[3.0, 3, 3]]), torch.tensor([[1.0, 0, 0]]), BOX, grid, 0.1, backend=backend)
    assert away.packed_info.tolist() == [[0, 0]]


@pytest.mark.parametrize("kind", ["sparse", "blocks", "odd"])
def test_the_kernel_equals_the_reference(kind):
    g = torch.Generator().manual_seed(0)
    o = torch.nn.functional.normalize(torch.randn(500, 3, generator=g), dim=-1) * 3
    d = torch.nn.functional.normalize(torch.randn(500, 3, generator=g) * 0.3 - o, dim=-1)
    o[:3], d[:3] = torch.tensor([3.0, 0.1, 0.2]), torch.tensor([-1.0, 0.0, 0.0])  # parallel to faces
    sparse, jitter = torch.rand(16, 16, 16, generator=g) < 0.1, torch.rand(500, generator=g)
    blocks = torch.rand(4, 4, 4, generator=g).lt(0.3).repeat_interleave(4, 0)
    blocks = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    grid = {"sparse": sparse, "blocks": blocks, "odd": sparse[:15, :14, :13].contiguous()}[kind]
    a, b = (march(o, d, BOX, grid, 0.013, jitter=jitter, backend=name) for name in BACKENDS)
    # a midpoint within rounding of a cell's face may fall on either side
    differ = a.packed_info[:, 1] != b.packed_info[:, 1]
    assert differ.sum() <= 3
    same = [~differ[s.ray_indices] for s in (a, b)]
    torch.testing.assert_close(a.t_starts[same[0]], b.t_starts[same[1]], rtol=0, atol=1e-5)
    middle = 0.5 * (a.t_starts + a.t_ends)
    expected = o[a.ray_indices] + middle[:, None] * d[a.ray_indices]
    torch.testing.assert_close(a.positions(o, d), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(a.positions(o, d, torch.tensor([5, 2])), expected[[5, 2]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["borders", "one cell", "corner", "empty", "full"])
def test_samples_are_the_references_whatever_is_empty(kind):
    # Powers of two, and positions between the cells' faces, so that rounding moves no sample to another cell.
    grid = torch.full((16, 16, 16), kind == "full")
    if kind == "borders":
        grid[5:9, 2:12, 7:8] = True
    elif kind == "one cell":
        grid[3, 9, 12] = True
    elif kind == "corner":
        grid[0, 15, 0] = True
    lines = (torch.arange(16) + 0.5) / 8 - 1  # through the cells' middles
    u, v = torch.meshgrid(lines, lines, indexing="ij")
    planes = [torch.stack(p, dim=-1).reshape(-1, 3) for p in ((0 * u + 3, u, v), (u, 0 * u + 3, v), (u, v, 0 * u + 3))]
    o = torch.cat([*planes, planes[0], planes[0] + 4.0])  # the last two start behind or pass beside the box
    d = -torch.eye(3).repeat_interleave(256, 0)
    d = torch.cat([d, -d[:256], d[:256]])
    jitter = torch.arange(len(o)).remainder(4) / 4
    a, b = (march(o, d, BOX, grid, 1 / 256, jitter=jitter, backend=name) for name in BACKENDS)
    for expected, found in zip(a, b, strict=True):
        assert torch.equal(expected, found)
    assert (len(a.t_starts) == 0) == (kind == "empty")
    assert a.packed_info[:768, 1].max() == {"full": 512, "borders": 320, "empty": 0}.get(kind, 32)
    assert a.packed_info[768:, 1].sum() == 0


def test_rays_from_inside_end_at_near_and_far():
    g = torch.Generator().manual_seed(0)
    grid = torch.zeros(16, 16, 16, dtype=torch.bool)
    grid[4:12, 4:12, 4:12] = True
    o = torch.rand(300, 3, generator=g) - 0.5
    d = torch.nn.functional.normalize(torch.randn(300, 3, generator=g), dim=-1)
    a, b = (march(o, d, BOX, grid, 0.01, near=0.1, far=0.3, backend=name) for name in BACKENDS)
    assert (a.packed_info[:, 1] - b.packed_info[:, 1]).abs().sum() <= 3  # midpoints within rounding of a face
    assert b.t_starts.min() == pytest.approx(0.1)
    assert (b.t_starts + 0.005).max() < 0.3


@pytest.mark.parametrize("jitter", [None, torch.arange(600).remainder(7) / 7])
def test_visible_samples_need_few_evaluations(jitter):
    g = torch.Generator().manual_seed(0)
    o = torch.nn.functional.normalize(torch.randn(600, 3, generator=g), dim=-1) * 3
    d = torch.nn.functional.normalize(torch.rand(600, 3, generator=g) * 1.5 - 0.75 - o, dim=-1)
    grid, evaluated = torch.rand(16, 16, 16, generator=g) < 0.7, dict.fromkeys(BACKENDS, 0)

    def found(name):
        def alphas_at(x):  # fog that becomes a wall
            evaluated[name] += len(x)
            return (0.7 - x.norm(dim=-1)).mul(8).sigmoid()

        return march_visible(o, d, BOX, grid, 0.02, alphas_at, 0.01, 0.01, jitter=jitter, backend=name)

    expected, visible = (found(name) for name in BACKENDS)
    counts = expected.packed_info[:, 1], visible.packed_info[:, 1]
    differ = counts[0] != counts[1]  # a middle within rounding of a face
    assert differ.sum() <= 3
    same = [~differ[s.ray_indices] for s in (expected, visible)]
    torch.testing.assert_close(expected.t_starts[same[0]], visible.t_starts[same[1]], rtol=0, atol=1e-5)
    assert torch.equal(pack_info(visible.ray_indices, 600), visible.packed_info)
    assert 0 < len(visible.t_starts) < evaluated["numba"] < 0.8 * evaluated["reference"]


def test_rays_without_visible_samples_are_empty():
    o, d = torch.tensor([[3.0, 0, 0], [3.0, 3, 0]]), torch.tensor([[-1.0, 0, 0]] * 2)
    full = torch.ones(4, 4, 4, dtype=torch.bool)
    for box, count in ((full, 2), (full & False, 2), (full, 0)):
        samples = march_visible(o[:count], d[:count], BOX, box, 0.1, lambda x: 0 * x[:, 0], 0.01, backend="numba")
        assert samples.packed_info.tolist() == [[0, 0]] * count
        assert samples.t_starts.shape == samples.ray_indices.shape == (0,)


def test_threads_find_the_same_visible_samples():
    o, d = torch.tensor([3.0, 0, 0]).expand(101, 3), torch.tensor([-1.0, 0, 0]).expand(101, 3)
    o, before, results = (
        o + torch.linspace(-0.9, 0.9, 101)[:, None] * torch.tensor([0.0, 1, 0.5]),
        torch.get_num_threads(),
        [],
    )
    full = torch.ones(4, 4, 4, dtype=torch.bool)
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            results.append(march_visible(o, d, BOX, full, 0.01, lambda x: x[:, 1].square(), 0.01, backend="numba"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_samples_are_packed_by_ray():
    rays = torch.tensor([1, 1, 1, 4])
    assert pack_info(rays, 6).tolist() == [[0, 0], [0, 3], [3, 0], [3, 0], [3, 1], [4, 0]]
    assert pack_info(rays[:0], 2).tolist() == [[0, 0], [0, 0]]
    assert pack_info(rays[:0], 0).shape == (0, 2)


def test_backends_that_cannot_run_are_errors():
    with pytest.raises(MissingDependencyError, match="cannot run on device 'meta'"):
        backends.resolve("hash_grid", "numba", "meta")
    with pytest.raises(ConfigError, match="Unknown backend 'fast'"):
        backends.resolve("hash_grid", "fast", "cpu")
