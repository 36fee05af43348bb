"""Converts threestudio's checkpoints to weights of the systems here.

Both keep the same numbers: tiny-cuda-nn's hash table is one flat list in the order of the table here, a VanillaMLP is a
`Sequential` whose odd entries are activations, and the occupancy grid is nerfacc's.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from zero123s.errors import CheckpointError

KEYS = (
    (r"geometry\.encoding\.(?:encoding\.)*(?:params|table|embeddings)", r"geometry.encoding.table"),
    (r"geometry\.(\w+_network)\.layers\.(\d+)\.weight", r"geometry.\1.layers.\2.weight"),
    (r"geometry\.(grid|normal_grid|density_scale)", r"geometry.\1"),
    (r"(material|background)\.network\.layers\.(\d+)\.weight", r"\1.network.network.layers.\2.weight"),
    (r"material\.adapter", r"material.adapter"),
    (r"background\.env_color", r"background.color"),
    (r"renderer\.estimator\.(occs|binaries)", r"renderer.grid.\1"),
)
"""Pattern of threestudio's key, and the key here; layer numbers are halved, because threestudio's count activations."""
DERIVED = (
    r".*\.bbox",
    r".*\.isosurface_(bbox|helper.*)",
    r"renderer\.estimator\..*",
    r"renderer\.(geometry|material|background)\..*",
    r"material\.(ambient|diffuse)_light_color",
    r"(material|background)\.encoding\..*",
    r"(guidance|guidance_3d|prompt_processor|pearson)\..*",
)
"""Keys without trained parameters of the scene."""
UNSUPPORTED = {
    r"geometry\.\w+_network\.network\.params": "networks of tiny-cuda-nn (FullyFusedMLP); VanillaMLP is supported",
    r"geometry\.(sdf|deformation)": "a tetrahedra-sdf-grid: its nodes are those of a file of threestudio's",
}


def is_threestudio(state: dict[str, Any]) -> bool:
    """Tell whether a checkpoint's content was written by threestudio."""
    names = state.get("state_dict", {})
    return "geometry.bbox" in names or any(re.fullmatch(KEYS[0][0], name) for name in names if "params" in name)


def native_weights(weights: dict[str, Tensor], system: nn.Module, path: Any) -> dict[str, Tensor]:
    """Convert a threestudio state dict to one of `system`; entries missing there are the system's own.

    Raises:
        CheckpointError: a key that is not known, or weights of another shape.
    """
    own = system.state_dict()
    found = dict(own)
    for name, value in weights.items():
        if any(re.fullmatch(pattern, name) for pattern in DERIVED) and not _new_name(name):
            continue
        for pattern, what in UNSUPPORTED.items():
            if re.fullmatch(pattern, name):
                raise CheckpointError(f"'{path}' was written by threestudio and holds {what}.")
        new = _new_name(name)
        if new is None or new not in own:
            raise CheckpointError(
                f"'{path}' was written by threestudio, and its '{name}' has no place in this configuration; use the "
                "configs/parsed.yaml of its folder."
            )
        found[new] = _fitted(value, own[new], name, path)
    return found


def _new_name(name: str) -> str | None:
    for pattern, new in KEYS:
        match = re.fullmatch(pattern, name)
        if match:
            named = match.expand(new)
            return re.sub(r"layers\.(\d+)\.", lambda m: f"layers.{int(m[1]) // 2}.", named)
    return None


def _fitted(value: Tensor, own: Tensor, name: str, path: Any) -> Tensor:
    if value.numel() != own.numel():
        raise CheckpointError(
            f"'{path}' was written by threestudio: its '{name}' has {value.numel():,} numbers, and this configuration "
            f"{own.numel():,}; use the configs/parsed.yaml of its folder."
        )
    return value.reshape(own.shape).to(own.dtype)


def as_native(state: dict[str, Any], system: nn.Module, path: Any) -> dict[str, Any]:
    """Return a checkpoint with threestudio's weights and step; the optimiser's state starts anew.

    Raises:
        CheckpointError: the weights do not fit.
    """
    weights = native_weights(state["state_dict"], system, path)
    kept = {key: state[key] for key in ("epoch", "global_step", "pytorch-lightning_version", "loops") if key in state}
    return {**kept, "state_dict": weights, "optimizer_states": [], "lr_schedulers": []}


def initial_weights(
    state: dict[str, Any], system: nn.Module, ignored: list[str], path: Any
) -> tuple[dict[str, Tensor], list[str]]:
    """Return a full state dict for a system initialised from another run's weights, and the names that those lack.

    Args:
        state: content of that run's checkpoint, or of threestudio's.
        system: whose own values stand where there is no other.
        ignored: modules that keep their own values.
        path: named in errors.

    Raises:
        CheckpointError: weights of another shape.
    """
    own = system.state_dict()
    kept = lambda name: not any(name == m or name.startswith(f"{m}.") for m in ignored)  # noqa: E731
    given = {name: v for name, v in state["state_dict"].items() if kept(name)}
    if is_threestudio(state):
        weights = native_weights(given, system, path)
        return weights, []
    for name, value in given.items():
        if name in own and own[name].shape != value.shape:
            raise CheckpointError(f"'{path}': its '{name}' is {list(value.shape)}, and here {list(own[name].shape)}.")
    missing = [name for name in own if name not in given]
    return {**own, **{n: torch.as_tensor(v) for n, v in given.items() if n in own}}, missing
