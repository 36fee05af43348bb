"""Lay out what benchmarks/gpu/check.py needs on a machine without a network: wheels, and sources of vendors' libraries.

    python benchmarks/gpu/prepare.py --out gpu_wheels [--python 3.12] [PACKAGE...]
    pip install --no-index --no-deps gpu_wheels/*.whl          # there, with its torch for CUDA

Without names: the packages that a machine with PyTorch's usual companions lacks. check.py names those that it misses. What is
laid out stays below 64 MB, so that it travels with the checkout.
"""

import argparse
import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

REQUIRED = {
    "beartype": "beartype", "cv2": "opencv-python-headless", "diffusers": "diffusers", "filelock": "filelock",
    "imageio": "imageio", "jaxtyping": "jaxtyping", "numba": "numba", "numpy": "numpy", "omegaconf": "omegaconf",
    "PIL": "pillow", "pytest": "pytest", "pytest_timeout": "pytest-timeout", "pytorch_lightning": "pytorch-lightning",
    "safetensors": "safetensors", "scipy": "scipy", "skimage": "scikit-image", "tensorboard": "tensorboard",
    "torch": "torch", "tqdm": "tqdm", "transformers": "transformers", "trimesh": "trimesh", "triton": "triton",
    "fast_simplification": "fast-simplification", "xatlas": "xatlas", "xdist": "pytest-xdist", "yaml": "pyyaml",
}  # fmt: skip
"""The package of each module without which the check cannot begin."""
OPTIONAL = {"embreex": "embreex", "nerfacc": "nerfacc"}
"""Without embreex the part `finetune` is left out, without nerfacc its backend is; nerfacc's wheel holds its CUDA sources."""
USUALLY_MISSING = (
    "omegaconf", "diffusers", "beartype", "jaxtyping", "wadler-lindig", "importlib-metadata", "trimesh", "xatlas",
    "embreex", "fast-simplification", "nerfacc", "pytest-timeout",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")


def missing_packages() -> list[str]:
    """Return the required packages whose modules are not installed."""
    return sorted(package for module, package in REQUIRED.items() if importlib.util.find_spec(module) is None)


def fetch(package: str, out: Path, python: str) -> None:
    """Download a package's wheel for Linux on x86-64, or build one where only sources are published and no compiler is needed.

    Raises:
        SystemExit: there is neither.
    """
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    wheel = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    done = subprocess.run(
        [*pip, "download", *wheel, "-d", str(out), package], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        made = [*pip, "wheel", "--no-deps", "-w", str(out), package]
        built = subprocess.run(made, capture_output=True, text=True, check=False)
        name = package.split("==", maxsplit=1)[0].replace("-", "_")
        if built.returncode != 0 or not list(out.glob(f"{name}-*-none-any.whl")):
            raise SystemExit(
                f"{package}: no wheel for Python {python} on Linux ({done.stderr.strip().splitlines()[-1]})."
            )


def pack(source: Path, out: Path) -> None:
    """Pack a checkout of a vendor's library, without its history."""
    with tarfile.open(out / f"{source.resolve().name}.tar.gz", "w:gz") as archive:
        archive.add(source, source.resolve().name, filter=lambda info: None if "/.git" in info.name else info)


def main() -> int:
    """Lay out wheels and sources, and state their size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    parser.add_argument("--out", type=Path, required=True, help="folder of wheels and archives")
    parser.add_argument("--python", default="3.12", help="version on the machine with the GPU")
    parser.add_argument("--sources", type=Path, nargs="*", default=[], help="checkouts of tiny-cuda-nn, nvdiffrast...")
    parser.add_argument("--limit-mb", type=float, default=64.0, help="most that may travel")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for package in args.packages or USUALLY_MISSING:
        fetch(package, args.out, args.python)
    for source in args.sources:
        pack(source, args.out)
    files = sorted(args.out.iterdir(), key=lambda path: -path.stat().st_size)
    for path in files:
        print(f"{path.stat().st_size / 1e6:7.1f} MB  {path.name}")
    total = sum(path.stat().st_size for path in files) / 1e6
    print(f"{total:7.1f} MB  of {args.limit_mb:g} MB")
    if total > args.limit_mb:
        print(
            f"{args.out}: {total:.1f} MB, above the {args.limit_mb:g} MB that may travel; leave the largest out.",
            file=sys.stderr,
        )
    return int(total > args.limit_mb)


if __name__ == "__main__":
    sys.exit(main())
