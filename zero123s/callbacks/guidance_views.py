"""Images of the guidance's input and prediction, every `system.freq.guidance_eval` steps."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from zero123s.images.io import write_png_atomic


class GuidanceViews(pl.Callback):
    """Writes save/it{step}-guidance-{name}.png for each named image, the views of the batch side by side.

    Args:
        out_dir: the run folder.
    """

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Write the images of a step that has any."""
        if not trainer.is_global_zero:
            return
        diagnostics = pl_module.diagnostics
        for name, views in diagnostics.guidance_images.items():
            row = torch.cat(list(views.detach().float().cpu()), dim=1)
            write_png_atomic(self.out_dir / "save" / f"it{diagnostics.step}-guidance-{name}.png", row.numpy())
