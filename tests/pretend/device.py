"""Tensors that report cuda:0, and the one function through which every operation on them goes.

It demands what CUDA demands: all operands on one device (but for CPU scalars, CPU indices and copies), a generator of
the device on which numbers are drawn, and, under torch.use_deterministic_algorithms, no operation without such a kernel.
"""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretend import rules
from pretend.counts import Counts, place

CUDA = torch.device("cuda:0")
counts = Counts()
"""What the process has done on its pretended device."""


class OtherDeviceError(RuntimeError):
    """Operands or a generator on different devices, in torch's words."""


class PretendTensor(torch.Tensor):
    """Reports cuda:0 and holds a CPU tensor."""

    _inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "PretendTensor":
        """Wrap a CPU tensor."""
        assert not isinstance(inner, PretendTensor)
        assert inner.device.type == "cpu", inner.device
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=CUDA,
        )
        made._inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation on pretended tensors."""
        return dispatch(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"cuda({self._inner!r})"

    def numpy(self, *, force: bool = False) -> Any:
        """Raise, as on CUDA, unless `force`."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> Any:
        """Copy to the host."""
        return self.detach().cpu().tolist()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle what a file read with map_location="cpu" gives back."""
        inner = self._inner.detach()
        if getattr(self, "_is_param", False):
            return torch._utils._rebuild_parameter, (inner, self.requires_grad, collections.OrderedDict())
        return inner.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        is_parameter = getattr(self, "_is_param", False)
        with torch.no_grad():
            copied = PretendTensor(self._inner.detach().clone())
            made: Any = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        if not is_parameter:
            made.requires_grad_(self.requires_grad)
        if self.grad is not None:
            made.grad = self.grad.__deepcopy__(memo)
        memo[id(self)] = made
        return made


class PretendMode(TorchDispatchMode):
    """Sends every operation, factories included, through `dispatch`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run any operation."""
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one ATen operation, on the pretended device or on the CPU."""
    name, expected = func.name(), kwargs.get("device")
    operands = _tensors((args, kwargs))
    if not any(isinstance(t, PretendTensor) for t in operands) and not _is_cuda(expected):
        result = func(*args, **kwargs)
        if name.startswith(rules.RANDOM) and isinstance(result, torch.Tensor):
            counts.cpu_random[place()] += result.numel()
        return result
    if name == "aten::_fused_sdp_choice":
        return 0  # plain mathematics: the CPU has none of CUDA's fused kernels
    if name in ("aten::pin_memory", "aten::_pin_memory"):
        return args[0]
    where = place()
    to_cuda = _check_copy(name, args, kwargs, where) if name in rules.COPIES else _check(func, operands, expected)
    _check_generator(name, kwargs.get("generator"), to_cuda)
    _check_deterministic(name, args)
    if _waits(name, args, kwargs):
        counts.waits[where, name] += 1
    if name in ("aten::_softmax", "aten::_log_softmax") and args[2]:  # half in, float out: CUDA alone can
        args = (torch.ops.aten._to_copy(args[0], dtype=torch.float32), args[1], False)
    return _compute(func, args, kwargs, where, to_cuda)


def _map(function: Callable[[Any], Any], arguments: Any) -> Any:
    """Apply a function to every leaf; an operation nests its arguments in tuples and lists, and dicts only by name."""
    if isinstance(arguments, tuple | list):
        return type(arguments)([_map(function, a) for a in arguments])
    if isinstance(arguments, dict):
        return {name: _map(function, a) for name, a in arguments.items()}
    return function(arguments)


def _tensors(arguments: Any) -> list[torch.Tensor]:
    """Return the tensors among the leaves."""
    found: list[torch.Tensor] = []
    _map(lambda a: found.append(a) if isinstance(a, torch.Tensor) else None, arguments)
    return found


def _compute(func: Any, args: Any, kwargs: Any, where: str, to_cuda: bool) -> Any:
    """Compute on the CPU, count, and wrap what comes out."""
    outer: dict[int, PretendTensor] = {}

    def unwrap(t: Any) -> Any:
        if not isinstance(t, PretendTensor):
            return t
        outer[id(t._inner)] = t
        return t._inner

    inner_args, inner_kwargs = _map(unwrap, args), _map(unwrap, kwargs)
    inner = _tensors((inner_args, inner_kwargs))
    if kwargs.get("device") is not None:
        inner_kwargs["device"] = torch.device("cpu")
    if inner_kwargs.get("non_blocking") and "copy_" not in func.name().split("::")[1].split("."):
        inner_kwargs["non_blocking"] = False
    in_half = any(t.dtype in rules.HALVES for t in inner)
    compute = _in_float32 if in_half and func.name() in rules.SUMS_IN_FLOAT32 else _as_it_is
    with _cpu_generator(inner_kwargs):
        result = compute(func, inner_args, inner_kwargs)
    if not _is_view(func):
        counts.launches[where] += 1
        counts.ops[func.name()] += 1
        counts.bytes_moved[where] += sum(t.numel() * t.element_size() for t in [*inner, *_tensors(result)])
    return _wrapped(func, result, outer, to_cuda)


