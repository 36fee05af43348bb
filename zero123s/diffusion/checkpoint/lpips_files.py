"""Finds and reads the two weight files of LPIPS; neither comes with this project.

They are read with PyTorch's own unpickler for weights: `weights_file` refuses the format from before PyTorch 1.6, which
these files have.
"""

import importlib.util
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zero123s.errors import CheckpointError
from zero123s.ops.lpips import Lpips, checked_backbone, checked_linear

BACKBONE_FILES = {
    # torchvision's of today and of before 0.10, the same weights.
    "alex": ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth"),
    "vgg": ("vgg16-397923af.pth",),
}
DOWNLOADS = "https://download.pytorch.org/models"
LINEAR_FOLDERS = ("", "v0.1", "weights/v0.1", "lpips/weights/v0.1")
"""Where the linear weights may lie below the user's folder."""
INSTALLED_LINEAR = {"torchmetrics": "functional/image/lpips_models", "lpips": "weights/v0.1"}
"""Packages that carry the linear weights; Lightning brings the first one."""


@dataclass(frozen=True)
class LpipsFiles:
    """The two files; None = not found."""

    backbone: Path | None
    linear: Path | None

    @property
    def are_complete(self) -> bool:
        """Whether both files were found."""
        return self.backbone is not None and self.linear is not None


def _installed(package: str) -> Path | None:
    """Return an installed package's folder without importing it: torchvision may be missing or of another torch."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def find_lpips_files(net: str, folder: Path | None = None) -> LpipsFiles:
    """Find the weights of LPIPS.

    Args:
        net: "alex" or "vgg".
        folder: searched first; then torch hub's cache and installed packages.

    Returns:
        The paths of backbone and linear weights.

    Example:
        >>> from zero123s.diffusion.checkpoint.lpips_files import find_lpips_files
        >>> find_lpips_files("alex").linear.name  # in torchmetrics, which Lightning installs
        'alex.pth'
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    backbones = [place / name for place in (folder, hub) if place for name in BACKBONE_FILES[net]]
    folders = [folder / below for below in LINEAR_FOLDERS] if folder else []
    folders += [place / below for package, below in INSTALLED_LINEAR.items() if (place := _installed(package))]
    linears = [place / f"{net}.pth" for place in (*folders, hub)]
    return LpipsFiles(*(next((p for p in paths if p.is_file()), None) for paths in (backbones, linears)))


def _read(path: Path, check: Callable[[Mapping[str, Tensor], str], dict[str, Tensor]], net: str) -> dict[str, Tensor]:
    """Read a weight file and select the weights with `check`; raises CheckpointError."""
    try:
        if tarfile.is_tarfile(
            path
        ):  # before 2.6, PyTorch could be made to run code by this form, even with weights_only
            raise CheckpointError("it is a tar archive, which no release of these weights is")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            raise CheckpointError("it holds no table of tensors")
        return check(state, net)
    except CheckpointError as error:
        raise CheckpointError(f"Cannot use {path} for LPIPS: {error}; get the file again.") from error
    except Exception as error:  # a damaged pickle can fail in any way: every one of them means the same to a user
        raise CheckpointError(
            f"Cannot use {path} for LPIPS: it is damaged, truncated or not a weight file ({type(error).__name__}); get "
            "the file again."
        ) from error


def load_lpips(net: str = "alex", folder: Path | None = None) -> Lpips:
    """Load LPIPS with the user's weights.

    Args:
        net: "alex", the authors' default, or "vgg".
        folder: searched first; then torch hub's cache and installed packages.

    Returns:
        The metric, frozen.

    Raises:
        CheckpointError: a file is missing (the message says where to get it), damaged, or not LPIPS's.
    """
    if folder is not None and not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; name the one that holds the weights of LPIPS.")
    files = find_lpips_files(net, folder)
    name = BACKBONE_FILES[net][0]
    if files.backbone is None or files.linear is None:
        missing = " and ".join(n for n, path in ((name, files.backbone), (f"{net}.pth", files.linear)) if path is None)
        where = f"{folder} and {torch.hub.get_dir()}/checkpoints" if folder else f"{torch.hub.get_dir()}/checkpoints"
        raise CheckpointError(
            f"LPIPS lacks {missing} in {where}: it needs {DOWNLOADS}/{name} and lpips/weights/v0.1/{net}.pth of the "
            "package lpips (`pip download lpips --no-deps`, a zip archive); put them there."
        )
    return Lpips(_read(files.backbone, checked_backbone, net), _read(files.linear, checked_linear, net), net)
