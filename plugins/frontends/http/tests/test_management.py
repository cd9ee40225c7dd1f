# SPDX-License-Identifier: Apache-2.0
"""Several models in one server: listed with their states, loaded, unloaded, requantized; and the plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from tramontane.host import Host
from tramontane_frontend_http import ServerSettings, make_app

pytest.importorskip("tramontane_loader_demo", reason="serves the demo model")
pytest.importorskip("tramontane_frontend_openai", reason="asks the OpenAI frontend")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    made = Host()
    made.add("small", "demo", num_blocks=100)
    made.add("large", "demo", num_blocks=100)
    made.add("broken", "/there/is/no/such/folder")
    made.alias("gpt-4o-mini", "large")
    yield made
    made.close()


@pytest.fixture
def client(host: Host) -> TestClient:
    return TestClient(make_app(host), base_url="http://127.0.0.1", raise_server_exceptions=False)  # type: ignore[arg-type]


def states(client: TestClient) -> dict[str, str]:
    return {one["id"]: one["status"] for one in client.get("/v1/models").json()["data"]}


def post(client: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def completed(client: TestClient, model: str) -> str:
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    text: str = post(client, "/v1/completions", **body)["choices"][0]["text"]
    return text


def test_models_are_loaded_and_unloaded_by_name_and_alias(client: TestClient) -> None:
    assert states(client) == {"small": "configured", "large": "configured", "broken": "configured"}
    health = client.get("/health")
    assert (health.status_code, health.headers["Retry-After"]) == (503, "5")
    assert health.json()["status"] == "not ready"
    loaded = post(client, "/v1/models/load", model="gpt-4o-mini")
    assert (loaded["id"], loaded["status"], loaded["aliases"]) == ("large", "ready", ["gpt-4o-mini"])
    assert loaded["max_model_len"] > 0
    health = client.get("/health")
    assert (health.status_code, "Retry-After" in health.headers) == (200, False)
    assert states(client) == {"small": "configured", "large": "ready", "broken": "configured"}
    assert completed(client, "small") == completed(client, "gpt-4o-mini")
    assert states(client)["small"] == "ready", "a request loads what it names"
    assert post(client, "/v1/models/unload", model_id="large")["status"] == "configured"
    assert post(client, "/v1/models/status", model="large")["status"] == "configured"
    assert post(client, "/v1/models/unload", model="large")["status"] == "configured", "twice is no error"
    assert states(client)["small"] == "ready"
    assert post(client, "/v1/models/reload", model="small")["status"] == "ready"
    assert completed(client, "small") == completed(client, "large")


def test_tokens_are_found_at_the_root_too(client: TestClient) -> None:
    given = {"model": "small", "prompt": "Once upon a time"}
    found = post(client, "/tokenize", **given)
    assert found == post(client, "/v1/tokenize", **given)
    assert post(client, "/detokenize", model="small", tokens=found["tokens"])["prompt"].endswith(given["prompt"])
    assert client.get("/tokenize").json()["error"]["message"] == "GET /tokenize is not part of this API"
    assert client.post("/tokenize/x", json=given).status_code in (404, 405)
    assert {"/tokenize", "/detokenize"} <= client.get("/openapi.json").json()["paths"].keys()


def test_pages_that_are_named_may_call_from_a_browser(host: Host) -> None:
    app = make_app(host, ServerSettings(cors_origins=("http://page.example",), api_keys=("k",)))
    client = TestClient(app, base_url="http://127.0.0.1")  # type: ignore[arg-type]
    asked = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization"}  # fmt: skip
    allowed = client.options("/v1/completions", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "http://page.example")
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    answer = client.get("/v1/models", headers={"Origin": "http://page.example", "x-api-key": "k"})
    assert answer.headers["access-control-allow-origin"] == "http://page.example"
    assert client.options("/v1/completions", headers={**asked, "Origin": "http://evil.com"}).status_code == 403


def test_a_model_that_cannot_be_loaded_says_so_and_harms_no_other(client: TestClient) -> None:
    error = post(client, "/v1/models/load", 500, model="broken")["error"]
    assert error["message"]
    found = post(client, "/v1/models/status", model="broken")
    assert found["status"] == "failed"
    assert completed(client, "small")


def test_weights_change_their_type_while_the_model_runs(client: TestClient) -> None:
    before = completed(client, "small")
    assert post(client, "/v1/models/requantize", model="small", quant="q8_0")["quant"] == "q8_0"
    assert completed(client, "small")
    assert post(client, "/re_isq", ggml_type="Q4_0") == "Re ISQ: 'Q4_0'"
    assert post(client, "/v1/models/requantize", model="small", quant=None)["quant"] is None
    assert completed(client, "small") == before
    error = post(client, "/v1/models/requantize", 400, model="small", quant="q99")["error"]
    assert ("q99" in error["message"], error["param"]) == (True, "quant")


@pytest.mark.parametrize("path", ["load", "unload", "reload", "status"])
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [({}, 400, "model"), ({"model": "a", "model_id": "b"}, 400, "model"), ({"model": 3}, 400, "model"),
     ({"model": "nobody"}, 404, None), ({"model": "/etc"}, 404, None)],
)  # fmt: skip
def test_wrong_requests_are_refused(
    client: TestClient, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    error = post(client, f"/v1/models/{path}", status, **body)["error"]
    assert error["param"] == param


def test_plugins_are_listed_as_the_command_lists_them(client: TestClient, host: Host) -> None:
    found = client.get("/plugins").json()
    assert found == host.plugins.as_json()
    assert "tramontane-frontend-http" in {one["distribution"] for one in found["plugins"]}


def test_every_route_needs_the_key_and_is_described(host: Host) -> None:
    app = make_app(host, ServerSettings(api_keys=("secret",)))
    keyed = TestClient(app, base_url="http://127.0.0.1", headers={"x-api-key": "secret"})  # type: ignore[arg-type]
    described = keyed.get("/openapi.json").json()["paths"]
    assert "/metrics" in described
    silent = make_app(host, ServerSettings(metrics=False))
    unmetered = TestClient(silent, base_url="http://127.0.0.1").get("/openapi.json").json()["paths"]  # type: ignore[arg-type]
    assert described.keys() - unmetered.keys() == {"/metrics"}
    assert described["/v1/files"]["get"]["parameters"][0]["schema"]["maximum"] == 10_000
    keyed.headers.pop("x-api-key")
    for path, method in [(f"/v1/models/{name}", "POST") for name in ("load", "unload", "reload", "requantize")] + [
        ("/re_isq", "POST"), ("/plugins", "GET"),
    ]:  # fmt: skip
        assert method.lower() in described[path]
        assert keyed.request(method, path, json={"model": "small"}).status_code == 401
    assert states(TestClient(make_app(host), base_url="http://127.0.0.1"))["small"] != "failed"  # type: ignore[arg-type]


ADMINS = [("POST", f"/v1/models/{name}") for name in ("load", "unload", "reload", "requantize")] + [
    ("POST", "/re_isq"), ("GET", "/plugins"), ("GET", "/metrics"),
]  # fmt: skip


def test_users_ask_models_and_admins_manage_them(host: Host) -> None:
    settings = ServerSettings(api_keys=("user",), admin_keys=("root",))
    client = TestClient(make_app(host, settings), base_url="http://127.0.0.1")  # type: ignore[arg-type]
    user, admin = {"x-api-key": "user"}, {"Authorization": "Bearer root"}
    for method, path in ADMINS:
        refused = client.request(method, path, headers=user, json={"model": "nobody"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_key_needed")
        assert client.request(method, path, json={}).status_code == 401
        assert client.request(method, path, headers=admin, json={"model": "nobody"}).status_code not in (401, 403)
    for headers in (user, admin):
        assert client.get("/v1/models", headers=headers).status_code == 200
        assert client.post("/v1/models/status", headers=headers, json={"model": "small"}).status_code == 200


def test_admins_alone_leave_the_models_to_everybody(host: Host) -> None:
    client = TestClient(make_app(host, ServerSettings(admin_keys=("root",))), base_url="http://127.0.0.1")  # type: ignore[arg-type]
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/models", headers={"x-api-key": "whatever a client sends"}).status_code == 200
    assert client.get("/plugins").status_code == 403
    assert client.get("/plugins", headers={"x-api-key": "root"}).status_code == 200


def test_traffic_is_counted_by_route_wherever_the_port_is_mounted(host: Host) -> None:
    below = Starlette(routes=[Mount("/llm", make_app(host))])
    client = TestClient(below, base_url="http://127.0.0.1")
    client.get("/llm/health")
    client.get("/llm/nothing")
    counted = client.get("/llm/metrics").text
    assert 'tramontane_http_requests_total{method="GET",route="/health"' in counted
    assert 'tramontane_http_requests_total{method="GET",route="other",status="404"} 1.0' in counted
