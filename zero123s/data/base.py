"""The interface of data sources: one batch per training step, and the evaluation views."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zero123s.registry import Registry
from zero123s.structures import Batch, Cameras, ReferenceView


class BaseData:
    """Base class of `data_type`.

    A batch is a pure function of the global step, so that a resumed run gets the batches of an uninterrupted one.

    Args:
        cfg: the parsed `Config` of the subclass.
        seed: the run's seed; all randomness derives from (seed, step, micro_step, rank).
    """

    @dataclass
    class Config:
        """A data source without settings."""

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        self.cfg = cfg
        self.seed = seed

    def available_maps(self) -> frozenset[str]:
        """Return which of "depth" and "normal" the supervised views will carry; reads nothing."""
        return frozenset()

    def prepare(self) -> None:
        """Read files; called once, before anything expensive. Raises ImageError."""

    def conditioning_views(self) -> ReferenceView:
        """Return the view(s) that condition the guidance, at full training resolution or higher."""
        return self.reference()

    def save_inputs(self, folder: Path) -> dict[str, Any]:
        """Save the prepared input in the run folder and update the configuration to name it.

        Returns:
            The input's entries in run.json; empty when the run resumes.
        """
        return {}

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> Batch:
        """Return the batch of global step `step`; `micro_step` counts accumulated batches within it."""
        raise NotImplementedError(f"{type(self).__name__} must define batch_at().")

    def check_files(self) -> None:
        """Check that the files named in the config exist and can be read; raises ImageError or ConfigError."""

    def novel_sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) of the novel views by stage, from the config alone; empty = none."""
        return []

    def reference(self) -> ReferenceView:
        """Return the supervised view(s) for comparison with the result, at full training size."""
        raise NotImplementedError(f"{type(self).__name__} must define reference().")

    def photos(self) -> ReferenceView:
        """Return the supervised view(s) at the resolution of their files, for the texture."""
        return self.reference()

    def eval_cameras(self, split: str) -> Cameras:
        """Return the orbit that is rendered for `split` = "validate" or "test"."""
        raise NotImplementedError(f"{type(self).__name__} must define eval_cameras().")


DATA: Registry[BaseData] = Registry("data", BaseData)
