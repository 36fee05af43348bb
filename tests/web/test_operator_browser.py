"""A page with a login and with images generated from prompts, in a real browser."""

import pytest
from serving import serving
from tiny_sdxl import save_tiny_sdxl

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

pytestmark = pytest.mark.end_to_end
MINUTES = 60_000
"""Milliseconds."""


@pytest.fixture(scope="module")
def web_server(qualities, tmp_path_factory):
    """A server with an operator's choices: who may come in, and what draws."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[web]'")
    folder = tmp_path_factory.mktemp("operator")
    (folder / "users.txt").write_text("ann:pear\nben:plum\n", encoding="utf-8")
    drawing = [f"data.text_to_image.{word}" for word in ("steps=2", "candidates=2", "height=64", "width=64")]
    words = ["--users", str(folder / "users.txt"), "--draw-with", str(save_tiny_sdxl(folder)), *drawing]
    with serving(tmp_path_factory.mktemp("web"), qualities, words) as server:
        yield server


@pytest.fixture
def page(browser, web_server):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(MINUTES / 2)
    page.goto(web_server[0])
    yield page
    context.close()


def log_in(page, name: str, password: str) -> None:
    page.get_by_label("username").fill(name)
    page.get_by_label("password").fill(password)
    page.get_by_role("button", name="Login").click()


def test_the_page_requires_a_password(page, web_server):
    page.get_by_label("username").wait_for()
    assert page.locator("#run").count() == 0
    log_in(page, "ann", "plum")
    page.get_by_text("Incorrect").first.wait_for()
    assert page.locator("#run").count() == 0
    assert page.request.get(f"{web_server[0]}/config").status == 401


def test_a_sentence_is_drawn_and_becomes_the_image(page, web_server):
    log_in(page, "ben", "plum")
    page.wait_for_selector("#run")
    page.locator("#prompt textarea, #prompt input").first.fill("a round duck")
    page.get_by_role("button", name="Draw").click()
    # A pipeline of random weights draws noise: it becomes the image, and the page describes the cut-out.
    sync_api.expect(page.locator("#photo")).to_contain_text("drawn", timeout=3 * MINUTES)
    sync_api.expect(page.locator("#found")).not_to_be_empty(timeout=MINUTES)
    assert len(list(web_server[1].glob("*/drawn.png"))) == 1
