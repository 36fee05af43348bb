"""Pictures of what the guidance sees, every `system.freq.guidance_eval` steps."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from zero123s.images.io import write_png_atomic


class GuidanceViews(pl.Callback):
    """Writes save/it{step}-guidance-{name}.png for each named picture, the views of the batch side by side.

    Args:
        out_dir: the run folder.
    """

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Take the pictures that the step has left, if any."""
        taken = getattr(pl_module, "guidance_pictures", None)
        if taken is None:
            return
        pl_module.guidance_pictures = None
        if not trainer.is_global_zero:
            return
        step, pictures = taken
        for name, views in pictures.items():
            row = torch.cat(list(views.detach().float().cpu()), dim=1)
            write_png_atomic(self.out_dir / "save" / f"it{step}-guidance-{name}.png", row.numpy())
