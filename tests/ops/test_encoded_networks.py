"""Encoding and networks evaluated together, against plain torch one after the other."""

import pytest
import torch

from zero123s.ops.encoded_networks import Cone, can_evaluate_together, evaluate_together
from zero123s.ops.encoded_networks.chunked import CHUNK
from zero123s.ops.hash_grid import HashGrid, encode
from zero123s.ops.mlp import plain_mlp

GRID = HashGrid(n_levels=4, n_features_per_level=2, log2_hashmap_size=9, base_resolution=4)


def inputs(n: int, n_hidden: int) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Return points, the table, and the weights of the value and the feature network."""
    g = torch.Generator().manual_seed(0)

    def network(n_out: int) -> list[torch.Tensor]:
        widths = [GRID.n_output_dims, *[16] * n_hidden, n_out]
        sizes = zip(widths[1:], widths[:-1], strict=True)
        return [(0.5 * torch.randn(s, generator=g)).requires_grad_() for s in sizes]

    table = (0.5 * torch.randn(GRID.n_rows, 2, generator=g)).requires_grad_()
    return torch.rand(3, n, generator=g).t(), table, network(1), network(3)


def plain(x, table, value_net, feature_net, gradient, grid=GRID):
    """Return the same from the reference encoding, plain layers and autograd."""
    leaf = x.detach().requires_grad_()
    encoded = encode(leaf, table, grid, backend="reference")
    value = plain_mlp(encoded, value_net, "relu")[:, 0]
    features = plain_mlp(encoded, feature_net, "relu") if feature_net else None
    slope = torch.autograd.grad(value.sum(), leaf, create_graph=True)[0] if gradient else None
    return value, features, slope


def loss_of(found) -> torch.Tensor:
    """Return a scalar with another derivative by every entry."""
    parts = [out for out in found if out is not None]
    return sum((torch.sin(torch.arange(p.numel()).view_as(p)) * p).sum() for p in parts)


@pytest.mark.parametrize("n_hidden", [1, 2, 3])
@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_outputs_and_gradients_equal_the_plain_composition(n_hidden, features, gradient):
    x, table, value_net, feature_net = inputs(300, n_hidden)
    feature_net = feature_net if features else []
    parameters = [table, *value_net, *feature_net]
    expected = plain(x, table, value_net, feature_net, gradient)
    found = evaluate_together(x, table, GRID, value_net, feature_net, gradient)
    torch.testing.assert_close(tuple(found), expected, rtol=1e-4, atol=1e-4)
    grads = [torch.autograd.grad(loss_of(out), parameters) for out in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("n_levels", "n_features", "n_hidden", "n_out"), [(3, 2, 5, 1), (5, 4, 41, 6), (1, 2, 70, 2)])
def test_any_widths_equal_the_plain_composition(n_levels, n_features, n_hidden, n_out):
    grid = HashGrid(n_levels, n_features, log2_hashmap_size=9, base_resolution=4)
    g = torch.Generator().manual_seed(3)
    table, *networks = (
        (0.5 * torch.randn(shape, generator=g)).requires_grad_()
        for shape in ((grid.n_rows, n_features), *2 * [(n_hidden, grid.n_output_dims), (n_out, n_hidden)])
    )
    value_net = [networks[0], networks[1][:1].detach().requires_grad_()]
    x, parameters = torch.rand(600, 3, generator=g), [table, *value_net, *networks[2:]]
    found = evaluate_together(x, table, grid, value_net, networks[2:], True)
    expected = plain(x, table, value_net, networks[2:], True, grid)
    torch.testing.assert_close(tuple(found), expected, rtol=1e-4, atol=1e-4)
    grads = [torch.autograd.grad(loss_of(out), parameters) for out in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("n_hidden", [1, 2])
def test_a_cone_is_added_in_its_box(n_hidden):
    x, table, value_net, feature_net = inputs(300, n_hidden)
    cone, x = Cone(0.7, 25.0, -70.0), 1.4 * x - 0.7
    parameters = [table, *value_net, *feature_net]
    found = evaluate_together(x, table, GRID, value_net, feature_net, True, cone=cone)
    inside = evaluate_together(x / 1.4 + 0.5, table, GRID, value_net, feature_net, True)
    leaf = x.clone().requires_grad_()
    added = 25.0 - 70.0 * leaf.norm(dim=-1)
    slope = inside.gradient / 1.4 + torch.autograd.grad(added.sum(), leaf)[0]
    expected = (inside.value + added.detach(), inside.features, slope)
    torch.testing.assert_close(tuple(found), expected, rtol=1e-5, atol=1e-4)
    grads = [torch.autograd.grad(loss_of(out), parameters) for out in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)


def test_a_cone_has_a_gradient_at_its_tip():
    _, table, value_net, _ = inputs(1, 1)
    found = evaluate_together(torch.zeros(3, 3), table, GRID, value_net, gradient=True, cone=Cone(1.0, 2.0, -3.0))
    flat = evaluate_together(torch.full((3, 3), 0.5), table, GRID, value_net, gradient=True)
    torch.testing.assert_close(found.value, flat.value + 2.0, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.gradient, flat.gradient / 2)


def test_the_gradient_alone_trains_table_and_weights():
    x, table, value_net, _ = inputs(300, 2)
    slopes = (
        evaluate_together(x, table, GRID, value_net, gradient=True).gradient,
        plain(x, table, value_net, [], True)[2],
    )
    grads = [torch.autograd.grad(s.norm(dim=-1).sum(), [table, *value_net]) for s in slopes]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("n", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_points_do_not_depend_on_chunk_borders(n):
    x, table, value_net, feature_net = inputs(n, 1)
    whole = evaluate_together(x, table, GRID, value_net, feature_net, True)
    last = evaluate_together(x[-5:], table, GRID, value_net, feature_net, True)
    torch.testing.assert_close([out[-5:] for out in whole], list(last))
    halves = [evaluate_together(half, table, GRID, value_net, feature_net, True) for half in x.split(n // 2)]
    parameters = [table, *value_net, *feature_net]
    weights = [torch.rand(out.shape, generator=torch.Generator().manual_seed(1)) for out in whole]
    joined = [torch.cat(column) for column in zip(*halves, strict=True)]
    a, b = (
        torch.autograd.grad(sum((w * o).sum() for w, o in zip(weights, outs, strict=True)), parameters)
        for outs in (whole, joined)
    )
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_no_points_give_empty_results_and_zero_gradients():
    _, table, value_net, feature_net = inputs(1, 1)
    found = evaluate_together(torch.zeros(0, 3), table, GRID, value_net, feature_net, True)
    assert [out.shape for out in found] == [(0,), (0, 3), (0, 3)]
    grads = torch.autograd.grad(loss_of(found), [table, *value_net, *feature_net])
    assert all((g == 0).all() for g in grads)


def test_the_table_gradient_is_added_to_the_buffer():
    x, table, value_net, feature_net = inputs(300, 1)
    (expected,) = torch.autograd.grad(loss_of(evaluate_together(x, table, GRID, value_net, feature_net, True)), table)
    table.grad = torch.ones_like(table)
    found = evaluate_together(x, table, GRID, value_net, feature_net, True, grad_buffer=lambda: table.grad)
    loss_of(found).backward()
    torch.testing.assert_close(table.grad, 1 + expected)


def test_frozen_tables_are_left_alone():
    x, table, value_net, _ = inputs(300, 1)
    buffer = torch.zeros_like(table)
    frozen = table.detach()
    value = evaluate_together(x, frozen, GRID, value_net, grad_buffer=lambda: buffer).value
    value.sum().backward()
    assert value_net[0].grad is not None
    assert (buffer == 0).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_without_gradients(mode):
    x, table, value_net, feature_net = inputs(300, 2)
    with mode():
        found = evaluate_together(x, table, GRID, value_net, feature_net, True)
    assert not found.value.requires_grad
    torch.testing.assert_close(tuple(found), plain(x, table, value_net, feature_net, True), rtol=1e-4, atol=1e-4)


def test_outputs_are_equal_for_any_number_of_threads():
    x, table, value_net, feature_net = inputs(10_000, 2)
    before, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            found = evaluate_together(x, table, GRID, value_net, feature_net, True)
            results.append([*found, *torch.autograd.grad(loss_of(found), [table, *value_net, *feature_net])])
    finally:
        torch.set_num_threads(before)
    bits = [(a, b) for a, b in zip(*(r[:4] for r in results), strict=True)]  # outputs and the table's gradient
    assert all(torch.equal(a, b) for a, b in bits)
    torch.testing.assert_close(*(r[4:] for r in results), rtol=1e-5, atol=1e-2)  # sums in another order


def test_other_types_devices_and_autocast_are_refused():
    x, table, value_net, _ = inputs(3, 1)
    assert can_evaluate_together(x, table, value_net)
    assert not can_evaluate_together(x.double(), table, value_net)
    assert not can_evaluate_together(x, table.half(), value_net)
    assert not can_evaluate_together(x, table, [value_net[0], value_net[1].double()])
    assert not can_evaluate_together(x, table[:, :1], value_net)
    assert not can_evaluate_together(x.to("meta"), table, value_net)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_evaluate_together(x, table, value_net)
