"""Initial weights of a run: from a checkpoint to resume, from another run, or from a first stage's surface."""

from pathlib import Path
from typing import Any

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.errors import CheckpointError, ConfigError
from zero123s.run.plan import read_first_stage
from zero123s.run.resume import checkpoint_at
from zero123s.run.threestudio_checkpoint import as_native, initial_weights, is_threestudio
from zero123s.runtime.processes import print_rank_zero
from zero123s.system.base import BaseSystem, step_modules


class RunCheckpointIO(AtomicCheckpointIO):
    """Also reads threestudio's checkpoints, converted to those of a system here.

    Args:
        system: whose weights they become.
    """

    def __init__(self, system: BaseSystem) -> None:
        super().__init__()
        self.system = system

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; raises CheckpointError for a damaged or foreign file."""
        state = super().load_checkpoint(path, map_location, weights_only)
        return as_native(state, self.system, path) if is_threestudio(state) else state


def load_weights(system: BaseSystem, checkpoint: Path) -> int:
    """Load a run's weights and return their step; raises CheckpointError if they do not fit."""
    state = RunCheckpointIO(system).load_checkpoint(checkpoint)
    try:
        system.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(
            f"'{checkpoint}' belongs to another configuration; use the one next to it "
            f"(--config {checkpoint.parent.parent / 'config.yaml'}). First difference: {detail[:300]}"
        ) from error
    return int(state["global_step"])


def start_from_weights(system: BaseSystem, path: str) -> dict[str, Any]:
    """Load the weights of another run into a new system; returns the entry for run.json.

    Raises:
        UserError: there is no such checkpoint, or it does not fit.
    """
    checkpoint = checkpoint_at(path)
    if checkpoint is None:
        raise ConfigError(f"system.weights={path}: no such checkpoint or run folder.")
    state = AtomicCheckpointIO().load_checkpoint(checkpoint)
    weights, missing = initial_weights(state, system, system.weights_ignored, checkpoint)
    system.load_state_dict(weights)
    if missing:
        print_rank_zero(f"note: {checkpoint} lacks {', '.join(missing[:5])}; they begin as initialised.")
    step_modules(system, int(state["global_step"]))
    return {"checkpoint": str(checkpoint), "step": int(state["global_step"])}


def start_from_first_stage(system: BaseSystem, path: str) -> dict[str, Any]:
    """Initialise a new system from an earlier run's surface and colours; returns the entry for run.json.

    Raises:
        UserError: the earlier run is not there, not whole, or has nothing to start from.
    """
    print_rank_zero(f"starting from the surface of {path}")
    first, checkpoint = read_first_stage(path, system.first_stage_override)
    step = load_weights(first, checkpoint)
    first.to(system.device)
    step_modules(first, step)
    started = system.start_from(first)
    return {"checkpoint": str(checkpoint), "step": step, **started}
