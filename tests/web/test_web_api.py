"""The page's API as programs use it, and what it must not give away."""

import io
import re
from pathlib import Path

import pytest
import trimesh

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: pip install -e '.[web]'")
import httpx  # noqa: E402 (comes with gradio)

pytestmark = pytest.mark.end_to_end

SAMPLE = Path("load/images/hamburger_rgba.png")


@pytest.fixture(scope="module")
def client(web_server, tmp_path_factory):
    return gradio_client.Client(web_server[0], verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="module")
def documented(web_server):
    """What the example of docs/web.md leaves in its variables, run against this server."""
    text = Path("docs/web.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict = {}
    exec(example.replace("http://127.0.0.1:7860", web_server[0]), found)
    return found


def test_the_example_of_the_docs_makes_a_mesh(documented):
    assert documented["state"]["state"] == "finished", documented["state"]
    assert {"glb", "obj", "report"} <= set(documented["state"]["files"])
    assert documented["confidence"] == 1.0
    assert 0 < documented["elevation_deg"] < 15
    mesh = trimesh.load(documented["mesh"], force="mesh")
    assert len(mesh.faces) > 100


def test_a_job_is_cancelled(client):
    job = client.predict(gradio_client.handle_file(SAMPLE), 5, quality="endless", api_name="/make")
    assert client.predict(job, api_name="/state")["state"] in ("waiting", "running")
    assert client.predict(job, api_name="/cancel") == "cancelled"
    assert client.predict(job, api_name="/state")["state"] == "cancelled"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.png", b"", "is empty"),
        ("page.png", b"<html><script>alert(1)</script></html>", "not an image"),
        ("notes.txt", b"notes", "not an image"),
    ],
)
def test_hostile_uploads_are_one_sentence(client, tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(gradio_client.exceptions.AppError, match=sentence) as raised:
        client.predict(gradio_client.handle_file(tmp_path / name), api_name="/prepare")
    assert "Traceback" not in str(raised.value)
    assert "served" not in str(raised.value)


def test_too_large_uploads_are_refused_unsaved(web_server):
    address, out = web_server
    files = {"files": ("big.png", io.BytesIO(b"\0" * 3_000_000), "image/png")}
    assert httpx.post(f"{address}/gradio_api/upload", files=files).status_code == 413
    assert not list(out.rglob("big.png"))


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{out}/server.log", "{out}/.lock", "{out}/{job}/job.json", "{out}/served/../server.log"]
)
def test_no_file_of_the_server_is_reachable(web_server, documented, path):
    address, out = web_server
    url = f"{address}/gradio_api/file={path.format(out=out, job=documented['job'])}"
    answer = httpx.get(url)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize("path", ["/etc/passwd", "setup.py", str(SAMPLE.resolve()), "file:///etc/passwd"])
def test_a_path_of_the_server_is_no_upload(web_server, path):
    """What a client can write into a request itself, without uploading anything."""
    address, _ = web_server
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
    event = httpx.post(f"{address}/gradio_api/call/prepare", json={"data": data}).json()["event_id"]
    answer = httpx.get(f"{address}/gradio_api/call/prepare/{event}", timeout=60).text
    assert "event: error" in answer
    assert "event: complete" not in answer


def test_the_api_is_what_the_docs_say(web_server):
    named = httpx.get(f"{web_server[0]}/gradio_api/info").json()["named_endpoints"]
    assert sorted(named) == ["/cancel", "/download", "/make", "/prepare", "/state"]


def test_the_pages_own_functions_take_no_path_either(web_server):
    address, out = web_server
    before = set(out.glob("*/job.json"))
    corrections = ["auto", 0.78, 0, 0, 0, 0, 0, 0, None]
    file = {"path": str(SAMPLE.resolve()), "meta": {"_type": "gradio.FileData"}}
    call = {"data": [file, 5, "auto", "quick", 0, [], *corrections], "session_hash": "abc"}
    functions = httpx.get(f"{address}/config").json()["dependencies"]
    (call["fn_index"],) = (f["id"] for f in functions if f["api_name"] == "page_run")
    assert httpx.post(f"{address}/gradio_api/queue/join", json=call).status_code == 200
    events = []
    with httpx.stream("GET", f"{address}/gradio_api/queue/data?session_hash=abc", timeout=60) as stream:
        for line in stream.iter_lines():
            events.append(line)
            if "process_completed" in line:
                break
    assert '"success":false' in events[-1]
    assert set(out.glob("*/job.json")) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"quality": "best"}, "(?i)quality|choices"),
        ({"model": "/etc/passwd"}, "(?i)model|choices"),
        ({"elevation": 1e9}, "none; give -90 to 90"),
    ],
)
def test_choices_outside_the_offer_are_refused(client, web_server, arguments, sentence):
    before = len(list(web_server[1].glob("*/job.json")))
    given = {"elevation": 5, "quality": "quick", **arguments}
    with pytest.raises((gradio_client.exceptions.AppError, ValueError), match=sentence):
        client.predict(gradio_client.handle_file(SAMPLE), **given, api_name="/make")
    assert len(list(web_server[1].glob("*/job.json"))) == before


@pytest.mark.parametrize("job_id", ["", "../../etc", "0" * 16])
def test_unknown_jobs_are_reported(client, job_id):
    with pytest.raises(gradio_client.exceptions.AppError, match="There is no such job"):
        client.predict(job_id, api_name="/state")
    with pytest.raises(gradio_client.exceptions.AppError, match="There is no such job"):
        client.predict(job_id, "../job.json", api_name="/download")


def test_unoffered_files_are_reported(client, documented):
    with pytest.raises(gradio_client.exceptions.AppError, match=r"has no file '\.\./job\.json'"):
        client.predict(documented["job"], "../job.json", api_name="/download")