@contextlib.contextmanager
def _cpu_generator(kwargs: dict[str, Any]) -> Iterator[None]:
    """Let a CPU generator stand in for one of the device, which no CPU kernel takes."""
    generator = kwargs.get("generator")
    if generator is None or generator.device.type == "cpu":
        yield
        return
    kwargs["generator"] = torch.Generator()
    kwargs["generator"].set_state(generator.get_state())
    yield
    generator.set_state(kwargs["generator"].get_state())


def _wrapped(func: Any, result: Any, operands: dict[int, PretendTensor], to_cuda: bool) -> Any:
    """Give an operation's results back: the very operands it wrote to (by what they wrap), wrappers for all else."""

    def wrap(t: Any) -> Any:
        if not isinstance(t, torch.Tensor):
            return t
        if id(t) in operands:
            outer = operands[id(t)]
            if outer.shape != t.shape or outer.stride() != t.stride():
                raise NotImplementedError(f"{func.name()} changed the shape of a pretended tensor in place")
            return outer
        return PretendTensor(t) if to_cuda and t.device.type == "cpu" else t

    return _map(wrap, result)


def _as_it_is(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _in_float32(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute in float32 and round to the operands' half precision."""
    halves = [t.dtype for t in _tensors((args, kwargs)) if t.dtype in rules.HALVES]

    def widen(t: Any) -> Any:
        return t.float() if isinstance(t, torch.Tensor) and t.dtype in rules.HALVES else t

    def narrow(t: Any) -> Any:
        return t.to(halves[0]) if isinstance(t, torch.Tensor) and t.dtype == torch.float32 else t

    args, kwargs = _map(widen, (args, kwargs))
    if func.name() == "aten::_softmax_backward_data":
        args = (*args[:3], torch.float32)
    return _map(narrow, func(*args, **kwargs))


# ---------------------------------------------------------------- rules


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


@functools.cache
def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    aliases = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
    return aliases or func.name() in rules.NO_LAUNCH


def _check_copy(name: str, args: Any, kwargs: Any, where: str) -> bool:
    """Count a copy's bytes and waits; return whether it ends on the device."""
    if name == "aten::_foreach_copy_":
        return isinstance(args[0][0], PretendTensor)
    if name == "aten::copy_":
        source, to_cuda = args[1], isinstance(args[0], PretendTensor)
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    else:
        source, expected = args[0], kwargs.get("device")
        to_cuda = isinstance(source, PretendTensor) if expected is None else _is_cuda(expected)
        non_blocking = kwargs.get("non_blocking", False)
    if to_cuda != isinstance(source, PretendTensor) and source.dim() + source.numel() > 0:
        counts.copies[where, "to the device" if to_cuda else "to the host"] += source.numel() * source.element_size()
        # Without non_blocking, torch synchronises the stream after a copy in either direction (ATen/native/cuda/Copy.cu).
        if not non_blocking:
            counts.waits[where, name] += 1
    return to_cuda


def _check(func: Any, operands: list[torch.Tensor], expected: Any) -> bool:
    """Raise OtherDeviceError where an operand is on the CPU that may not be; return whether results are on the device."""
    on_cpu = [t for t in operands if not isinstance(t, PretendTensor)]
    on_cuda = len(on_cpu) < len(operands)
    if on_cuda and (torch.Tag.pointwise in func.tags or func.name() in rules.CPU_SCALAR_ALLOWED):
        on_cpu = [t for t in on_cpu if t.dim() > 0]
    if func.name() in rules.CPU_INDEX_ALLOWED and isinstance(operands[0], PretendTensor):
        on_cpu = [t for t in on_cpu if t.is_floating_point() and t.dim() > 0]
    if on_cuda and on_cpu:
        raise OtherDeviceError(
            "Expected all tensors to be on the same device, but found at least two devices, cpu and cuda:0! "
            f"({func.name()}; on the CPU: {[tuple(t.shape) for t in on_cpu]})"
        )
    return True if expected is None else _is_cuda(expected)


def _check_generator(name: str, generator: Any, to_cuda: bool) -> None:
    if generator is not None and to_cuda and torch.device(generator.device).type != "cuda":
        raise OtherDeviceError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")


def _check_deterministic(name: str, args: Any) -> None:
    if not torch.are_deterministic_algorithms_enabled() or torch.is_deterministic_algorithms_warn_only_enabled():
        return
    float_sum = name in ("aten::cumsum", "aten::cumsum.out") and args[0].is_floating_point()
    if float_sum or name in rules.NOT_DETERMINISTIC:
        raise RuntimeError(f"{name} does not have a deterministic implementation on CUDA")


def _waits(name: str, args: Any, kwargs: Any) -> bool:
    """Return whether the host waits for the device during an operation that is not a copy."""
    if name in rules.CPU_INDEX_ALLOWED:
        indices = [t for t in args[1] if isinstance(t, torch.Tensor)]
        masks = any(t.dtype in (torch.bool, torch.uint8) for t in indices)
        return masks or any(not isinstance(t, PretendTensor) for t in indices)
    if name == "aten::repeat_interleave.Tensor":
        return kwargs.get("output_size") is None
    return name in rules.READS_NUMBERS
