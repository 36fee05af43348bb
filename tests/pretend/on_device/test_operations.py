"""Single operations and modules on the device: each was once on the wrong one, or refused there."""

import torch
from torch import nn

from zero123s.diffusion.training import WeightAverage
from zero123s.ops.compositing import composite


def test_average_follows_weights_that_were_moved():
    module = nn.Linear(3, 2)
    average = WeightAverage(module, decay=0.5)
    module.to("cuda")
    average.update(module)
    assert {a.device.type for a in average.averages} == {"cuda"}
    assert torch.equal(average.averaged(module).weight, module.weight)


def test_compositor_takes_half_precision_colours():
    packed = torch.tensor([[0, 2], [2, 1]], device="cuda")
    t = torch.arange(3.0, device="cuda")
    values = torch.ones(3, 3, device="cuda", dtype=torch.float16)
    with torch.autocast("cuda"):
        _, opacity, _, summed = composite(torch.ones(3, device="cuda"), t, t + 1, packed, values)
    assert summed.dtype == torch.float32
    assert torch.allclose(summed[:, 0], opacity)
