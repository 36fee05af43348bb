"""Where `zero123s web` listens, and the sentences of addresses that cannot be opened."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

import pytest

from zero123s.commands.web import main
from zero123s.errors import ConfigError

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[web]'")

from zero123s.web import server


def test_a_taken_port_is_one_sentence(tmp_path, qualities):
    with server.listen("127.0.0.1", 0) as taken:
        words = ["--port", str(taken.getsockname()[1]), "--out", str(tmp_path / "jobs"), "--qualities", str(qualities)]
        with pytest.raises(ConfigError, match=r"cannot be opened at 127\.0\.0\.1:\d+: .*in use"):
            main(words)


def test_the_host_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match=r"cannot be opened at 192\.0\.2\.1:0"):
        server.listen("192.0.2.1", 0)


def test_a_freed_port_can_be_opened_again():
    with server.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with contextlib.closing(socket.create_connection(("127.0.0.1", port))):
            first.accept()[0].close()
    with server.listen("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


@pytest.mark.parametrize(
    ("host", "typed"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("::", "localhost"), ("::1", "[::1]")]
)
def test_the_printed_address_can_be_typed(host, typed):
    assert server.printed_host(host) == typed


def test_a_tunnel_that_fails_is_one_sentence(monkeypatch):
    # `gradio.networking` the module, not the attribute that gradio's package may put in its place.
    monkeypatch.setattr(sys.modules["gradio.networking"], "GRADIO_API_SERVER", "http://127.0.0.1:9/")
    with pytest.raises(ConfigError, match=r"--share: gradio's tunnel cannot be opened"):
        server.open_tunnel(1)


@pytest.fixture
def ctrl_c():
    """Let an interrupt be heard, which a shell that runs the tests in its background hands down as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.timeout(60)
def test_ctrl_c_waits_for_a_busy_server(monkeypatch, capfd, ctrl_c):
    async def keep_the_loop_busy(scope, receive, send):
        if scope["type"] == "http":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(4)

    listening = server.listen("127.0.0.1", 0)
    monkeypatch.setattr(server, "listen", lambda *_: listening)
    monkeypatch.setattr(server, "application", lambda *_: keep_the_loop_busy)
    with socket.create_connection(listening.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(KeyboardInterrupt):
            server.serve(None, "127.0.0.1", 0)
    assert listening.fileno() == -1  # closed by the server at its end
    assert capfd.readouterr().err == ""
