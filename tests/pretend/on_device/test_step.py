"""GPU work of one training step, counted by benchmarks/gpu/step_counts.py: bounds that only an improvement may change."""

import copy

import pytest
import torch

from zero123s.geometry.implicit_volume import ImplicitVolume
from zero123s.ops import compositing
from zero123s.ops.compositing import composite_alpha, visible_samples
from zero123s.ops.hash_grid import HashGrid, encode, position_gradient
from zero123s.ops.mlp import mlp_input_gradient
from zero123s.ops.ray_marching import march
from zero123s.randomness import generator_for, generator_on


def both(function, *tensors):
    """Return what a function gives on the CPU, and on the device."""
    outs = [function(*(t.to(device) for t in tensors)) for device in ("cpu", "cuda")]
    return outs[0], outs[1]


@pytest.fixture
def rays():
    """Rays at a ball in a box of eight cells per edge; some miss it."""
    generator = torch.Generator().manual_seed(0)
    to = torch.rand(50, 3, generator=generator) * 1.2 - 0.6
    start = torch.tensor([0.0, 0.0, 3.0]).expand(50, 3)
    binaries = (torch.linspace(-1, 1, 8).square()[:, None, None] < 0.5).expand(8, 8, 8).contiguous()
    return start.contiguous(), torch.nn.functional.normalize(to - start, dim=-1), binaries


def test_marching_waits_twice(rays, counts):
    starts, directions, binaries = rays
    box = torch.tensor([-1.0, -1, -1, 1, 1, 1])
    here, there = both(lambda o, d, b, a: march(o, d, a, b, 0.05), starts, directions, binaries, box)
    counts.clear()
    march(*(t.to("cuda", non_blocking=True) for t in (starts, directions, box, binaries)), 0.05)
    assert counts.n_waits <= 2
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))


def test_compositing_and_pruning_wait_for_nothing(counts):
    generator = torch.Generator().manual_seed(0)
    alphas, values = torch.rand(60, generator=generator), torch.rand(60, 3, generator=generator)
    alphas[::7] = 1
    packed = torch.tensor([[0, 20], [20, 0], [20, 40]])
    t = torch.arange(60.0)
    here, there = both(lambda *x: composite_alpha(x[0], x[1], x[1] + 1, x[2], x[3]), alphas, t, packed, values)
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b.cpu())
    on_device = [x.to("cuda") for x in (alphas, torch.zeros(60, dtype=torch.int64), packed)]
    counts.clear()
    visible_samples(lambda index: on_device[0][index], on_device[1], on_device[2])
    assert counts.n_waits == 0


def test_opacities_are_evaluated_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(compositing, "AT_ONCE", 16)
    monkeypatch.setattr(compositing, "FRONT_TO_BACK", 16)
    monkeypatch.setattr(compositing, "FIRST", 4)
    alphas, packed = 0.2 * torch.rand(40, device="cuda"), torch.tensor([[0, 25], [25, 15]], device="cuda")
    rays, sizes = (packed[:, 0] * 0 + torch.arange(2, device="cuda")).repeat_interleave(packed[:, 1]), []

    def alphas_at(index):
        sizes.append(len(index))
        return alphas[index]

    visible = visible_samples(alphas_at, rays, packed, 0.1)
    assert sizes[0] == 8, "the first of both rays"
    assert sizes[1:] == [16, 16], "where light reaches all others"
    assert torch.equal(visible, compositing.visibility_alpha(alphas, packed, 0.1))


def test_all_levels_are_encoded_together(counts):
    grid = HashGrid(8, 2, 10, 8, 1.4)
    table, x = torch.randn(grid.n_rows, 2), torch.rand(20, 3)
    here, there = both(lambda t, p: encode(p, t, grid, "reference"), table, x)
    torch.testing.assert_close(here, there.cpu())
    on_device = [t.to("cuda") for t in (x, table)]
    counts.clear()
    encode(*on_device, grid, "reference")
    assert counts.n_launches < 30, "dense and hashed levels in one gather"
    grad = torch.randn(20, 16)
    here, there = both(lambda t, p, g: position_gradient(p, t, g, grid, "reference"), table, x, grad)
    torch.testing.assert_close(here, there.cpu())


def test_the_networks_gradient_is_one_product_a_layer(counts):
    x, weights = (
        torch.randn(20000, 4, device="cuda"),
        [torch.randn(8, 4, device="cuda"), torch.randn(1, 8, device="cuda")],
    )
    counts.clear()
    mlp_input_gradient(x, weights)
    assert counts.n_launches < 10


def test_normals_and_those_near_by_share_one_pass(counts):
    cfg = ImplicitVolume.Config(radius=0.7, normal_type="analytic")
    cfg.pos_encoding_config.log2_hashmap_size = 10
    geometry, x = ImplicitVolume(cfg), torch.rand(30, 3) - 0.5
    geometry.encoding.table.data.normal_()
    here, (near, _) = geometry(x, frozenset({"normal"})), geometry.points_near(x, torch.Generator().manual_seed(1))
    reference = here.sigma, here.normal, geometry.normal_at(near)
    geometry = copy.deepcopy(geometry).to("cuda")
    geometry.points_near = lambda x, generator: (near.to(x), None)  # the device draws numbers of its own
    x = x.to("cuda")
    counts.clear()
    out = geometry(x, frozenset({"normal", "normal_perturbed"}))
    for expected, found in zip(reference, (out.sigma, out.normal, out.normal_perturbed), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
    assert counts.n_launches < 180, "one encoding and one gradient of it"


def test_device_numbers_are_drawn_there_and_repeat(counts):
    draws = []
    for _ in range(2):
        generator = generator_on(torch.device("cuda"), generator_for(0, 7, "render"))
        draws.append(torch.rand(1000, generator=generator, device="cuda"))
    assert torch.equal(*draws)
    assert sum(counts.cpu_random.values()) == 2, "two seeds"
    cpu = generator_for(0, 7, "render")
    assert generator_on(torch.device("cpu"), cpu) is cpu


def test_deterministic_training_has_kernels_for_its_sums():
    torch.use_deterministic_algorithms(True)
    alphas, t = torch.rand(6, device="cuda", requires_grad=True), torch.arange(6.0, device="cuda")
    packed = torch.tensor([[0, 2], [2, 4]], device="cuda")
    from zero123s.ops.compositing import composite

    _, opacity, _, _ = composite(alphas, t, t + 1, packed, torch.ones(6, 3, device="cuda"))
    opacity.sum().backward()
    expected = 1 - torch.exp(-torch.stack([alphas[:2].sum(), alphas[2:].sum()]))
    torch.testing.assert_close(opacity.detach(), expected.detach())
