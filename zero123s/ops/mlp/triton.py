"""The small networks fused, on CUDA in Triton: no hidden layer goes through memory, in either direction.

A program holds the layers of a block of points in registers, and recomputes them for the gradients. For the gradients
of weights a fixed number of programs takes the blocks in turn, each sums its own, and the sums of the programs are
added in order: no atomic additions, the same result every time.
"""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zero123s.ops.gpu_kernels import blocks, launch
from zero123s.ops.mlp import reference

_BLOCK, _EXACT_BLOCK = 64, 32
"""Points of a program at a time, with tensor cores and with float32 products of full precision."""
_SUMMING = {"num_warps": 8, "num_stages": 1}
"""How kernels that sum gradients are compiled: with 4 warps, or the loads of the next block started early, they would
spill more than a few registers.
"""
_PROGRAMS_PER_PROCESSOR = 2
"""Programs that sum gradients of weights: more would not run at once."""


@triton.jit
def _points(x, n, inside, stride, WIDTH: tl.constexpr, PADDED: tl.constexpr, BY_FEATURE: tl.constexpr):
    """Return rows of a matrix N C, stored column by column (BY_FEATURE) or row by row, zeros outside."""
    c = tl.arange(0, PADDED)
    at = n[:, None] + c[None, :] * stride if BY_FEATURE else n[:, None] * stride + c[None, :]
    return tl.load(x + at, mask=inside[:, None] & (c < WIDTH)[None, :], other=0.0)


@triton.jit
def _store(out, value, n, inside, stride, WIDTH: tl.constexpr, PADDED: tl.constexpr, BY_FEATURE: tl.constexpr):
    """Store what `_points` reads."""
    c = tl.arange(0, PADDED)
    at = n[:, None] + c[None, :] * stride if BY_FEATURE else n[:, None] * stride + c[None, :]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside[:, None] & (c < WIDTH)[None, :])


@triton.jit
def _matrix(w, ROWS: tl.constexpr, COLUMNS: tl.constexpr, R: tl.constexpr, C: tl.constexpr, TYPE: tl.constexpr):
    """Return a layer's matrix, with zeros up to R C."""
    r, c = tl.arange(0, R)[:, None], tl.arange(0, C)[None, :]
    return tl.load(w + r * COLUMNS + c, mask=(r < ROWS) & (c < COLUMNS), other=0.0).to(TYPE)


@triton.jit
def _add_up(to, value, ROWS: tl.constexpr, COLUMNS: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """Store the sum of a program."""
    r, c = tl.arange(0, R)[:, None], tl.arange(0, C)[None, :]
    tl.store(to + r * COLUMNS + c, value, mask=(r < ROWS) & (c < COLUMNS))


@triton.jit
def _activate(a, SOFTPLUS: tl.constexpr):
    """Return the activation; a number that is none stays none."""
    return tl.maximum(a, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(a))) if SOFTPLUS else tl.where(a <= 0.0, 0.0, a)


@triton.jit
def _before(g, h, SOFTPLUS: tl.constexpr):
    """Return the gradient before an activation, from the one behind it and the activation's output."""
    return g * (1.0 - tl.exp(-h)) if SOFTPLUS else tl.where(h <= 0.0, 0.0, g)


