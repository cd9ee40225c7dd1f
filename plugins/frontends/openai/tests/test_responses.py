# SPDX-License-Identifier: Apache-2.0
"""``/responses`` over the demo model: made, streamed, stored, continued, cancelled; all held to the specification."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from open_responses import check_events, check_response
from starlette.testclient import TestClient

from tramontane.host import Host
from tramontane_frontend_openai.app import make_app
from tramontane_frontend_openai.store import Store, StoredResponse

pytest.importorskip("tramontane_loader_demo", reason="serves the demo model")

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}assistant:{% endif %}"
ASK = {"input": "Tell me a story.", "temperature": 0, "max_output_tokens": 24}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    made = Host()
    made.add("talker", "demo", num_blocks=200, chat_template=TEMPLATE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "openai.sqlite3"


@pytest.fixture(scope="module")
def client(host: Host, path: Path) -> Iterator[TestClient]:
    with TestClient(make_app(host, Store(path))) as made:
        yield made


def create(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/responses", json={**ASK, **body})
    assert answer.status_code == 200, answer.text
    check_response(answer.json())
    found: dict[str, Any] = answer.json()
    return found


def events(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    *frames, last = [frame for frame in answer.text.split("\n\n") if frame and not frame.startswith(":")]
    assert last == "data: [DONE]"
    found = []
    for one in frames:
        kind, data = one.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {found[-1]['type']}"
    return found


def text(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def test_a_stream_makes_the_response_it_ends_with(client: TestClient) -> None:
    whole = create(client)
    found = events(client.post("/responses", json={**ASK, "stream": True}))
    check_events(found)
    last = found[-1]["response"]
    assert last["status"] == whole["status"] == "incomplete"
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert text(last) == text(whole)
    assert "".join(e["delta"] for e in found if e["type"] == "response.output_text.delta") == text(whole)
    assert last["usage"]["output_tokens"] == 24
    assert client.get(f"/responses/{last['id']}").json() == last, "what was sent is what is stored"


def test_a_response_goes_on_from_the_one_before(client: TestClient) -> None:
    first = create(client, instructions="Be brief.")
    second = create(client, input="Go on.", previous_response_id=first["id"])
    told = [
        {"role": "user", "content": ASK["input"]},
        {"role": "assistant", "content": text(first)},
        {"role": "user", "content": "Go on."},
    ]
    alone = create(client, input=told)
    assert text(second) == text(alone)
    assert second["usage"]["input_tokens"] == alone["usage"]["input_tokens"], "instructions are not inherited"
    counted = client.post("/responses/input_tokens", json={"input": told}).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": alone["usage"]["input_tokens"]}
    referred = create(client, input=[*told[:1], {"type": "item_reference", "id": first["output"][0]["id"]}, told[2]])
    assert text(referred) == text(alone)


def test_input_items_by_pages(client: TestClient) -> None:
    made = create(client, input=[{"role": "user", "content": str(number)} for number in range(5)])
    url = f"/responses/{made['id']}/input_items"
    shown = client.get(url).json()
    assert [item["content"][0]["text"] for item in shown["data"]] == ["4", "3", "2", "1", "0"]
    first = client.get(url, params={"order": "asc", "limit": 2}).json()
    assert (len(first["data"]), first["has_more"], first["last_id"]) == (2, True, first["data"][1]["id"])
    rest = client.get(url, params={"order": "asc", "after": first["last_id"]}).json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["2", "3", "4"]
    assert client.get(url, params={"limit": 0}).status_code == 400
    assert client.get(url, params={"after": "nobody"}).status_code == 400


def test_what_is_not_stored_or_is_deleted_is_gone(client: TestClient) -> None:
    unstored = create(client, store=False)
    assert client.get(f"/responses/{unstored['id']}").status_code == 404
    made = create(client)
    assert client.delete(f"/responses/{made['id']}").json()["deleted"] is True
    assert client.delete(f"/responses/{made['id']}").status_code == 404
    refused = client.post("/responses", json={**ASK, "previous_response_id": made["id"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "previous_response_id")


def finished(client: TestClient, response_id: str) -> dict[str, Any]:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found: dict[str, Any] = client.get(f"/responses/{response_id}").json()
        if found["status"] not in ("queued", "in_progress"):
            return found
        time.sleep(0.02)
    raise AssertionError("it never ended")


def test_in_the_background(client: TestClient) -> None:
    begun = create(client, background=True)
    assert begun["status"] == "queued"
    ended = finished(client, begun["id"])
    check_response(ended)
    assert text(ended) == text(create(client))
    again = events(client.get(f"/responses/{begun['id']}", params={"stream": "true"}))
    check_events(again)
    assert [e["type"] for e in again[:3]] == ["response.created", "response.queued", "response.in_progress"]
    later = events(client.get(f"/responses/{begun['id']}", params={"stream": "true", "starting_after": 4}))
    assert later == again[5:]
    assert client.post(f"/responses/{begun['id']}/cancel").json() == ended, "it had ended"
    plain = create(client)
    assert client.post(f"/responses/{plain['id']}/cancel").status_code == 400
    assert client.get(f"/responses/{plain['id']}", params={"stream": "true"}).status_code == 400


def test_a_cancelled_response_keeps_what_it_said(client: TestClient) -> None:
    begun = create(client, background=True, max_output_tokens=400, ignore_eos=True)
    until = time.monotonic() + 30
    while not client.get(f"/responses/{begun['id']}").json()["output"] and time.monotonic() < until:
        time.sleep(0.01)
    ended = client.post(f"/responses/{begun['id']}/cancel").json()
    check_response(ended)
    assert ended["status"] == "cancelled"
    assert len(text(ended)) > 0
    assert client.get(f"/responses/{begun['id']}").json() == ended


def test_a_response_that_fails_in_the_background_says_so(client: TestClient) -> None:
    begun = create(client, background=True, input="word " * 5000)
    ended = finished(client, begun["id"])
    check_response(ended)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "prompt_too_long")
    assert client.post("/responses", json={**ASK, "input": "word " * 5000}).status_code == 400


def test_a_conversation_that_is_too_long_may_be_truncated(client: TestClient) -> None:
    told = [{"role": "user", "content": "word " * 200} for _ in range(20)]
    assert client.post("/responses", json={**ASK, "input": told}).status_code == 400
    assert create(client, input=told, truncation="auto", ignore_eos=True)["usage"]["output_tokens"] == 24


def test_logprobs_come_when_asked_for(client: TestClient) -> None:
    made = create(client, include=["message.output_text.logprobs"], top_logprobs=2)
    found = made["output"][0]["content"][0]["logprobs"]
    assert len(found) == 24
    assert all(len(one["top_logprobs"]) == 2 for one in found)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
    ({"input": [{"type": "magic"}]}, "input[0].type"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": 3}]}, "input[0].output"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1/x"}]}]},
     "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "file:///etc/passwd"}]}]},
     "input[0].content[0].file_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-x"}]}]},
     "input[0].content[0].file_id"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"conversation": "x"}, "conversation"),
    ({"prompt": {"id": "x"}}, "prompt"),
    ({"background": True, "store": False}, "store"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "poem"}}}, "text.format.type"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"max_output_tokens": 2**40}, "max_output_tokens"),
    ({"temperature": 1e9}, "temperature"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ({"safety_identifier": "a/b"}, "safety_identifier"),
    ({"reasoning": {"effort": "heroic"}}, "reasoning_effort"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), WRONG)
def test_wrong_requests_are_refused_by_name(client: TestClient, body: dict[str, Any], param: str) -> None:
    answer = client.post("/responses", json={**ASK, **body})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


def test_files_there_and_back(client: TestClient) -> None:
    sent = {"file": ("../../notes.txt", b"The hat is red.\n", "text/plain")}
    made = client.post("/files", files=sent, data={"purpose": "user_data"})
    assert made.status_code == 200, made.text
    card = made.json()
    assert (card["filename"], card["bytes"], card["purpose"]) == ("notes.txt", 16, "user_data")
    assert client.get("/files").json()["data"] == [card]
    assert client.get(f"/files/{card['id']}").json() == card
    content = client.get(f"/files/{card['id']}/content")
    assert content.content == b"The hat is red.\n"
    assert content.headers["content-disposition"] == "attachment"
    parts = [{"type": "input_file", "file_id": card["id"]}, {"type": "input_text", "text": "What is red?"}]
    told = "File 'notes.txt':\nThe hat is red.\n\nWhat is red?"
    assert text(create(client, input=[{"role": "user", "content": parts}])) == text(create(client, input=told))
    assert client.delete(f"/files/{card['id']}").json()["deleted"] is True
    assert client.get(f"/files/{card['id']}").status_code == 404
    assert client.post("/files", files=sent).status_code == 400
    assert client.post("/files", data={"purpose": "x"}).status_code == 400


def test_a_restart_keeps_responses_and_ends_what_was_cut(host: Host, path: Path, client: TestClient) -> None:
    kept = create(client)
    cut = {**kept, "id": "resp_cut", "status": "in_progress"}
    store = Store(path)
    store.put_response(b"", StoredResponse(body=cut, input=[]))
    with TestClient(make_app(host, Store(path))) as again:
        assert again.get(f"/responses/{kept['id']}").json() == kept
        found = again.get("/responses/resp_cut").json()
    check_response(found)
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


def test_responses_end_with_their_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.sqlite3", ttl_s=0.05)
    body = {"id": "resp_1", "output": [], "status": "completed"}
    store.put_response(b"mine", StoredResponse(body=body, input=[]))
    assert store.response(b"mine", "resp_1") is not None
    assert store.response(b"other", "resp_1") is None
    time.sleep(0.06)
    assert store.response(b"mine", "resp_1") is None
    assert (tmp_path / "x.sqlite3").stat().st_mode & 0o077 == 0
