# SPDX-License-Identifier: Apache-2.0
"""Attacks on the server as a process; the long form also under ``python -O``, where an ``assert`` checks nothing.

After each the server must still answer.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest
from attrs import frozen

pytest.importorskip("tramontane_loader_demo", reason="serves the demo model")
KEY = {"Authorization": "Bearer one"}


@frozen
class Server:
    url: str
    process: psutil.Process
    client: httpx.Client
    """One for all: each would read the system's certificates anew."""

    def raw(self, sent: bytes, *, seconds: float = 30.0) -> bytes:
        """Send bytes as they are; what comes back until the other side closes or the time is up."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=seconds) as connection:
            connection.sendall(sent)
            found = b""
            try:
                while piece := connection.recv(65536):
                    found += piece
                    if b"\r\n\r\n" in found and b"}" in found:
                        break
            except TimeoutError:
                pass
            return found

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json={"model": "demo", **body}, headers=KEY)


@pytest.fixture(
    scope="module", params=[(), pytest.param(("-O",), marks=pytest.mark.full)], ids=["plain", "optimized"]
)  # fmt: skip
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("one\ntwo\n")
    state = tmp_path_factory.mktemp("state")
    command = [sys.executable, *request.param, "-m", "tramontane", "serve", "-m", "demo", "--port", "0"]
    command += ["--api-key-file", str(keys), "--separate-keys", "--state-dir", str(state), "--max-body", "200000"]
    command += ["--header-timeout", "1.5", "--body-timeout", "1.5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(iter(process.stderr.readline, "")), daemon=True).start()  # type: ignore[union-attr]
    until = time.monotonic() + 150
    while not (found := re.search(r"at (http://\S+)", "".join(said))):
        if time.monotonic() > until or process.poll() is not None:
            raise AssertionError("".join(said))
        time.sleep(0.05)
    with httpx.Client(base_url=found[1], timeout=120, verify=False, trust_env=False) as client:
        yield Server(found[1], psutil.Process(process.pid), client)
    process.kill()
    process.wait(30)


@pytest.fixture(autouse=True)
def goes_on(attacked: Server) -> Iterator[None]:
    yield
    assert attacked.client.get("/health").status_code == 200, "the server goes on"


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-5", "1" + "0" * 400, "1" * 5000, '"1"', "[]", "true"]


@pytest.mark.parametrize("field", ["temperature", "top_k", "seed", "max_tokens", "n", "min_p", "logprobs"])
def test_numbers_that_are_none(attacked: Server, field: str) -> None:
    for number in NUMBERS:
        if (field, number) == ("seed", "-5"):
            continue  # OpenAI's seeds may be negative
        messages = b'[{"role": "user", "content": "a"}]'
        numbers = b'"%s": %s' % (field.encode(), number.encode())
        content = b'{"model": "demo", "prompt": "a", "messages": %s, %s}' % (messages, numbers)
        for path in ("/v1/completions", "/v1/messages"):
            answer = attacked.client.post(path, content=content, headers=KEY)
            assert answer.status_code == 400, (path, field, number, answer.text)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[]", 400), (b'"x"', 400), (b'{"prompt": "a", "prompt": "b"}', 400), (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "\xff"}', 400), (b"[" * 100_000, 400), (b"x" * 300_000, 413), (b"", 400),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_bodies_that_are_none(attacked: Server, path: str, content: bytes, status: int) -> None:
    answer = attacked.client.post(path, content=content, headers=KEY)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_compressed_body_is_not_unpacked(attacked: Server) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    headers = {**KEY, "Content-Encoding": "gzip"}
    answer = attacked.client.post("/v1/completions", content=bomb, headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize("salt", ["a/b", "a\0b", "x" * 1_00_000, "..\\x", ""])
def test_names_that_clients_make_up(attacked: Server, salt: str) -> None:
    assert attacked.post("/v1/completions", prompt="a", cache_salt=salt).status_code == 400


URLS = ["http://127.0.0.1:1/x.png", "http://169.254.169.254/", "file:///etc/passwd", "http://2130706433/", "ftp://x/"]


@pytest.mark.parametrize("url", URLS)
def test_no_url_is_fetched(attacked: Server, url: str) -> None:
    image = [{"type": "image_url", "image_url": {"url": url}}]
    document = [{"type": "document", "source": {"type": "url", "url": url}}]
    for path, content in (("/v1/chat/completions", image), ("/v1/messages", document)):
        answer = attacked.post(path, messages=[{"role": "user", "content": content}], max_tokens=1)
        assert answer.status_code == 400
        assert "this model takes text" in answer.text or "fetches nothing" in answer.text


def test_errors_tell_nothing_of_the_inside(attacked: Server) -> None:
    for path in ("/v1/nothing", "/v1/messages/nothing", "/nothing", "/v1/responses/x", "/v1/files/../../etc/passwd"):
        for method in ("GET", "POST", "DELETE", "PUT"):
            answer = attacked.client.request(method, path, headers=KEY)
            assert 400 <= answer.status_code < 500, (method, path)
            assert not re.search(r"0x[0-9a-f]{6}|Traceback|site-packages|/home|/root|\.py", answer.text)


OPEN = [b"/v1/models", b"//v1/models", b"/v1%2fmodels", b"/v1/./models", b"/metrics", b"/docs", b"/openapi.json", b"/"]
PAGE = b"/"
"""The chat page, which asks for the key itself: it can be read, and nothing else."""


@pytest.mark.parametrize("path", OPEN)
def test_no_spelling_of_a_path_needs_no_key(attacked: Server, path: bytes) -> None:
    host = attacked.url.removeprefix("http://").encode()
    for target in (path, b"http://" + host + path):
        for method in (b"GET", b"POST", b"OPTIONS", b"DELETE")[path == PAGE :]:
            sent = b"%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (
                method,
                target,
                host,
            )
            assert b" 401 " in attacked.raw(sent).split(b"\r\n")[0], (method, target)
    upgrade = b"GET /v1/models HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" % host
    assert b" 401 " in attacked.raw(upgrade).split(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/messages", "/health", "/docs"])
def test_foreign_names_and_pages_are_refused(attacked: Server, path: str) -> None:
    assert attacked.client.get(path, headers={**KEY, "Host": "evil.com"}).status_code == 403
    assert attacked.client.get(path, headers={**KEY, "Origin": "http://evil.com"}).status_code == 403


AMBIGUOUS = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and pieces": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "negative length": b"Content-Length: -2\r\n\r\n{}",
    "space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "folded line": b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "zero byte": b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "two hosts": b"Host: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("ending", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_heads_that_a_proxy_may_read_otherwise_are_refused(attacked: Server, ending: bytes) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer one\r\n"
    assert b" 400 " in attacked.raw(head + ending).split(b"\r\n")[0]


def test_it_listens_on_its_one_port_alone(attacked: Server) -> None:
    family = [attacked.process, *attacked.process.children(recursive=True)]
    bound = {c.laddr for one in family for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {(where.ip, f"http://{where.ip}:{where.port}") for where in bound} == {("127.0.0.1", attacked.url)}


def test_forms_with_too_many_parts_and_ranges_with_too_many_pieces(attacked: Server) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    headers = {**KEY, "Content-Type": "multipart/form-data; boundary=x"}
    for content in (part * 3000 + b"--x--\r\n", b"y" * 150_000, b"--x\r\n" + b"A: b\r\n" * 10_000):
        answer = attacked.client.post("/v1/files", content=content, headers=headers)
        assert answer.status_code == 400, answer.text
    evil = {**KEY, "Content-Type": "multipart/form-data; boundary=" + "x" * 10_000}
    assert attacked.client.post("/v1/files", content=b"", headers=evil).status_code == 400
    ranges = {**KEY, "Range": "bytes=" + ",".join(f"{n}-{n}" for n in range(5_000))}
    assert attacked.client.get("/docs", headers=ranges).status_code == 200


def test_keys_see_only_their_own(attacked: Server) -> None:
    other = {"x-api-key": "two"}
    made = attacked.client.post(
        "/v1/files",
        headers=KEY,
        files={"file": ("a.txt", b"x")},
        data={"purpose": "user_data"},
    ).json()
    assert attacked.client.get(f"/v1/files/{made['id']}", headers=KEY).status_code == 200
    assert attacked.client.get(f"/v1/files/{made['id']}", headers=other).status_code == 404
    prompt = "Once upon a time there was a little girl who had a very long story to tell to all of her friends. " * 2

    def cached(key: dict[str, str]) -> int:
        body = {"model": "demo", "prompt": prompt, "max_tokens": 1}
        answer = attacked.client.post("/v1/completions", json=body, headers=key).json()
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    cached(KEY)
    assert cached(KEY) > 0, "a key finds its own beginning again"
    assert cached(other) == 0, "another's time tells nothing of it"


def test_nobody_administers_models_without_a_key_or_by_paths(attacked: Server) -> None:
    for path in ("/v1/models/load", "/v1/models/unload", "/v1/models/requantize", "/re_isq", "/plugins", "/metrics"):
        assert attacked.client.post(path, json={"model": "demo"}).status_code == 401
    for path in ("/v1/models/load", "/v1/models/unload", "/v1/models/requantize"):
        answer = attacked.post(path, model="/etc/passwd", model_id="/etc/passwd")
        assert 400 <= answer.status_code < 500
        assert "root:" not in answer.text
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/models/tune"):
        answer = attacked.post(path, lora_path="/etc/passwd", lora_name="x", model_id="demo")
        assert answer.status_code in (403, 404, 405)
        assert "root:" not in answer.text


def test_heads_and_bodies_that_never_end_are_closed(attacked: Server) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer one\r\n"
    for sent, answer in ((head, b""), (head + b"Content-Length: 100\r\n\r\n{", b" 408 ")):
        begun = time.monotonic()
        assert answer in attacked.raw(sent, seconds=60).split(b"\r\n")[0]
        assert 1 < time.monotonic() - begun < 40


@pytest.mark.parametrize("ending", [b"\r\nX: y", b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"Cookie: "])
def test_heads_without_bounds_are_not_kept(attacked: Server, ending: bytes) -> None:
    """Neither as one long line nor as many, nor behind a body in pieces."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n" + ending
    host, port = attacked.url.removeprefix("http://").split(":")
    before = attacked.process.memory_info().rss
    with socket.create_connection((host, int(port)), timeout=30) as connection, suppress(OSError):
        connection.sendall(head)
        for _ in range(2000):
            connection.sendall(b"\r\nX: y" * 3000 if ending.startswith(b"\r\n") else b"y" * 20_000)
        raise AssertionError("it took 40 MB of a head")
    assert attacked.process.memory_info().rss < before + 20 * 2**20


def test_the_page_of_the_api_runs_nothing(attacked: Server) -> None:
    page = attacked.client.get("/docs", headers=KEY)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert not re.search(r'(src|href)="?https?:', page.text)
    document = attacked.client.get("/openapi.json", headers=KEY).json()
    assert json.dumps(document["security"]) == '[{"key": []}]'
    assert {"/v1/messages", "/v1/responses", "/v1/files/{id}/content", "/health"} <= document["paths"].keys()
