"""Cavities are found, however they are connected to the outside; what can be seen stays empty."""

import numpy as np
import pytest

from zero123s.mesh.visibility import hidden_nodes


def distance(n):
    return np.linalg.norm(np.indices((n, n, n)) - (n - 1) / 2, axis=0) / (n / 2)


@pytest.mark.parametrize("max_nodes", [100, 40])
def test_a_leaking_hollow_ball_is_filled(max_nodes):
    n = 60
    r = distance(n)
    shell = (r < 0.8) & (r > 0.6)
    shell[n // 2, n // 2, : n // 2] = False  # a channel one node wide to the inside
    hidden = hidden_nodes(shell, max_nodes=max_nodes)
    assert hidden[r < 0.45].all()
    assert not hidden[r >= 0.8].any()
    assert not (hidden & shell).any()


def test_visible_cavities_stay_empty():
    r = distance(48)
    bowl = (r < 0.8) & (r > 0.6) & (np.indices(r.shape)[2] < 24)
    assert hidden_nodes(bowl).mean() < 0.002
    plates = np.zeros((32, 32, 32), bool)
    plates[4:28, 4:28, 8:10] = plates[4:28, 4:28, 20:22] = True
    assert not hidden_nodes(plates).any()


def test_a_box_open_below_is_solid():
    box = np.zeros((40, 40, 40), bool)
    box[8:32, 8:32, 4:32] = True
    box[11:29, 11:29, 4:29] = False
    assert hidden_nodes(box)[13:27, 13:27, 18:28].all()
