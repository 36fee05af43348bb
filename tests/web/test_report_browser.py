"""The report's mesh viewer in a real browser, opened from the disk with nothing else around."""

import io

import numpy as np
import pytest
from PIL import Image

from zero123s.evaluate.report import write_report
from zero123s.mesh.writers import WRITERS
from zero123s.structures import Mesh

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

pytestmark = pytest.mark.end_to_end
RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)


def two_coloured_box(textured: bool) -> Mesh:
    """Return a cube that is red in front (+x) and blue elsewhere."""
    corners, faces, front = [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = np.roll(np.eye(3), axis, 1)[1:3]
            centre = sign * np.eye(3)[axis]
            square = [centre - u - v, centre + u - v, centre + u + v, centre - u + v][:: int(sign)]
            start = len(corners)
            corners += square
            faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
            front += [axis == 0 and sign > 0] * 4
    is_front = np.array(front)
    normals = np.repeat([s * np.eye(3)[a] for a in range(3) for s in (-1.0, 1.0)], 4, axis=0)
    mesh = Mesh(0.3 * np.array(corners), np.array(faces), normals)
    if not textured:
        mesh.vertex_colors = np.where(is_front[:, None], RED, BLUE)
        return mesh
    mesh.uvs = np.where(is_front[:, None], [0.25, 0.5], [0.75, 0.5])
    mesh.texture = np.tile(np.array([RED] * 32 + [BLUE] * 32, np.float32), (64, 1, 1))
    return mesh


@pytest.fixture(params=[False, True], ids=["vertex colours", "texture"])
def page(request, browser, tmp_path):
    mesh = two_coloured_box(request.param)
    glb = WRITERS["glb"](mesh, tmp_path, "model", "png")["glb"]
    report = write_report(tmp_path / "report.html", glb, mesh, {})
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.faults, page.requested = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda line: page.faults.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_timeout(1000)  # a texture is decoded in parallel to the page
    yield page
    page.close()


def pixels(page) -> np.ndarray:
    shot = Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB")
    return np.asarray(shot, float) / 255


def share(image: np.ndarray, color: tuple[float, float, float]) -> float:
    """Return which share of an image has about this colour."""
    return float((np.abs(image - color).max(axis=2) < 0.15).mean())


def test_the_mesh_turns_and_shows_its_colours(page):
    first = pixels(page)
    assert share(first, RED) > 0.05, "the front is not in front"
    assert share(first, BLUE) > 0.02
    assert share(first, (1.0, 1.0, 1.0)) > 0.2
    box = page.locator("#viewer").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 100 + 314, box["y"] + 100, steps=8)  # half a turn
    page.mouse.up()
    turned = pixels(page)
    assert share(turned, RED) < 0.01, "the back shows the front's colour"
    page.mouse.wheel(0, 600)
    assert share(pixels(page), (1.0, 1.0, 1.0)) > share(turned, (1.0, 1.0, 1.0)) + 0.05, "the wheel does not zoom"
    page.get_by_role("button", name="shape").click()
    shape = pixels(page)
    assert np.ptp(shape, axis=2).max() < 0.05, "the shape alone has no colours"
    assert page.faults == []
    assert [url for url in page.requested if not url.startswith(("file:", "data:", "blob:"))] == []
