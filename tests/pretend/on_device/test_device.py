"""The pretended device itself: what it refuses, and what it counts."""

import pytest
import torch

from pretend.device import OtherDeviceError


def test_operands_on_two_devices_are_refused():
    with pytest.raises(OtherDeviceError, match="same device"):
        torch.ones(3, device="cuda") + torch.ones(3)


def test_cpu_scalars_and_cpu_indices_are_allowed():
    x = torch.arange(4.0, device="cuda")
    assert (x * torch.tensor(2.0))[torch.tensor([1, 3])].tolist() == [2, 6]


def test_a_cpu_generator_cannot_draw_on_the_device():
    with pytest.raises(OtherDeviceError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())


def test_a_device_generator_draws_anew():
    generator = torch.Generator("cuda")
    first, second = (torch.rand(3, device="cuda", generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    again = torch.rand(3, device="cuda", generator=generator.manual_seed(generator.initial_seed()))
    assert torch.equal(first, again)


def test_gradients_are_those_of_the_cpu():
    x = torch.linspace(-1, 1, 5)
    gradients = []
    for device in ("cpu", "cuda"):
        leaf = x.clone().to(device).requires_grad_()
        leaf.sigmoid().square().sum().backward()
        gradients.append(leaf.grad.cpu())
    assert torch.equal(*gradients)


def test_launches_waits_and_bytes_are_counted(counts):
    x = torch.ones(1000, device="cuda")
    y = x.view(10, 100) * 2
    assert (counts.n_launches, counts.n_waits, counts.n_bytes) == (2, 0, 4000 + 8000)
    assert float(y.sum()) == 2000
    assert counts.n_waits == 1


def test_a_copy_waits_unless_it_is_asynchronous(counts):
    numbers = torch.ones(1000)
    numbers.to("cuda", non_blocking=True)
    assert counts.n_waits == 0
    numbers.to("cuda").cpu()
    assert counts.n_waits == 2
    assert sum(counts.copies.values()) == 3 * 4000


def test_numpy_is_refused():
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(3, device="cuda").numpy()


def test_determinism_is_refused_where_cuda_has_none():
    torch.use_deterministic_algorithms(True)
    with pytest.raises(RuntimeError, match="deterministic"):
        torch.ones(3, device="cuda").cumsum(0)
