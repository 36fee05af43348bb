"""Files of random weights in the layout of those that LPIPS is made of."""

import torch

from zero123s.diffusion.checkpoint.lpips_files import BACKBONE_FILES
from zero123s.ops.lpips import backbone_shapes, linear_shapes


def write_weights(folder, net="alex", legacy=True, backbone=True, linear=True):
    """Write random weights in the layout of the released files, classifier included, in their old form or today's."""
    generator = torch.Generator().manual_seed(0)
    save = lambda table, path: torch.save(table, path, _use_new_zipfile_serialization=not legacy)  # noqa: E731
    folder.mkdir(parents=True, exist_ok=True)
    if backbone:
        table = {k: 0.05 * torch.randn(s, generator=generator) for k, s in backbone_shapes(net).items()}
        save(table | {"classifier.6.weight": torch.zeros(10, 4)}, folder / BACKBONE_FILES[net][0])
    if linear:
        save({k: torch.rand(s, generator=generator) for k, s in linear_shapes(net).items()}, folder / f"{net}.pth")
    return folder
