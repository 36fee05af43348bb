"""Work repeated with less memory, and work in parts, against the same work done at once."""

import pytest
import torch

from zero123s.ops.memory import is_out_of_memory, mean_over_parts, recomputed, retry_on_oom

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
SHORTAGES = [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to"), MemoryError(), RuntimeError(ALLOCATOR)]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda e: type(e).__name__)
def test_out_of_memory_differs_from_other_errors(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda e: type(e).__name__)
def test_retries_until_it_fits(error, caplog):
    size = [8]

    def compute():
        if size[0] > 2:
            raise error
        return size[0]

    def halve():
        size[0] //= 2
        return f"{size[0]} at once"

    assert retry_on_oom(compute, halve) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "warning: memory ran out; 4 at once from now on.",
        "warning: memory ran out; 2 at once from now on.",
    ]


@pytest.mark.parametrize(("error", "use_less"), [(MemoryError(), lambda: None), (ValueError("shapes"), lambda: "less")])
def test_other_errors_and_the_last_one_propagate(error, use_less):
    with pytest.raises(type(error)):
        retry_on_oom(lambda: (_ for _ in ()).throw(error), use_less)


def test_recomputing_gives_the_same_gradients():
    w = torch.rand(3, 3, requires_grad=True)
    unused = torch.rand(2, requires_grad=True)
    calls = []

    def function():
        calls.append(1)
        return (w @ w).sum(0), w.exp(), torch.ones(2)

    a, b, c = recomputed(function, [w, unused])
    assert len(calls) == 1
    got = torch.autograd.grad(a.square().sum() + b.sum() + 0 * c.sum(), [w, unused], allow_unused=True)
    assert len(calls) == 2
    (expected,) = torch.autograd.grad((w @ w).sum(0).square().sum() + w.exp().sum(), w)
    torch.testing.assert_close(got[0], expected)
    assert got[1] is None


@pytest.mark.parametrize("n_parts", [1, 2, 3, 64])
def test_a_mean_over_parts_equals_the_whole(n_parts):
    w, x = torch.rand(4, requires_grad=True), torch.rand(5, 4)
    sizes = []

    def terms(part):
        sizes.append(part.stop - part.start)
        return {"square": (x[part] @ w).square().mean(), "sum": (x[part] * w).sum(1).mean()}

    found = mean_over_parts(terms, 5, n_parts, [w])
    assert max(sizes) == -(-5 // n_parts)
    expected = terms(slice(0, 5))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
        a, b = (torch.autograd.grad(t, w, retain_graph=True)[0] for t in (found[name], value))
        torch.testing.assert_close(a, b)
