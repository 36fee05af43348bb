"""`zero123s download` against a hub on this machine."""

import hashlib
import http.server
import io
import threading
from collections import namedtuple

import pytest
import torch

from zero123s.commands import download as command_download
from zero123s.commands.download import download, main
from zero123s.errors import CheckpointError

CONTENT = bytes(range(256)) * 4000


def small_checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.rand(300, 300)}}, buffer)
    return buffer.getvalue()


CHECKPOINT = small_checkpoint()


class Hub(http.server.BaseHTTPRequestHandler):
    """What huggingface_hub requests: HEAD and ranged GET of a resolved file, and the gate."""

    gated = False
    cut = 0
    """After how many bytes the connection of a first request breaks; 0 = never."""
    etag = hashlib.sha256(CONTENT).hexdigest()
    ranges: list[str] = []  # noqa: RUF012

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        if Hub.gated and self.headers.get("Authorization") != "Bearer good":
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = CHECKPOINT if self.path == "/assets/zero123-xl.ckpt" else CONTENT
        start = 0
        if body and self.headers.get("Range"):
            Hub.ranges.append(self.headers["Range"])
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{Hub.etag}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            self.wfile.write(content[start:] if start or not Hub.cut else content[: Hub.cut])
            Hub.cut = 0
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Hub, "gated", False)
    monkeypatch.setattr(Hub, "etag", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(Hub, "ranges", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_download_arrives_whole_and_prints_its_licence(hub, tmp_path, capsys):
    assert main(["stable-zero123", "--to", str(tmp_path), "--endpoint", hub]) == 0
    assert (tmp_path / "stable_zero123.ckpt").read_bytes() == CONTENT
    assert "Non-Commercial" in capsys.readouterr().out


def test_download_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    # The client keeps whole blocks only; its own are larger than this test's file.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    monkeypatch.setattr(Hub, "cut", 550_000)
    assert download("zero123", tmp_path, endpoint=hub).read_bytes() == CONTENT
    assert any(text.startswith("bytes=500000-") for text in Hub.ranges), Hub.ranges


def test_gated_licence_is_explained(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "gated", True)
    with pytest.raises(CheckpointError, match="must be accepted first"):
        download("stable-zero123", tmp_path, token="bad", endpoint=hub)
    assert download("stable-zero123", tmp_path / "a", token="good", endpoint=hub).exists()
    monkeypatch.setenv("HF_TOKEN", "good")
    assert download("stable-zero123", tmp_path / "b", endpoint=hub).exists()


def test_damaged_file_is_deleted(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "etag", "0" * 64)
    with pytest.raises(CheckpointError, match="arrived damaged"):
        download("stable-zero123", tmp_path, endpoint=hub)
    assert not (tmp_path / "stable_zero123.ckpt").exists()


def test_small_disk_is_detected_first(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(command_download.shutil, "disk_usage", lambda path: usage(10, 5, 5))
    with pytest.raises(CheckpointError, match=r"0\.00 GB free"):
        download("stable-zero123", tmp_path, endpoint=hub)
    assert not (tmp_path / "stable_zero123.ckpt").exists()


def test_hub_out_of_reach_is_explained(tmp_path, capsys):
    assert main(["zero123-xl", "--to", str(tmp_path), "--endpoint", "http://127.0.0.1:9"]) == 2
    assert "The server cannot be reached" in capsys.readouterr().err
    assert main(["stable-zero123", "--to", str(tmp_path), "--endpoint", "http://127.0.0.1:9"]) == 2
    assert "The server cannot be reached" in capsys.readouterr().err


def test_a_missing_hub_file_is_retried_later(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "cut", 200_000)
    with pytest.raises(CheckpointError, match="what is here is kept"):
        download("zero123-xl", tmp_path, endpoint=hub)
    assert not (tmp_path / "zero123-xl.ckpt").exists()
    assert download("zero123-xl", tmp_path, endpoint=hub).read_bytes() == CHECKPOINT
    assert Hub.ranges == ["bytes=200000-"]


def test_file_that_is_no_checkpoint_is_deleted(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "CHECKPOINT", CHECKPOINT[:-100])
    with pytest.raises(CheckpointError, match="arrived damaged"):
        download("zero123-xl", tmp_path, endpoint=hub)
    assert not list(tmp_path.glob("*.ckpt"))
