"""Unit vectors, against torch's own normalisation."""

import pytest
import torch
from torch.nn import functional as F

from zero123s.ops.vectors import unit


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_unit_is_torchs_normalisation(layout):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 3, generator=g) * torch.logspace(-8, 8, 50)[:, None]
    rows[0] = 0
    v = (rows if layout == "rows" else rows.t().contiguous().t()).requires_grad_()
    weights = torch.randn(50, 3, generator=g)
    results = []
    for function in (unit, lambda v: F.normalize(v, dim=-1)):
        out = function(v)
        results += [out, torch.autograd.grad((out * weights).sum(), v)[0] * v.detach().norm(dim=-1, keepdim=True)]
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[3], rtol=1e-4, atol=1e-6)
    assert unit(torch.zeros(0, 3)).shape == (0, 3)
