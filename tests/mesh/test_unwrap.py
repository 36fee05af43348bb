"""xatlas in a process that can be stopped, called from any kind of script, and what happens without it."""

import subprocess
import sys

import numpy as np
import pytest
import trimesh

from zero123s.mesh.unwrap import UnwrapOptions, unwrap
from zero123s.mesh.xatlas_worker import split

SCRIPT = """
import trimesh
from zero123s.mesh.unwrap import UnwrapOptions, unwrap

print("started")
ball = trimesh.creation.icosphere(2)
print(unwrap(ball.vertices, ball.faces, UnwrapOptions(texture_size=128)).method)
"""


@pytest.fixture(scope="module")
def ball():
    sphere = trimesh.creation.icosphere(2)
    return np.asarray(sphere.vertices), np.asarray(sphere.faces)


def test_xatlas_answers_and_nothing_is_said(ball):
    result = unwrap(*ball, UnwrapOptions(texture_size=128))
    assert (result.method, result.reason) == ("xatlas", None)
    np.testing.assert_array_equal(result.vertex_index[result.faces], ball[1])
    assert result.uvs.min() >= 0
    assert result.uvs.max() <= 1


def test_a_large_mesh_is_unwrapped_in_parts():
    """Same faces in the same order, charts that do not overlap, the same result every time."""
    sphere = trimesh.creation.icosphere(5)
    vertices, faces = np.asarray(sphere.vertices), np.asarray(sphere.faces)
    sizes = [len(part) for part in split(vertices, faces)]
    assert sizes == [5120] * 4
    options = UnwrapOptions(texture_size=1024)
    result, again = unwrap(vertices, faces, options), unwrap(vertices, faces, options)
    np.testing.assert_array_equal(result.vertex_index[result.faces], faces)
    np.testing.assert_array_equal(result.uvs, again.uvs)
    corners = result.uvs[result.faces]
    sides = np.roll(corners, -1, axis=1) - corners
    area = 0.5 * np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
    assert 0.5 < area.sum() < 1, "of the texture"
    for middle in corners[:: len(faces) // 500].mean(1):
        to_middle = middle - corners
        turns = sides[..., 0] * to_middle[..., 1] - sides[..., 1] * to_middle[..., 0]
        inside = (turns > 0).all(1) | (turns < 0).all(1)
        assert inside.sum() == 1, "the middle of a face lies in that face alone"


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    (tmp_path / "plain.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "plain.py"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["started", "xatlas"]


def test_a_time_limit_and_a_failure_are_reported(ball, monkeypatch, caplog):
    result = unwrap(*ball, UnwrapOptions(texture_size=128, time_limit_s=1e-3))
    assert result.method == "triangles"
    assert "took longer than unwrap_time_limit_s, 0.001 s" in result.reason
    assert result.reason in caplog.text
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "failed with exit code 1" in unwrap(*ball, UnwrapOptions(texture_size=128)).reason


def test_a_large_mesh_reaches_a_slow_worker(monkeypatch):
    monkeypatch.setattr("zero123s.mesh.unwrap.SECONDS_BETWEEN_TICKS", 0.01)  # long before the worker reads
    sphere = trimesh.creation.icosphere(4)
    vertices, faces = np.asarray(sphere.vertices), np.asarray(sphere.faces)
    assert 4 * (vertices.size + faces.size) > 2**16, "more than a pipe holds"
    assert unwrap(vertices, faces, UnwrapOptions(texture_size=128)).method == "xatlas"


def test_seconds_are_reported_while_xatlas_runs(ball):
    seconds = []
    unwrap(*ball, UnwrapOptions(texture_size=128), seconds.append)
    assert seconds[0] < 0.1
    assert seconds == sorted(seconds)
    seconds.clear()
    assert unwrap(*ball, UnwrapOptions(texture_size=128, time_limit_s=0.01), seconds.append).method == "triangles"
    assert seconds
