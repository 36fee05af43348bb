"""Serves the page of `zero123s web`: gradio's application in a uvicorn server of our own.

gradio's `launch` gives up, or tries another port, where the server is not up within 5 seconds, and refuses to start
where a first request takes longer than 3 or where a proxy is set for 127.0.0.1: a busy machine is enough for that.
"""

import logging
import secrets
import socket
import threading

from PIL import Image

from zero123s.errors import ConfigError, MissingDependencyError
from zero123s.web.page import CSS, FONTS, build_page
from zero123s.web.service import Service

try:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from gradio.networking import setup_tunnel
except ImportError as missing:
    raise MissingDependencyError(
        "The page is made with gradio and served with uvicorn, which comes with it: pip install -e '.[web]'."
    ) from missing

SECONDS_TO_ANSWER = 1
"""For requests that are being answered when the server is interrupted."""

SECONDS_TO_END = 20
"""For all of the server's ending: 2 are usual, a busy machine takes longer."""


def serve(
    service: Service, host: str, port: int, users: list[tuple[str, str]] | None = None, share: bool = False
) -> None:
    """Open the page and serve it until interrupted.

    Args:
        service: what the page's controls do.
        host: address to listen at.
        port: 0 for any that is free.
        users: names and passwords of who may come in; None: everybody.
        share: also serve at a public address, by gradio's tunnel.

    Raises:
        ConfigError: the address is taken or not this machine's, or the tunnel cannot be opened.
    """
    listening = listen(host, port)  # closed by uvicorn, whose thread may outlive this function
    port = listening.getsockname()[1]
    addresses = [f"http://{printed_host(host)}:{port}/"]
    if share:
        addresses.append(open_tunnel(port))
    config = uvicorn.Config(
        application(service, users, share), log_level="warning", timeout_graceful_shutdown=SECONDS_TO_ANSWER
    )
    server = uvicorn.Server(config)
    ended = threading.Event()

    def run() -> None:
        try:
            server.run([listening])
        finally:
            ended.set()

    # In a thread, so that Ctrl-C reaches this one and does not wait for a browser that keeps a connection. And an event,
    # because Python before 3.13 takes a thread for ended once Ctrl-C has interrupted its `join`.
    threading.Thread(target=run, daemon=True).start()
    try:
        print("\n".join([*addresses, "Press Ctrl-C to stop."]), flush=True)  # requests wait until it is up
        ended.wait()
    finally:
        logging.getLogger("uvicorn.error").disabled = True  # of requests that it cuts off
        server.should_exit = True
        ended.wait(SECONDS_TO_END)
    raise RuntimeError("The server ended by itself; what it printed above says why.")


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens at the address; raises ConfigError where that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"The page cannot be opened at {host}:{port}: {error}") from error


def printed_host(host: str) -> str:
    """Return the address to type into this machine's browser."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def application(service: Service, users: list[tuple[str, str]] | None, share: bool) -> FastAPI:
    """Return the page as an application for a server.

    Args:
        service: what the page's controls do.
        users: names and passwords of who may come in; None: everybody.
        share: it has a public address as well.
    """
    # Pillow refuses above twice this: what the mask editor sends is decoded by gradio itself.
    Image.MAX_IMAGE_PIXELS = int(5e5 * service.settings.limits.megapixels)
    page = build_page(service)
    page.share = share
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        auth=users,
        max_file_size=int(1e6 * service.settings.limits.megabytes),
        theme=gr.themes.Soft(font=FONTS, font_mono=["monospace"]),  # pyright: ignore[reportPrivateImportUsage]
        css=CSS,
        ssr_mode=False,
        footer_links=[],
    )
    # Only where `launch` opened a page does gradio check that a file was uploaded; otherwise it would read any path of
    # this machine for a visitor.
    page.has_launched = True
    return app


def open_tunnel(port: int) -> str:
    """Return a public address that leads to a port of this machine; raises ConfigError where gradio gives none."""
    try:
        url = setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # whatever gradio's downloads and its program come to
        raise ConfigError(f"--share: gradio's tunnel cannot be opened: {error}") from error
    return url.replace("http://", "https://", 1)
