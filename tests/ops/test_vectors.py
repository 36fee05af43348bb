"""Unit vectors, against torch's own normalisation."""

import pytest
import torch
from torch.nn import functional as F

from zero123s.ops.vectors import unit

INTERPRETED = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled where there is a GPU")


@pytest.mark.parametrize("layout", ["rows", "columns", "gaps", "images"])
@pytest.mark.parametrize(
    ("backend", "device"),
    [
        ("reference", "cpu"),
        pytest.param("triton", "cpu", marks=INTERPRETED),
        pytest.param("triton", "cuda", marks=pytest.mark.gpu),
    ],
)
def test_unit_is_torchs_normalisation(layout, backend, device):
    if backend == "triton":
        pytest.importorskip("triton", reason="Triton is not installed: it has wheels for Linux")
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 3, generator=g) * torch.logspace(-8, 8, 50)[:, None]
    rows[0] = 0
    forms = {
        "rows": rows,
        "columns": rows.t().contiguous().t(),
        "gaps": torch.cat([rows, rows], dim=1)[:, :3],
        "images": rows.view(2, 5, 5, 3).transpose(0, 1),
    }
    v = forms[layout].to(device).requires_grad_()
    weights = torch.randn(v.shape, generator=g).to(device)
    results = []
    for function in (lambda v: unit(v, backend=backend), lambda v: F.normalize(v, dim=-1)):
        out = function(v)
        results += [out, torch.autograd.grad((out * weights).sum(), v)[0] * v.detach().norm(dim=-1, keepdim=True)]
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[3], rtol=1e-4, atol=1e-6)
    assert unit(torch.zeros(0, 3, device=device), backend=backend).shape == (0, 3)
