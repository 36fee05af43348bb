"""Files of 3D Gaussians: the .ply layout of 3DGS and the .splat layout of web viewers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from zero123s.errors import MeshError
from zero123s.runtime.files import replacing

SH_0 = 0.28209479177387814
"""The constant spherical harmonic, by which 3DGS's files divide colours."""
MAX_GAUSSIANS = 20_000_000
POINT_OPACITY = 0.1
"""Initial opacity of a point of a point cloud."""


@dataclass(frozen=True)
class GaussianParameters:
    """N Gaussians as 3DGS stores them, before activations."""

    means: Float[Tensor, "N 3"]
    log_scales: Float[Tensor, "N 3"]
    quaternions: Float[Tensor, "N 4"]
    """(w, x, y, z), not normalised."""
    opacity_logits: Float[Tensor, "N"]
    sh: Float[Tensor, "N K 3"]
    """Spherical harmonics of the colour minus 0.5; K = (degree + 1)^2."""


def _names(n_rest: int) -> list[str]:
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(n_rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_splat_ply(path: Path, gaussians: GaussianParameters, generator: str = "zero123s") -> Path:
    """Write the binary .ply that 3DGS and its viewers read: float32, higher harmonics channel by channel.

    Args:
        path: of the file.
        gaussians: N Gaussians.
        generator: name of the writing program, in the header's comment.

    Returns:
        `path`.

    Raises:
        OutputError: the file cannot be written.
    """
    n = len(gaussians.means)
    rest = gaussians.sh[:, 1:].transpose(1, 2).reshape(n, -1)
    columns = [
        gaussians.means,
        torch.zeros(n, 3),
        gaussians.sh[:, 0],
        rest,
        gaussians.opacity_logits[:, None],
        gaussians.log_scales,
        torch.nn.functional.normalize(gaussians.quaternions, dim=-1),
    ]
    table = torch.cat([c.cpu().float() for c in columns], dim=1).numpy().astype("<f4")
    properties = "".join(f"property float {name}\n" for name in _names(rest.shape[1]))
    header = f"ply\nformat binary_little_endian 1.0\ncomment {generator}\nelement vertex {n}\n{properties}end_header\n"
    with replacing(path) as file:
        file.write(header.encode() + table.tobytes())
    return path


def write_splat(path: Path, gaussians: GaussianParameters) -> Path:
    """Write the .splat of web viewers: 32 bytes per Gaussian, the most visible first, without view dependence.

    Position and scale are float32, colour and opacity bytes, the unit quaternion bytes around 128.

    Args:
        path: of the file.
        gaussians: N Gaussians.

    Returns:
        `path`.

    Raises:
        OutputError: the file cannot be written.
    """
    scales, opacity = gaussians.log_scales.exp(), torch.sigmoid(gaussians.opacity_logits)
    order = torch.argsort(scales.prod(-1) * opacity, descending=True, stable=True).cpu()
    rows = np.empty(len(order), [("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])
    rgba = torch.cat([0.5 + SH_0 * gaussians.sh[:, 0], opacity[:, None]], dim=1)
    unit_quaternions = torch.nn.functional.normalize(gaussians.quaternions, dim=-1)
    rows["position"] = gaussians.means.cpu()[order]
    rows["scale"] = scales.cpu()[order]
    rows["rgba"] = (255 * rgba.clamp(0, 1) + 0.5).byte().cpu()[order]
    rows["rotation"] = (128 * unit_quaternions + 128).clamp(0, 255).byte().cpu()[order]
    with replacing(path) as file:
        file.write(rows.tobytes())
    return path


def write_gaussians(out_dir: Path, name: str, gaussians: GaussianParameters) -> dict[str, Path]:
    """Write NAME_gaussians.ply and NAME_gaussians.splat.

    Args:
        out_dir: folder of the files.
        name: NAME.
        gaussians: N Gaussians.

    Returns:
        The paths under "gaussians_ply" and "gaussians_splat".

    Raises:
        OutputError: a file cannot be written.
    """
    return {
        "gaussians_ply": write_splat_ply(out_dir / f"{name}_gaussians.ply", gaussians),
        "gaussians_splat": write_splat(out_dir / f"{name}_gaussians.splat", gaussians),
    }


def read_splats(path: str | Path, sh_degree: int) -> GaussianParameters:
    """Read a .ply of Gaussians, or of points with or without colours, to initialise Gaussians.

    Args:
        path: binary little-endian .ply.
        sh_degree: of the result; higher harmonics in the file are left out, missing ones are zero.

    Returns:
        N Gaussians; points become spheres, see `gaussians_at`.

    Raises:
        MeshError: the file is missing, damaged, or neither.
    """
    path = Path(path)
    rows = _read_vertices(path)
    names = set(rows.dtype.names or ())
    if not {"x", "y", "z"} <= names:
        raise MeshError(f"{path}: its vertices have no x, y and z.")
    columns = lambda *keys: torch.from_numpy(np.stack([rows[k].astype(np.float32) for k in keys], axis=1))  # noqa: E731
    means = columns("x", "y", "z")
    if not bool(torch.isfinite(means).all()):
        raise MeshError(f"{path}: has positions that are not finite numbers.")
    sh = torch.zeros(len(rows), (sh_degree + 1) ** 2, 3)
    if not {"f_dc_0", "opacity", "scale_0", "rot_0"} <= names:
        colors = columns("red", "green", "blue") / 255 if {"red", "green", "blue"} <= names else None
        return gaussians_at(means, colors, sh_degree)
    sh[:, 0] = columns("f_dc_0", "f_dc_1", "f_dc_2")
    n_rest = sum(name.startswith("f_rest_") for name in names)
    if n_rest:
        rest = columns(*(f"f_rest_{i}" for i in range(n_rest))).reshape(len(rows), 3, -1).transpose(1, 2)
        n = min(rest.shape[1], sh.shape[1] - 1)
        sh[:, 1 : 1 + n] = rest[:, :n]
    rotation, scale = columns(*(f"rot_{i}" for i in range(4))), columns(*(f"scale_{i}" for i in range(3)))
    return GaussianParameters(means, scale, rotation, columns("opacity")[:, 0], sh)


def gaussians_at(
    means: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"] | None, sh_degree: int, opacity: float = POINT_OPACITY
) -> GaussianParameters:
    """Place isotropic Gaussians at points, as large as the mean distance to three neighbours (Kerbl et al. 2023).

    Args:
        means: N 3.
        colors: N 3 in [0, 1]; None = grey.
        sh_degree: of the spherical harmonics; those above degree 0 are zero.
        opacity: of each Gaussian, in (0, 1).

    Returns:
        N Gaussians before activations.

    Example:
        >>> import torch
        >>> from zero123s.mesh.splats import gaussians_at
        >>> gaussians = gaussians_at(torch.eye(3), None, sh_degree=1)
        >>> gaussians.sh.shape, round(gaussians.log_scales[0, 0].exp().item(), 3)
        (torch.Size([3, 4, 3]), 1.414)
    """
    from scipy.spatial import cKDTree

    k = min(4, len(means))
    distances, _ = cKDTree(means.numpy()).query(means.numpy(), k=k)
    spacing = np.maximum(distances.reshape(len(means), k)[:, 1:].mean(1) if k > 1 else np.full(len(means), 0.01), 1e-4)
    log_scales = torch.from_numpy(np.log(spacing).astype(np.float32))[:, None].repeat(1, 3)
    quaternions = torch.tensor([1.0, 0, 0, 0]).repeat(len(means), 1)
    sh = torch.zeros(len(means), (sh_degree + 1) ** 2, 3)
    if colors is not None:
        sh[:, 0] = (colors - 0.5) / SH_0
    return GaussianParameters(means, log_scales, quaternions, torch.logit(torch.full((len(means),), opacity)), sh)


def _read_vertices(path: Path) -> NDArray:
    """Return the vertex element of a .ply as a structured array."""
    if not path.is_file():
        raise MeshError(f"{path}: there is no such file.")
    content = path.read_bytes()
    try:
        end = content.index(b"end_header\n") + len(b"end_header\n")
        lines = content[:end].decode("ascii").splitlines()
        fields, n, element = [], 0, ""
        kinds = {
            "float": "<f4",
            "float32": "<f4",
            "double": "<f8",
            "uchar": "u1",
            "uint8": "u1",
            "int": "<i4",
            "short": "<i2",
        }
        for tokens in (line.split() for line in lines):
            if tokens[0] == "element":
                element = tokens[1]
                n = int(tokens[2]) if element == "vertex" else n
            elif tokens[0] == "property" and element == "vertex":
                fields.append((tokens[2], kinds[tokens[1]]))
        if "format binary_little_endian 1.0" not in lines:
            raise ValueError("only binary little-endian files are read")
        if not 0 < n <= MAX_GAUSSIANS:
            raise ValueError(f"{n} vertices; between 1 and {MAX_GAUSSIANS} are read")
        return np.frombuffer(content, np.dtype(fields), n, end)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError, TypeError) as error:
        raise MeshError(f"{path}: cannot be read as a .ply of Gaussians or points ({error}).") from error
