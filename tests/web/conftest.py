"""A run that takes no guidance and seconds only, as an operator of a web server would set it up."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
TINY = {
    "system.loss.lambda_sds": 0,
    "data.height": 32,
    "data.width": 32,
    "data.resolution_milestones": [],
    "data.random_camera.eval_height": 64,
    "data.random_camera.eval_width": 64,
    "data.random_camera.n_test_views": 4,
    "system.geometry.pos_encoding_config.n_levels": 4,
    "system.geometry.pos_encoding_config.log2_hashmap_size": 12,
    "system.renderer.num_samples_per_ray": 64,
    "system.exporter.isosurface_resolution": 40,
    "system.exporter.max_faces": 800,
    "system.exporter.texture_size": 128,
    "system.exporter.photo_views": 1,
}


@pytest.fixture(scope="session")
def qualities(tmp_path_factory) -> Path:
    """Two qualities: one of 30 short steps, one that would never end."""
    path = tmp_path_factory.mktemp("qualities") / "qualities.yaml"
    quick = {"steps": 0.25, "about": "for a look", "overrides": TINY}
    if os.environ.get("ZERO123S_SCREENSHOTS"):  # images for the docs shall show more than a blob
        finer = {"data.height": 64, "data.width": 64, "data.random_camera.eval_height": 128}
        finer |= {"data.random_camera.eval_width": 128, "system.exporter.isosurface_resolution": 96}
        finer |= {"system.geometry.pos_encoding_config.n_levels": 8, "system.exporter.texture_size": 512}
        quick |= {"steps": 1.25, "overrides": TINY | finer}
    endless = {"steps": 100, "about": "all night", "overrides": TINY}
    path.write_text(yaml.safe_dump({"quick": quick, "endless": endless}, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def _processes_find_this_package():
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *([before] if before else [])])
    yield
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def server_words() -> list[str]:
    """Further words on the command line of `web_server`; a module may have its own."""
    return []


@pytest.fixture(scope="module")
def web_server(qualities, tmp_path_factory, server_words):
    """`zero123s web` as an operator starts it: its address and its folder."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[web]'")
    out = tmp_path_factory.mktemp("web")
    command = [sys.executable, "-m", "zero123s", "web", "--port", "0", "--out", str(out), "--qualities", str(qualities)]
    command += ["--profile", "cpu", "--max-megabytes", "2", "--max-megapixels", "4"]
    command += server_words
    with open(out / "server.log", "w+", encoding="utf-8") as log:
        # A shell that runs the tests in its background hands Ctrl-C down as ignored.
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, preexec_fn=heard)  # noqa: PLW1509
        try:
            yield wait_for_address(process, out / "server.log"), out
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def wait_for_address(process: subprocess.Popen, log: Path) -> str:
    """Return the address that a server prints."""
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8")):
            return found.group()
        time.sleep(0.1)
    raise AssertionError(f"no server:\n{log.read_text(encoding='utf-8')}")


def chromium() -> str:
    """Return the path of a Chromium on this machine, empty for none; CHROMIUM names another."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), "")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that draws WebGL without a GPU."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    program = chromium()
    if not program:
        pytest.skip("there is no Chromium here: apt-get install chromium, or set CHROMIUM to its path")
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()
