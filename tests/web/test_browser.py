"""The page in a real browser: upload, correct, run, watch, cancel, finish, download.

ZERO123S_SCREENSHOTS=1 writes docs/images/web*.png anew.
"""

import io
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

pytestmark = pytest.mark.end_to_end

SAMPLE = Path("load/images/hamburger_rgba.png").resolve()
IMAGES = Path("docs/images")
MINUTES = 60_000
"""Milliseconds."""


def screenshot(page, name: str) -> None:
    """Save a screenshot for the docs if the environment requests it."""
    if not os.environ.get("ZERO123S_SCREENSHOTS"):
        return
    rgb = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    rgb.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
    assert (IMAGES / f"{name}.png").stat().st_size < 300_000


@pytest.fixture
def page(browser, web_server):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(MINUTES / 2)
    page.goto(web_server[0])
    page.wait_for_selector("#run")
    yield page
    context.close()


def upload(page, path: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(path)


def upload_sample(page) -> None:
    """Put the sample in and wait until the page has answered."""
    upload(page, SAMPLE)
    sync_api.expect(page.locator("#found")).to_contain_text("confidence 1.00")
    page.locator("#steps img").first.wait_for()


def source(page, block: str) -> str:
    """Return the address of an image of the page; empty where there is none."""
    image = page.locator(f"{block} img")
    return image.first.get_attribute("src") or "" if image.count() else ""


def words(page) -> str:
    return page.locator("#words").inner_text()


def wait_for_words(page, pattern: str, minutes: float = 4) -> str:
    sync_api.expect(page.locator("#words")).to_contain_text(re.compile(pattern), timeout=minutes * MINUTES)
    return words(page)


def test_from_the_upload_to_the_mesh(page, web_server, tmp_path):
    upload_sample(page)
    elevation = page.locator("#elevation input[type=number]")
    assert 0 < float(elevation.input_value()) < 15
    elevation.fill("5")
    elevation.press("Enter")
    page.locator("#run").click()

    # The preview changes while it trains.
    wait_for_words(page, "step [1-9]")
    previews, end = set(), time.monotonic() + 400
    while "Finished" not in words(page):
        assert time.monotonic() < end, words(page)
        previews.add(source(page, "#preview"))
        assert "Failed" not in words(page), words(page)
        page.wait_for_timeout(200)
    assert len(previews - {""}) >= 2, previews
    assert "<svg" in page.locator("#plots").inner_html()
    assert "mask_iou" in words(page)

    # The mesh is in its viewer: the canvas shows more than one colour.
    canvas = page.locator("#mesh canvas")
    canvas.wait_for()
    page.wait_for_timeout(3000)
    shown = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"), float)
    assert shown.std(axis=(0, 1)).max() > 5, "the viewer is blank"
    screenshot(page, "web")

    # What can be downloaded is the mesh.
    links = page.locator("#files a[href*='model.glb']")
    with page.expect_download() as download:
        links.first.click()
    download.value.save_as(tmp_path / "model.glb")
    mesh = trimesh.load(tmp_path / "model.glb", force="mesh")
    assert len(mesh.faces) > 100
    listed = page.locator("#files").inner_text()
    for name in ("model_obj.zip", "model_gltf.zip", "model.ply", "model.stl", "model.3mf", "model.usdz", "report.html"):
        assert name.split(".")[0] in listed

    # The run uses the corrected elevation.
    config = max(web_server[1].glob("*/run/config.yaml"), key=lambda p: p.stat().st_mtime).read_text()
    assert "default_elevation_deg: 5.0" in config

    # After a reload the browser still shows its run.
    page.reload()
    page.wait_for_selector("#run")
    sync_api.expect(page.locator("#table")).to_contain_text("finished")


def test_the_next_run_waits_for_a_cancelled_one(page, web_server):
    upload_sample(page)
    page.locator("#quality label", has_text="endless").click()
    page.locator("#run").click()
    wait_for_words(page, "step [1-9]")
    page.locator("#run").click()
    wait_for_words(page, "Waiting")
    page.locator("#cancel button, button#cancel").first.click()
    wait_for_words(page, "Cancelled")
    # The one that runs is chosen from the history and cancelled as well.
    page.locator("#history input").click()
    page.get_by_role("option", name=re.compile("running")).click()
    wait_for_words(page, "step [1-9]")
    page.locator("#cancel button, button#cancel").first.click()
    wait_for_words(page, "Cancelled at step")
    sync_api.expect(page.locator("#table td", has_text="cancelled")).to_have_count(2)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("page.png", b"<html><script>document.title = 'taken'</script></html>", "'page.png' is not an image"),
        ("empty.jpg", b"", "empty"),
    ],
)
def test_a_hostile_file_gets_one_sentence(page, tmp_path, name, content, sentence):
    upload_sample(page)
    page.locator("#photo button[aria-label='Clear'], #photo button[aria-label='Remove this file']").first.click()
    (tmp_path / name).write_bytes(content)
    upload(page, tmp_path / name)
    sync_api.expect(page.get_by_text(re.compile(sentence)).first).to_be_visible()
    # The toast comes before the page's own answer, in which the image before it goes.
    sync_api.expect(page.locator("#steps img")).to_have_count(0)
    assert page.title().startswith("zero123s")


def test_the_brush_takes_part_of_the_object_away(page):
    upload_sample(page)
    before = source(page, "#steps")
    page.get_by_text("Mask brush").click()
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1500)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"], steps=12)
    page.mouse.up()
    page.wait_for_timeout(500)
    screenshot(page, "web_brush")
    page.get_by_role("button", name="Apply corrections").click()
    page.wait_for_function("before => document.querySelector('#steps img')?.src !== before", arg=before)


def test_the_page_asks_no_other_server(browser, web_server):
    page = browser.new_page()
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(web_server[0])
    page.wait_for_selector("#run")
    page.wait_for_timeout(2000)
    foreign = [url for url in requested if not url.startswith((web_server[0], "data:", "blob:"))]
    page.close()
    assert not foreign
