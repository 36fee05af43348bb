"""Single operations and modules on the device: each was once on the wrong one, or refused there."""

import torch
from torch import nn

from zero123s.diffusion.training import WeightAverage


def test_average_follows_weights_that_were_moved():
    module = nn.Linear(3, 2)
    average = WeightAverage(module, decay=0.5)
    module.to("cuda")
    average.update(module)
    assert {a.device.type for a in average.averages} == {"cuda"}
    assert torch.equal(average.averaged(module).weight, module.weight)
