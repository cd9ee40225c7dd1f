# SPDX-License-Identifier: Apache-2.0
"""The API over a scripted model, by plain HTTP and by Anthropic's own client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tramontane_scripted.plugin
from serving import demo
from starlette.testclient import TestClient
from tokenizers import Tokenizer
from tramontane_scripted.talking import SUNNY, THOUGHT, write_talking

from tramontane.host import Host
from tramontane.plugins import installed
from tramontane_frontend_anthropic.app import make_app

TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
ASK = {"model": "talker", "max_tokens": 200, "messages": [{"role": "user", "content": "How is Rome?"}], "tools": [TOOL]}
ANSWERED = [
    {"role": "user", "content": [{"type": "text", "text": "How is Rome?"}]},
    {"role": "assistant", "content": [
        {"type": "thinking", "thinking": THOUGHT, "signature": "x"},
        {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Rome"}}]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "sunny"}]}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def client(host: Host) -> Iterator[TestClient]:
    with TestClient(make_app(host)) as made:
        yield made


def post(client: TestClient, path: str = "/", **body: Any) -> dict[str, Any]:
    answer = client.post(path, json={**ASK, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/", json={**ASK, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    found = []
    for one in (frame for frame in answer.text.split("\n\n") if frame):
        kind, data = one.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {found[-1]['type']}"
    return found


def test_a_tool_is_called_and_its_result_is_read(client: TestClient) -> None:
    first = post(client, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block["type"] for block in first["content"]] == ["thinking", "tool_use"]
    assert first["content"][0]["thinking"] == THOUGHT
    assert first["content"][1]["input"] == {"city": "Rome", "days": 2}
    assert (first["stop_reason"], first["stop_sequence"]) == ("tool_use", None)
    second = post(client, messages=ANSWERED)
    assert second["content"] == [{"type": "text", "text": SUNNY}]
    assert second["stop_reason"] == "end_turn"
    used = second["usage"]
    counted = post(client, "/count_tokens", messages=ANSWERED)
    assert used["input_tokens"] + used["cache_read_input_tokens"] == counted["input_tokens"]


def test_a_budget_ends_the_thoughts(tmp_path: Path) -> None:
    """Where the vocabulary has a token for their end; elsewhere the limit of the whole answer bounds them."""
    words = Tokenizer.from_file(str(demo.FOLDER / "tokenizer.json"))
    words.add_special_tokens(["<think>", "</think>"])
    words.save(str(tmp_path / "tokenizer.json"))
    shutil.copy(demo.FOLDER / "tokenizer_config.json", tmp_path)
    host = Host(installed().extended([tramontane_scripted.plugin]))
    host.add("talker", str(write_talking(tmp_path / "talker", tmp_path)), num_blocks=100, chat_format="hermes")
    with TestClient(make_app(host)) as client:
        whole = post(client, thinking={"type": "enabled", "budget_tokens": 150})["content"][0]
        cut = post(client, thinking={"type": "enabled", "budget_tokens": 2}, max_tokens=40)["content"][0]
    host.close()
    assert whole["thinking"] == THOUGHT
    assert 0 < len(cut["thinking"]) < len(THOUGHT)
    assert THOUGHT.startswith(cut["thinking"])


def test_a_stream_builds_up_the_same_message(client: TestClient) -> None:
    found = events(client)
    assert [e["type"] for e in found[:2]] == ["message_start", "ping"]
    assert [e["type"] for e in found[-2:]] == ["message_delta", "message_stop"]
    assert found[0]["message"]["usage"]["input_tokens"] > 0
    blocks = [e for e in found if e["type"] == "content_block_start"]
    assert [(e["index"], e["content_block"]["type"]) for e in blocks] == [(0, "thinking"), (1, "tool_use")]
    deltas = [(e["index"], e["delta"]) for e in found if e["type"] == "content_block_delta"]
    assert "".join(d["thinking"] for _, d in deltas if d["type"] == "thinking_delta") == THOUGHT
    pieces = "".join(d["partial_json"] for _, d in deltas if d["type"] == "input_json_delta")
    assert json.loads(pieces) == {"city": "Rome", "days": 2}
    assert deltas[-1][0] == 1
    assert any(d["type"] == "signature_delta" for i, d in deltas if i == 0)
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    said = events(client, messages=ANSWERED)
    assert "".join(e["delta"]["text"] for e in said if e["type"] == "content_block_delta") == SUNNY


def test_stop_sequences_and_limits_say_so(client: TestClient) -> None:
    cut = post(client, messages=ANSWERED, stop_sequences=["zebra", " so ", "Rome"])
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", "Rome")
    assert cut["content"] == [{"type": "text", "text": SUNNY.partition("Rome")[0]}]
    assert events(client, messages=ANSWERED, stop_sequences=["Rome"])[-2]["delta"]["stop_sequence"] == "Rome"
    limited = post(client, messages=ANSWERED, max_tokens=3)
    assert (limited["stop_reason"], limited["usage"]["output_tokens"]) == ("max_tokens", 3)


def test_systems_and_beginnings_become_the_prompt(client: TestClient) -> None:
    turn = [{"role": "user", "content": "Hi"}]
    plain = post(client, "/count_tokens", messages=turn, tools=None)["input_tokens"]
    system = post(client, "/count_tokens", messages=turn, tools=None, system="Be kind.")["input_tokens"]
    blocks = post(client, "/count_tokens", messages=turn, tools=None, system=[{"type": "text", "text": "Be kind."}])
    inside = post(
        client, "/count_tokens", messages=[{"role": "system", "content": "Be kind."}, *turn], tools=None
    )  # fmt: skip
    assert plain < system == blocks["input_tokens"] == inside["input_tokens"]
    begun = post(client, messages=[*ANSWERED, {"role": "assistant", "content": "It is"}])
    assert begun["content"][0]["text"] == SUNNY.removeprefix("It is"), "the answer goes on from the beginning"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://[::1]/"}}]}]},
     "images"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "file:///"}}]}]},
     "fetches nothing"),
    ({"tools": [{"name": "x"}]}, "input_schema"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "calls no tools itself"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
    ({"temperature": "hot"}, "temperature"),
    ({"stop_sequences": [""]}, "stop_sequences must"),
    ({"metadata": {"user_id": "a/b"}}, "metadata.user_id"),
    ({"container": {"skills": []}}, "container"),
    ({"output_config": {"effort": "heroic"}}, "effort"),
    ({"thinking": {"type": "sometimes"}}, "thinking.type"),
    ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "thinking.budget_tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "says"), WRONG)
def test_wrong_requests_are_refused_by_name(client: TestClient, body: dict[str, Any], says: str) -> None:
    answer = client.post("/", json={**ASK, **body})
    assert answer.status_code == 400, answer.text
    found = answer.json()
    assert (found["type"], found["error"]["type"]) == ("error", "invalid_request_error")
    assert says in found["error"]["message"]


def test_the_envelope_of_other_faults(client: TestClient) -> None:
    missing = client.post("/", json={**ASK, "model": "nobody"})
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    assert client.get("/").json()["type"] == "error"
    assert client.post("/", content=b"{").json()["error"]["type"] == "invalid_request_error"
