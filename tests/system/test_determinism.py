"""Same seed, same result: again, and with another number of threads as far as the kernels allow it."""

import pytest
import torch
from test_zero123_system import build, train

from zero123s.ops.hash_grid import HashGrid, encode
from zero123s.ops.mlp import mlp_forward


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def with_threads(n, function):
    torch.set_num_threads(n)
    torch.manual_seed(0)
    return function()


def hash_grid():
    grid = HashGrid(n_levels=8, log2_hashmap_size=14)
    x = torch.rand(20_000, 3)
    table = torch.rand(grid.n_params // 2, 2).requires_grad_()
    features = encode(x, table, grid)
    features.square().sum().backward()
    return features, table.grad


def network():
    x = torch.rand(50_000, 16)
    weights = [torch.rand(32, 16, requires_grad=True), torch.rand(4, 32, requires_grad=True)]
    y = mlp_forward(x, weights)
    y.square().mean().backward()
    return y, weights[0].grad, weights[1].grad


def test_hash_grid_sums_are_independent_of_threads():
    one, two = with_threads(1, hash_grid), with_threads(2, hash_grid)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_network_outputs_do_not_depend_on_threads():
    """The gradients of weights are sums over all points, which some processors' matrix products split by threads."""
    (one, *grads_one), (two, *grads_two) = with_threads(1, network), with_threads(2, network)
    assert torch.equal(one, two)
    for a, b in zip(grads_one, grads_two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0)


def weights_after_training(data, n_threads):
    system = with_threads(n_threads, lambda: build(data, {"sds": 1.0, "rgb": 1.0, "mask": 1.0, "opaque": 0.1}))
    torch.manual_seed(n_threads)  # what else was drawn must not matter
    train(system, 6)
    return torch.cat([p.detach().flatten() for p in system.parameters()])


def test_training_repeats_exactly_on_equal_threads(disc_data):
    assert torch.equal(weights_after_training(disc_data, 2), weights_after_training(disc_data, 2))


def test_another_number_of_threads_changes_at_most_rounding(disc_data):
    """Long sums, of losses and of gradients over a batch, are torch's own, which splits them by threads."""
    one, two = weights_after_training(disc_data, 1), weights_after_training(disc_data, 2)
    print("largest difference", float((one - two).abs().max()), "largest weight", float(one.abs().max()))
    assert (one - two).norm() < 1e-3 * one.norm()


def test_a_step_leaves_global_generators_alone(disc_data):
    system = build(disc_data, {"sds": 1.0, "rgb": 1.0, "3d_normal_smooth": 1.0})
    before = torch.get_rng_state()
    system.training_step(disc_data.batch_at(0), 0).backward()
    assert torch.equal(before, torch.get_rng_state())
