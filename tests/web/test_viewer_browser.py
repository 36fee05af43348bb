"""The live viewer in a real browser: it shows the field, follows the camera, and training does not mind who leaves."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("viser", reason="viser is not installed: pip install -e '.[viewer]'")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
TINY = [
    "system.loss.lambda_sds=0",
    "data.height=32",
    "data.width=32",
    "data.resolution_milestones=[]",
    "trainer.val_check_interval=0",
    "trainer.max_steps=100000",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_n_train_steps=100000",
    "threads=1",
]


@pytest.fixture(scope="module")
def watched(browser, tmp_path_factory):
    """A run with `--viewer`: its process, address, and what it has said so far."""
    out = tmp_path_factory.mktemp("viewer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "launch.py"), "--config", "configs/stable-zero123.yaml", "--train"]
    command += ["--profile", "cpu", "--viewer", "--viewer-port", str(port), *TINY, f"exp_root_dir={out}"]
    with open(out / "log.txt", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
        try:
            address, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
            while f"viewer: {address}" not in (out / "log.txt").read_text(encoding="utf-8"):
                assert process.poll() is None, (out / "log.txt").read_text(encoding="utf-8")
                assert time.monotonic() < end, (out / "log.txt").read_text(encoding="utf-8")
                time.sleep(0.2)
            yield process, address, out / "log.txt"
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(120)


def open_page(browser, address):
    page = browser.new_page(viewport={"width": 960, "height": 640})
    page.set_default_timeout(60_000)
    page.goto(address)
    page.get_by_text(re.compile(r"step [1-9]\d* of 100000")).first.wait_for()
    wait_for_image(page, lambda image: image.std(axis=(0, 1)).max() > 5, "the canvas is blank", 60)
    return page


def pixels(page) -> np.ndarray:
    """Return the middle of the page, where the object is, away from the controls."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return np.asarray(shot.crop((100, 60, 640, 600)), float)


def wait_for_image(page, is_right: Callable[[np.ndarray], bool], otherwise: str, seconds: float = 10) -> np.ndarray:
    """Wait until the page shows what is expected; return its pixels."""
    end = time.monotonic() + seconds
    while not is_right(image := pixels(page)):
        assert time.monotonic() < end, otherwise
        page.wait_for_timeout(100)
    return image


def settled_image(page) -> np.ndarray:
    """Return the image once it is rendered in full: what changes then is no more than what training changes."""
    last, end = pixels(page), time.monotonic() + 30
    while True:
        page.wait_for_timeout(700)
        image = pixels(page)
        change = np.abs(image - last).mean()
        if change < 0.5:
            return image
        assert time.monotonic() < end, f"the image still changes by {change:.1f}"
        last = image


def wait_for_later_step(page, before: int) -> None:
    """Wait until training is further than the step `before`."""
    end = time.monotonic() + 60
    while step_of(page) <= before:
        assert time.monotonic() < end, "training does not go on"
        page.wait_for_timeout(100)


def step_of(page) -> int:
    found = re.search(r"step (\d+) of", page.locator("body").inner_text())
    assert found, "the page shows no step"
    return int(found.group(1))


def drag(page) -> None:
    page.mouse.move(380, 320)
    page.mouse.down()
    page.mouse.move(520, 330, steps=10)
    page.mouse.up()


def test_the_page_follows_the_camera(browser, watched):
    page = open_page(browser, watched[1])
    first = settled_image(page)
    if os.environ.get("ZERO123S_SCREENSHOTS"):
        close = page.locator(".mantine-Notification-closeButton")
        if close.count():
            close.first.click()  # that this machine has no GPU
        page.wait_for_timeout(15_000)  # for more than a blob
        page.screenshot(path="docs/images/viewer.png")
    before = step_of(page)
    drag(page)
    wait_for_image(page, lambda image: np.abs(image - first).mean() > 2, "the image does not follow the camera")
    wait_for_later_step(page, before)
    page.close()


def test_a_control_changes_what_is_shown(browser, watched):
    page = open_page(browser, watched[1])
    colour = settled_image(page)
    page.locator("input[value='colour']:visible").first.click()
    page.get_by_role("option", name="opacity").click()
    wait_for_image(page, lambda image: np.abs(image - colour).mean() > 5, "the image is as before")
    # Opacity is grey: white where the object is, black where nothing is.
    wait_for_image(page, lambda image: bool(np.median(np.ptp(image.reshape(-1, 3), axis=1)) < 8), "opacity is not grey")
    page.close()


def test_the_random_cameras_of_the_step_are_shown(browser, watched):
    page = open_page(browser, watched[1])
    # Their outlines are blue, and nothing else is.
    bluish = lambda image: int((image[..., 2] - image[..., 0] > 60).sum())  # noqa: E731
    assert bluish(settled_image(page)) == 0
    page.mouse.move(380, 320)
    page.mouse.wheel(0, 1500)  # back, to see what stands around the object
    page.get_by_text("Random cameras").click()
    wait_for_image(page, lambda image: bluish(image) > 20, "no outline of a camera is shown")
    page.close()


def test_training_outlives_the_browser_and_ends_on_request(browser, watched):
    process, address, log = watched
    for _ in range(2):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_timeout(500)
        page.close()  # in the middle of the first image
    page = open_page(browser, address)
    wait_for_later_step(page, step_of(page))
    page.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    printed = log.read_text(encoding="utf-8")
    assert "Traceback" not in printed
    assert "the viewer is closed" not in printed
