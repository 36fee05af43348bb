"""`trainer.precision=64`: Lightning's double precision for batches that are frozen dataclasses."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pytorch_lightning.plugins.precision import DoublePrecision as LightningDoublePrecision

from zero123s.structures import TensorData


class DoublePrecision(LightningDoublePrecision):
    """Trains in double precision; the guidance's networks, which are not trained, keep their own."""

    def convert_input(self, data: Any) -> Any:
        """Return a batch in double precision."""
        return data.to("cpu", torch.float64) if isinstance(data, TensorData) else super().convert_input(data)

    def forward_context(self) -> AbstractContextManager[None]:
        """Leave torch's default alone: the guidance's networks build their constants by it."""
        return nullcontext()
