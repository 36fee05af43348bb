"""Muon: its update against the singular value decomposition, its AdamW half against torch's."""

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.system.muon import MuonAdamW, orthogonalized
from zero123s.system.optimizers import OptimizerConfig, build_optimizer_over, check_optimizer


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
@pytest.mark.parametrize(("dtype", "mixed"), [(torch.float32, 1e-3), (torch.bfloat16, 0.06)])
def test_every_direction_gets_about_the_same_step(shape, dtype, mixed):
    # In bfloat16, 0.025 to 0.033 of the update lay off the directions.
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    update = orthogonalized(matrix, 6, dtype)
    along = u.T @ update @ v.T
    assert torch.linalg.norm(along - torch.diag(along.diagonal())) < mixed * torch.linalg.norm(along)
    assert 0.65 < along.diagonal().min() < along.diagonal().max() < 1.25


def test_an_update_has_the_size_of_adamw():
    kernel = torch.nn.Parameter(torch.zeros(64, 32, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    MuonAdamW([kernel], lr=1.0, weight_decay=0.0).step()
    # The largest update of AdamW has 1 in every entry; in training they are about 0.2.
    assert 0.1 < float(kernel.square().mean().sqrt()) < 0.3


def test_vectors_follow_adamw():
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 20)) for _ in range(2))
    args = {"lr": 0.05, "betas": (0.9, 0.99), "weight_decay": 0.1}
    optimizers = MuonAdamW([ours], **args), torch.optim.AdamW([theirs], **args)
    for step in range(5):
        ours.grad = theirs.grad = torch.sin(ours.detach() * (step + 1))
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_joint_updates_are_those_one_by_one():
    shapes = [(16, 8, 3, 3), (16, 8, 3, 3), (64, 16), (4, 16), (5,), (5,)]
    alone, together = ([torch.nn.Parameter(torch.ones(s)) for s in shapes] for _ in range(2))
    optimizers = [MuonAdamW(parameters, lr=0.1) for parameters in (alone, together)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for a, b in zip(alone, together, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        optimizers[0].step()
        with torch.no_grad():
            optimizers[1]._joint_updates(together, optimizers[1].param_groups[0])
    for a, b in zip(alone, together, strict=True):
        # Products in bfloat16, where the processor has it, are summed in another order.
        assert (a - b).norm() < 0.02 * (a - 1).norm()


def test_it_finds_a_matrix_by_its_products():
    generator = torch.Generator().manual_seed(0)
    inputs, truth = torch.randn(256, 32, generator=generator), torch.randn(32, 16, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(16, 32))
    optimizer = build_optimizer_over(OptimizerConfig("MuonAdamW", {"lr": 0.3, "weight_decay": 0.0}), [weight])
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=200)
    for _ in range(200):
        optimizer.zero_grad()
        (inputs @ (weight.T - truth)).square().mean().backward()
        optimizer.step()
        falling.step()
    assert (weight.T - truth).square().mean() < 1e-3 * truth.square().mean()


def test_it_goes_on_exactly_where_it_was():
    def train(parameter, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            parameter.sin().square().sum().backward()
            optimizer.step()

    start = torch.randn(12, 12, generator=torch.Generator().manual_seed(1))
    whole, halves = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    train(whole, MuonAdamW([whole]), 6)
    first = MuonAdamW([halves])
    train(halves, first, 3)
    second = MuonAdamW([halves])
    second.load_state_dict(first.state_dict())
    train(halves, second, 3)
    assert torch.equal(whole, halves)


def test_it_is_known_by_name_and_checked():
    check_optimizer(OptimizerConfig("MuonAdamW", {"lr": 1e-3, "rounds": 5}))
    with pytest.raises(ConfigError, match=r"Unknown key 'system\.optimizer\.args\.round'.*rounds"):
        check_optimizer(OptimizerConfig("MuonAdamW", {"round": 5}))
    with pytest.raises(ConfigError, match="MuonAdamW"):
        check_optimizer(OptimizerConfig("MuonAdam", {}))
