# SPDX-License-Identifier: Apache-2.0
"""The gate: keys, host names, origins, limits, drain. The frontend behind it is one that echoes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tramontane.errors import ConfigError
from tramontane_frontend_http import ServerSettings
from tramontane_frontend_http.gate import Gate
from tramontane_frontend_http.log import AccessLog


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())}")


def client(**settings: Any) -> TestClient:
    routes = [
        Route("/health", echo),
        Route("/page.js", echo),
        Route("/v1/models", echo),
        Route("/v1/x", echo, methods=["POST"]),
    ]
    gate = Gate(Starlette(routes=routes), ServerSettings(**settings), frozenset({"/page.js"}))
    made = TestClient(AccessLog(gate, enabled=False), base_url="http://127.0.0.1:8000")  # type: ignore[arg-type]
    made.gate = gate  # type: ignore[attr-defined]
    return made


PATHS = [
    "/v1/models",
    "//v1/models",
    "/v1%2fmodels",
    "/V1/models",
    "/metrics",
    "/docs",
    "/",
    "/v1/nothing",
    "/health/x",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE"])
def test_every_path_but_health_needs_the_key(path: str, method: str) -> None:
    with client(api_keys=("secret",)) as c:
        assert c.request(method, f"http://127.0.0.1:8000{path}").status_code == 401
        assert c.request(method, path, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert c.request(method, path, headers={"Authorization": "Bearer secret"}).status_code != 401


def test_health_is_open_and_a_key_comes_in_either_header() -> None:
    with client(api_keys=("one", "two")) as c:
        assert c.get("/health").status_code == 200
        assert c.get("/v1/models", headers={"Authorization": "bearer two"}).status_code == 200
        assert c.get("/v1/models", headers={"x-api-key": "one"}).status_code == 200


def test_an_admins_key_opens_what_a_users_does() -> None:
    with client(api_keys=("one",), admin_keys=("root",)) as c:
        assert c.get("/v1/models", headers={"x-api-key": "root"}).status_code == 200
        assert c.get("/v1/models", headers={"x-api-key": "other"}).status_code == 401
    with pytest.raises(ConfigError, match="admin key is among"):
        ServerSettings(api_keys=("one",), admin_keys=("one",))
    with pytest.raises(ConfigError, match="for everybody"):
        ServerSettings(host="0.0.0.0", admin_keys=("one",))


def test_files_of_a_page_need_no_key_and_are_only_read() -> None:
    with client(api_keys=("secret",), requests_per_minute=1) as c:
        assert [c.get("/page.js").status_code for _ in range(3)] == [200] * 3, "a page is not counted either"
        assert c.post("/page.js").status_code == 401
        for path in ("//page.js", "/page.js/", "/Page.js", "/page.js/../v1/models", "/x/page.js"):
            assert c.get(f"http://127.0.0.1:8000{path}").status_code == 401
        assert c.get("/page.js", headers={"Host": "evil.com"}).status_code == 403


@pytest.mark.parametrize("host", ["evil.com", "evil.com:8000", "127.0.0.1.evil.com", "", "[::2]"])
def test_foreign_host_names_are_refused(host: str) -> None:
    with client() as c:
        assert c.get("/v1/models", headers={"Host": host}).status_code == 403
        assert c.get("/health", headers={"Host": host}).status_code == 403


def test_two_host_names_are_one_too_many() -> None:
    with client() as c:
        hosts = [("Host", "localhost"), ("Host", "evil.com")]
        assert c.get("/v1/models", headers=hosts).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:8000", "[::1]:8000"])
def test_loopback_names_are_served(host: str) -> None:
    with client() as c:
        assert c.get("/v1/models", headers={"Host": host}).status_code == 200


def test_web_pages_of_others_may_not_call() -> None:
    with client() as c:
        assert c.get("/v1/models", headers={"Origin": "http://evil.com"}).status_code == 403
        assert c.get("/v1/models", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    with client(cors_origins=("http://page.example",)) as c:
        assert c.get("/v1/models", headers={"Origin": "http://page.example"}).status_code == 200


def test_bodies_are_limited_whether_they_say_their_size_or_not() -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    with client(max_body_bytes=1000) as c:
        assert c.post("/v1/x", content=b"x" * 1000).text == "1000"
        assert c.post("/v1/x", content=b"x" * 1001).status_code == 413
        assert c.post("/v1/x", content=pieces()).status_code == 413
        assert c.get("/v1/models").status_code == 200, "the server goes on"


def test_a_rate_is_kept_per_client_and_says_when_to_come_back() -> None:
    with client(requests_per_minute=3, api_keys=("a", "b")) as c:
        codes = [c.get("/v1/models", headers={"x-api-key": "a"}).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        refused = c.get("/v1/models", headers={"x-api-key": "a"})
        assert 1 <= int(refused.headers["Retry-After"]) <= 21
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert c.get("/v1/models", headers={"x-api-key": "b"}).status_code == 200


def test_too_many_open_requests_and_draining() -> None:
    with client(max_concurrent=2) as c:
        c.gate.open_requests = 2  # type: ignore[attr-defined]
        refused = c.get("/v1/models")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        c.gate.open_requests = 0  # type: ignore[attr-defined]
        c.gate.draining = True  # type: ignore[attr-defined]
        refused = c.get("/v1/models")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert c.get("/health").status_code == 503, "nobody is to be sent here any more"
        assert c.gate.open_requests == 0  # type: ignore[attr-defined]


def test_a_full_queue_takes_nothing_more() -> None:
    with client(max_queue=2) as c:
        c.gate.waiting = lambda: 2  # type: ignore[attr-defined]
        refused = c.post("/v1/x")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["error"]["code"] == "queue_full"
        assert c.get("/v1/models").status_code == 200, "what waits for no model is answered"
        c.gate.waiting = lambda: 1  # type: ignore[attr-defined]
        assert c.post("/v1/x").status_code == 200


def test_request_ids_are_echoed_or_made() -> None:
    with client() as c:
        assert c.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
        assert len(c.get("/health", headers={"x-request-id": "no spaces\tplease"}).headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "without a key"),
        ({"host": "192.168.1.5"}, "without a key"),
        ({"port": 70000}, "port must be"),
        ({"api_keys": ("",)}, "API key is empty"),
        ({"tls_key": "x"}, "both a certificate and a key"),
        ({"max_concurrent": 0}, "max_concurrent must be above 0"),
        ({"max_queue": 0}, "max_queue must be above 0"),
    ],
)
def test_settings_that_cannot_run(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ServerSettings(**settings)


def test_an_open_bind_needs_a_key_or_the_word() -> None:
    assert ServerSettings(host="0.0.0.0", insecure=True).served_hosts is None
    assert ServerSettings(host="0.0.0.0", api_keys=("k",)).served_hosts is None
