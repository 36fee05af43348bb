"""Compile every Triton kernel for a GPU that need not be there, and state its registers, spills and shared memory.

Run: python benchmarks/triton_kernels.py [--arch 80 86 89 90 100] [--output triton_kernels.json]
Needs triton (its wheel brings ptxas and cuobjdump) and no GPU; TRITON_INTERPRET must not be set.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
GRID = {"F": 2, "BLOCK": 128}
FIELD = {"I": 32, "H": 64, "IP": 32, "HP": 64, "LAYERS": 3, "BY_FEATURE": True}
"""The density network of the main recipe."""
OUT = {"O": 1, "OP": 16, "SOFTPLUS": False}
MLP_KERNELS: list[tuple[str, str, dict[str, Any], int]] = [
    ("_forward", "fp32 fp32 fp32 fp32 fp32 N N", OUT, 4),
    ("_backward", "fp32 fp32 fp32 fp32 fp32 fp32 fp32 N N N", {**OUT, "GRAD_X": True}, 8),
    ("_input_gradient", "fp32 fp32 fp32 fp32 fp32 N N N", {}, 4),
    ("_input_gradient_backward", "fp32 fp32 fp32 fp32 fp32 fp32 N N N", {}, 8),
]
MLP_NUMBERS: list[dict[str, Any]] = [
    {"TYPE": tl.float32, "PRECISION": "tf32", "BLOCK": 64},
    {"TYPE": tl.float32, "PRECISION": "ieee", "BLOCK": 32},
    {"TYPE": tl.float16, "PRECISION": "tf32", "BLOCK": 64},
]
SCATTERED: list[dict[str, Any]] = [
    {"VALUE": False, "GRAD": True, "DIRECTIONAL": False},
    {"VALUE": False, "GRAD": False, "DIRECTIONAL": True},
    {"VALUE": True, "GRAD": True, "DIRECTIONAL": True},
]
"""The table gradients of encoding and position gradient, one by one and together."""
QUICK = (89, 90, 100)
"""Capabilities of `--quick`: one of each kind of matrix product; kernels without products are compiled for the first."""
KERNELS: list[tuple[str, str, str, dict[str, Any], int]] = [
    ("hash_grid", "_gather", "fp32 fp32 fp32 fp32 i32 fp32 N", {"DIRECTIONAL": False, **GRID}, 4),
    ("hash_grid", "_gather", "fp32 fp32 fp16 fp32 i32 fp32 N", {"DIRECTIONAL": False, **GRID}, 4),
    ("hash_grid", "_gather", "fp32 fp32 fp32 fp32 i32 fp32 N", {"DIRECTIONAL": True, **GRID}, 4),
    *[
        ("hash_grid", "_scatter", "fp32 fp32 fp32 fp32 fp32 fp32 i32 fp32 N N", {**products, **GRID}, 4)
        for products in SCATTERED
    ],
    (
        "hash_grid",
        "_position_gradient",
        "fp32 fp32 fp32 fp32 fp32 i32 fp32 N",
        {"N_LEVELS": 16, "SECOND": False, **GRID},
        4,
    ),
    (
        "hash_grid",
        "_position_gradient",
        "fp32 fp32 fp32 fp32 fp32 i32 fp32 N",
        {"N_LEVELS": 16, "SECOND": True, **GRID},
        4,
    ),
    (
        "ray_marching",
        "_march",
        "fp32 fp32 fp32 u8 fp32 i64 i64 i64 fp32 F F N N N",
        {"WRITE": False, "STEPS": 128},
        1,
    ),
    (
        "ray_marching",
        "_march",
        "fp32 fp32 fp32 u8 fp32 i64 i64 i64 fp32 F F N N N",
        {"WRITE": True, "STEPS": 128},
        1,
    ),
    ("ray_marching", "_positions", "i64 i64 fp32 fp32 fp32 fp32 fp32 N", {"INDEXED": True, "BLOCK": 256}, 4),
    (
        "compositing",
        "_forward",
        "fp32 fp32 fp32 i64 fp32 fp32 fp32 fp32 fp32 fp32 F",
        {"C": 6, "CHANNELS": 8, "STEPS": 32},
        1,
    ),
    (
        "compositing",
        "_backward",
        "fp32 fp32 fp32 i64 fp32 fp32 fp32 fp32 fp32 fp32 fp32 fp32 fp32 F",
        {"C": 6, "CHANNELS": 8, "STEPS": 32},
        1,
    ),
    ("compositing", "_visibility", "fp32 i64 i8 F F", {"STEPS": 32}, 1),
    (
        "gaussian_splatting",
        "_forward",
        "i64 fp32 fp32 fp32 fp32 i32 N N N N F F F",
        {"C": 7, "CHANNELS": 8, "TILE": 8, "CHUNK": 16},
        1,
    ),
    (
        "gaussian_splatting",
        "_backward",
        "i64 fp32 fp32 fp32 i32 fp32 fp32 i64 fp32 fp32 N N N N F F",
        {"C": 7, "TILE": 8},
        1,
    ),
    *[
        ("group_norm", kernel, types.replace("x", number), {"SHIFTED": True, "BLOCK": 4096}, 16)
        for number in ("fp32", "fp16")
        for kernel, types in (
            ("_normalize", "x x x x x fp32 fp32 N N N F"),
            ("_input_gradient", "x x x x x x fp32 fp32 N N N"),
        )
    ],
    ("gaussian_sum", "_sum", "fp32 fp32 fp32 fp32 fp32 fp32 N N F", {"C": 4, "CHANNELS": 4, "BLOCK": 128}, 4),
    ("vectors", "_unit", "fp32 fp32 N N N F", {"BLOCK": 256}, 4),
    ("vectors", "_unit_backward", "fp32 fp32 fp32 N N N F", {"BLOCK": 256}, 4),
    *[
        ("mlp", kernel, types, {**FIELD, **more, **numbers}, 8 if numbers["PRECISION"] == "ieee" else warps)
        for numbers in MLP_NUMBERS
        for kernel, types, more, warps in MLP_KERNELS
    ],
    ("rasterization", "_nearest", "fp64 i64 i32 N N", {"CHOOSE": False, "PIXELS": 128}, 4),
    ("rasterization", "_nearest", "fp64 i64 i32 N N", {"CHOOSE": True, "PIXELS": 128}, 4),
]
"""Operation, kernel, what its arguments are (pointers to a type; N an integer, F a number), constants, warps."""


def compile_kernel(op: str, name: str, types: str, constants: dict[str, Any], warps: int, arch: int) -> dict[str, Any]:
    """Compile one kernel as `launch` would; return its resources."""
    kernel = getattr(import_module(f"zero123s.ops.{op}.triton"), name)
    scalars = {"N": "i32", "F": "fp32"}
    signature = {p: scalars.get(t, f"*{t}") for p, t in zip(kernel.arg_names, types.split(), strict=False)}
    signature |= {name: "constexpr" for name in kernel.arg_names if name in constants}
    assert list(signature) == list(kernel.arg_names), f"{op}.{name} has arguments {kernel.arg_names}"
    # torch's allocations are aligned, which lets the compiler load several numbers at once.
    attrs = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if t.startswith("*")}
    constexprs = {(kernel.arg_names.index(k),): v for k, v in constants.items()}
    source = ASTSource(kernel, signature, constexprs, attrs)
    started = time.perf_counter()
    options = {"num_warps": warps, "enable_fp_fusion": False}
    if op == "mlp" and name.endswith("_backward"):
        options["num_stages"] = 1  # as they are started
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    seconds = time.perf_counter() - started
    return {
        "kernel": f"{op}{name}",
        "constants": " ".join(f"{k}={v}" for k, v in constants.items()),
        "arch": arch,
        **_resources(compiled.asm["cubin"]),
        "shared_bytes": compiled.metadata.shared,
        "seconds": round(seconds, 2),
    }


def _resources(cubin: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+).*LOCAL:(\d+)", text)
    assert found, text
    return {"registers": int(found[1]), "spilled_bytes": int(found[2]) + int(found[3])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--arch", type=int, nargs="+", default=[80, 86, 89, 90, 100], help="compute capabilities, times 10"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="all for 8.9, whose blocks have the least memory, and for 9.0 and 10.0 the networks' with TF32 products alone",
    )
    parser.add_argument("--only", default="", help="operation and kernel, or the beginning of both")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rows = []
    for arch in QUICK if args.quick else args.arch:
        for kernel in (k for k in KERNELS if "".join(k[:2]).startswith(args.only)):
            is_mlp = kernel[0] == "mlp"
            if args.quick and (not MLP_NUMBERS[0].items() <= kernel[3].items() if is_mlp else arch != QUICK[0]):
                continue
            rows.append(compile_kernel(*kernel, arch=arch))
            print(json.dumps(rows[-1]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
