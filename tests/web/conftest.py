"""A run that takes no guidance and seconds only, as an operator of a web server would set it up."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from serving import serving

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


@pytest.fixture(scope="session")
def web_server(qualities, tmp_path_factory):
    """`zero123s web` as an operator starts it, one for all modules that need no other: its address and its folder."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[web]'")
    with serving(tmp_path_factory.mktemp("web"), qualities) as server:
        yield server


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