@triton.jit(do_not_specialize=["n_points", "stride"])
def _forward(
    x,
    w1,
    w2,
    w3,
    y,
    n_points,
    stride,
    I: tl.constexpr,
    H: tl.constexpr,
    O: tl.constexpr,
    IP: tl.constexpr,
    HP: tl.constexpr,
    OP: tl.constexpr,
    LAYERS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    BY_FEATURE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Apply all layers to a block of points; of two layers, `w2` is not read."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_points
    h = _points(x, n, inside, stride, I, IP, BY_FEATURE).to(TYPE)
    h = _activate(tl.dot(h, _matrix(w1, H, I, HP, IP, TYPE).trans(), input_precision=PRECISION), SOFTPLUS).to(TYPE)
    if LAYERS == 3:
        h = _activate(tl.dot(h, _matrix(w2, H, H, HP, HP, TYPE).trans(), input_precision=PRECISION), SOFTPLUS).to(TYPE)
    out = tl.dot(h, _matrix(w3, O, H, OP, HP, TYPE).trans(), input_precision=PRECISION)
    _store(y, out, n, inside, O, O, OP, False)


@triton.jit(do_not_specialize=["n_points", "stride", "stride_grad"])
def _backward(
    x,
    w1,
    w2,
    w3,
    grad_y,
    grad_x,
    sums,
    n_points,
    stride,
    stride_grad,
    I: tl.constexpr,
    H: tl.constexpr,
    O: tl.constexpr,
    IP: tl.constexpr,
    HP: tl.constexpr,
    OP: tl.constexpr,
    LAYERS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    BY_FEATURE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
    GRAD_X: tl.constexpr,
):
    """Write the gradient by the input, and each program's sums of the gradients by the matrices."""
    d1, d2, d3 = tl.zeros((HP, IP), tl.float32), tl.zeros((HP, HP), tl.float32), tl.zeros((OP, HP), tl.float32)
    m1, m3 = _matrix(w1, H, I, HP, IP, TYPE), _matrix(w3, O, H, OP, HP, TYPE)
    m2 = _matrix(w2, H, H, HP, HP, TYPE) if LAYERS == 3 else m1
    for start in range(tl.program_id(0) * BLOCK, n_points, tl.num_programs(0) * BLOCK):
        n = start + tl.arange(0, BLOCK)
        inside = n < n_points
        x0 = _points(x, n, inside, stride, I, IP, BY_FEATURE).to(TYPE)
        h1 = _activate(tl.dot(x0, m1.trans(), input_precision=PRECISION), SOFTPLUS)
        g3 = _points(grad_y, n, inside, O, O, OP, False).to(TYPE)
        if LAYERS == 3:
            h2 = _activate(tl.dot(h1.to(TYPE), m2.trans(), input_precision=PRECISION), SOFTPLUS)
            d3 = tl.dot(g3.trans(), h2.to(TYPE), d3, input_precision=PRECISION)
            g2 = _before(tl.dot(g3, m3, input_precision=PRECISION), h2, SOFTPLUS).to(TYPE)
            d2 = tl.dot(g2.trans(), h1.to(TYPE), d2, input_precision=PRECISION)
            g1 = _before(tl.dot(g2, m2, input_precision=PRECISION), h1, SOFTPLUS).to(TYPE)
        else:
            d3 = tl.dot(g3.trans(), h1.to(TYPE), d3, input_precision=PRECISION)
            g1 = _before(tl.dot(g3, m3, input_precision=PRECISION), h1, SOFTPLUS).to(TYPE)
        d1 = tl.dot(g1.trans(), x0, d1, input_precision=PRECISION)
        if GRAD_X:
            _store(grad_x, tl.dot(g1, m1, input_precision=PRECISION), n, inside, stride_grad, I, IP, BY_FEATURE)
    _write_sums(sums, d1, d2, d3, I, H, O, IP, HP, OP, LAYERS)


@triton.jit
def _write_sums(
    sums,
    d1,
    d2,
    d3,
    I: tl.constexpr,
    H: tl.constexpr,
    O: tl.constexpr,
    IP: tl.constexpr,
    HP: tl.constexpr,
    OP: tl.constexpr,
    LAYERS: tl.constexpr,
):
    """Store the program's sums, matrix after matrix."""
    to = sums + tl.program_id(0) * (H * I + (LAYERS - 2) * H * H + O * H)
    _add_up(to, d1, H, I, HP, IP)
    if LAYERS == 3:
        _add_up(to + H * I, d2, H, H, HP, HP)
    _add_up(to + H * I + (LAYERS - 2) * H * H, d3, O, H, OP, HP)


@triton.jit(do_not_specialize=["n_points", "stride", "stride_out"])
def _input_gradient(
    x,
    w1,
    w2,
    w3,
    out,
    n_points,
    stride,
    stride_out,
    I: tl.constexpr,
    H: tl.constexpr,
    IP: tl.constexpr,
    HP: tl.constexpr,
    LAYERS: tl.constexpr,
    BY_FEATURE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient of the only output by the input, with ReLU."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_points
    m1 = _matrix(w1, H, I, HP, IP, TYPE)
    a1 = tl.dot(_points(x, n, inside, stride, I, IP, BY_FEATURE).to(TYPE), m1.trans(), input_precision=PRECISION)
    row = _matrix(w3, 1, H, 1, HP, TYPE).to(tl.float32)
    if LAYERS == 3:
        m2 = _matrix(w2, H, H, HP, HP, TYPE)
        a2 = tl.dot(_activate(a1, False).to(TYPE), m2.trans(), input_precision=PRECISION)
        g = tl.dot(_before(row, a2, False).to(TYPE), m2, input_precision=PRECISION)
    else:
        g = row
    g1 = _before(g, a1, False).to(TYPE)
    _store(out, tl.dot(g1, m1, input_precision=PRECISION), n, inside, stride_out, I, IP, BY_FEATURE)


@triton.jit(do_not_specialize=["n_points", "stride", "stride_v"])
def _input_gradient_backward(
    x,
    v,
    w1,
    w2,
    w3,
    sums,
    n_points,
    stride,
    stride_v,
    I: tl.constexpr,
    H: tl.constexpr,
    IP: tl.constexpr,
    HP: tl.constexpr,
    LAYERS: tl.constexpr,
    BY_FEATURE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write each program's sums of the gradients of `v . _input_gradient` by the matrices."""
    d1, d2, d3 = tl.zeros((HP, IP), tl.float32), tl.zeros((HP, HP), tl.float32), tl.zeros((1, HP), tl.float32)
    m1, row = _matrix(w1, H, I, HP, IP, TYPE), _matrix(w3, 1, H, 1, HP, TYPE).to(tl.float32)
    m2 = _matrix(w2, H, H, HP, HP, TYPE) if LAYERS == 3 else m1
    for start in range(tl.program_id(0) * BLOCK, n_points, tl.num_programs(0) * BLOCK):
        n = start + tl.arange(0, BLOCK)
        inside = n < n_points
        a1 = tl.dot(_points(x, n, inside, stride, I, IP, BY_FEATURE).to(TYPE), m1.trans(), input_precision=PRECISION)
        along = _points(v, n, inside, stride_v, I, IP, BY_FEATURE).to(TYPE)
        behind1 = _before(tl.dot(along, m1.trans(), input_precision=PRECISION), a1, False)
        if LAYERS == 3:
            a2 = tl.dot(_activate(a1, False).to(TYPE), m2.trans(), input_precision=PRECISION)
            g2 = _before(row, a2, False).to(TYPE)
            d2 = tl.dot(g2.trans(), behind1.to(TYPE), d2, input_precision=PRECISION)
            behind2 = _before(tl.dot(behind1.to(TYPE), m2.trans(), input_precision=PRECISION), a2, False)
            d3 += tl.sum(behind2, 0)[None, :]
            g = tl.dot(g2, m2, input_precision=PRECISION)
        else:
            d3 += tl.sum(behind1, 0)[None, :]
            g = row
        g1 = _before(g, a1, False).to(TYPE)
        d1 = tl.dot(g1.trans(), along, d1, input_precision=PRECISION)
    _write_sums(sums, d1, d2, d3, I, H, 1, IP, HP, 1, LAYERS)


def mlp_forward(x: Tensor, weights: list[Tensor], activation: str, compute: torch.dtype) -> Tensor:
    """Apply the layers as `reference.plain_mlp` does, with products of numbers of the type `compute`, which the result
    has as well.
    """
    return _FusedMLP.apply(activation, compute, x, *weights)  # type: ignore[return-value]


def relu_input_gradient(x: Tensor, weights: list[Tensor], compute: torch.dtype) -> Tensor:
    """Return the gradient of the only output by the input, of the type of `x`; differentiable once in the weights."""
    return _ReluInputGradient.apply(compute, x, *weights)  # type: ignore[return-value]


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, activation: str, compute: torch.dtype, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.options = activation, compute
        x, by_feature = _readable(x)
        y = torch.empty(len(x), len(weights[-1]), dtype=compute, device=x.device)
        meta = _constants(x, weights, compute, by_feature) | {"SOFTPLUS": activation == "softplus"}
        arguments = (x, *_matrices(weights), y, len(x), _stride(x, by_feature))
        launch(_forward, (blocks(len(x), meta["BLOCK"]),), *arguments, **meta)
        return y

    @staticmethod
    def backward(ctx, grad_y: Tensor) -> tuple:  # type: ignore[override]
        x, *weights = ctx.saved_tensors
        activation, compute = ctx.options
        if torch.is_grad_enabled():
            grads = reference.plain_gradients(x, weights, activation, grad_y, compute)
            return (None, None, *grads)
        return (None, None, *gradients(x, weights, activation, compute, grad_y, x.requires_grad))


class _ReluInputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, compute: torch.dtype, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.compute = compute
        x, by_feature = _readable(x)
        out = _empty_like(x, by_feature)
        meta = _constants(x, weights, compute, by_feature)
        del meta["O"], meta["OP"]
        arguments = (x, *_matrices(weights), out, len(x), _stride(x, by_feature), _stride(out, by_feature))
        launch(_input_gradient, (blocks(len(x), meta["BLOCK"]),), *arguments, **meta)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v: Tensor) -> tuple:  # type: ignore[override]
        x, *weights = ctx.saved_tensors
        return (None, None, *relu_input_gradient_by_weights(x, weights, v, ctx.compute))


def gradients(
    x: Tensor, weights: list[Tensor], activation: str, compute: torch.dtype, grad_y: Tensor, wants_x: bool
) -> list[Tensor | None]:
    """Return the gradients of the input (None unless `wants_x`) and of the matrices, from that of `mlp_forward`."""
    x, by_feature = _readable(x)
    grad_x, sums = _empty_like(x, by_feature) if wants_x else x, _new_sums(x, weights)
    meta = _constants(x, weights, compute, by_feature) | {"SOFTPLUS": activation == "softplus", "GRAD_X": wants_x}
    arguments = (x, *_matrices(weights), grad_y.contiguous(), grad_x, sums, len(x))
    strides = _stride(x, by_feature), _stride(grad_x, by_feature)
    launch(_backward, (len(sums),), *arguments, *strides, **(meta | _SUMMING))
    return [grad_x if wants_x else None, *_added(sums, weights)]


def relu_input_gradient_by_weights(x: Tensor, weights: list[Tensor], v: Tensor, compute: torch.dtype) -> list[Tensor]:
    """Return the gradients of `(v * relu_input_gradient(x)).sum()` with respect to the matrices."""
    x, by_feature = _readable(x)
    v, sums = _readable(v, by_feature)[0], _new_sums(x, weights)
    meta = _constants(x, weights, compute, by_feature)
    del meta["O"], meta["OP"]
    arguments = (x, v, *_matrices(weights), sums, len(x), _stride(x, by_feature), _stride(v, by_feature))
    launch(_input_gradient_backward, (len(sums),), *arguments, **(meta | _SUMMING))
    return _added(sums, weights)


def _readable(x: Tensor, by_feature: bool | None = None) -> tuple[Tensor, bool]:
    """Return N C as the kernels read it, without a copy where rows or columns are contiguous, and whether columns are.

    The hash grid's kernels write and read column by column.
    """
    columns = x.stride(0) == 1 and x.stride(1) >= len(x)
    rows = x.stride(1) == 1 and x.stride(0) >= x.shape[1]
    if by_feature is None:
        by_feature = columns and not rows
    if columns if by_feature else rows:
        return x, by_feature
    return (x.t().contiguous().t() if by_feature else x.contiguous()), by_feature


def _stride(x: Tensor, by_feature: bool) -> int:
    return x.stride(1 if by_feature else 0)


def _empty_like(x: Tensor, by_feature: bool) -> Tensor:
    return x.new_empty(x.shape[1], len(x)).t() if by_feature else x.new_empty(x.shape)


def _matrices(weights: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    """Return the three arguments of a kernel; of two layers, the second is not read."""
    first, *middle, last = (w.contiguous() for w in weights)
    return [first, *(middle or [first]), last]


def _constants(x: Tensor, weights: tuple[Tensor, ...] | list[Tensor], compute: torch.dtype, by_feature: bool):
    """Return the compile-time constants and number of warps that all kernels have."""
    n_in, n_hidden, n_out = x.shape[1], len(weights[0]), len(weights[-1])
    padded = [max(16, triton.next_power_of_2(n)) for n in (n_in, n_hidden, n_out)]
    sizes = dict(zip(("I", "H", "O", "IP", "HP", "OP"), (n_in, n_hidden, n_out, *padded), strict=True))
    exact = compute == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    numbers: dict[str, Any] = {
        "TYPE": getattr(tl, str(compute).split(".")[1]),
        "PRECISION": "ieee" if exact else "tf32",
        "BLOCK": _EXACT_BLOCK if exact else _BLOCK,
        "num_warps": 8 if exact else 4,
    }
    return {**sizes, "LAYERS": len(weights), "BY_FEATURE": by_feature, **numbers}


def _new_sums(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Return room for the sums of each program, as many as run at once."""
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    n = max(1, min(_PROGRAMS_PER_PROCESSOR * processors, blocks(len(x), _BLOCK)))
    return x.new_empty(n, sum(w.numel() for w in weights), dtype=torch.float32)


def _added(sums: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Return the gradients of the matrices, from the sums of all programs."""
    parts = sums.sum(0).split([w.numel() for w in weights])
    return [part.view_as(w).to(w.dtype) for part, w in zip(parts, weights, strict=True)]
