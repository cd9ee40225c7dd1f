# SPDX-License-Identifier: Apache-2.0
"""Tool calls and reasoning through the OpenAI routes; every response and event is held to the specification."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tramontane_scripted.talking import SUNNY, THOUGHT

from tramontane.host import Host
from tramontane_frontend_openai.app import make_app

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "frontends" / "openai" / "tests"))
from open_responses import check_events, check_response

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]
FLAT = [{"type": "function", "name": "get_weather", "parameters": PARAMETERS}]
TURN = [{"role": "user", "content": "How is Rome?"}]


@pytest.fixture(scope="module")
def client(host: Host) -> Iterator[TestClient]:
    with TestClient(make_app(host)) as made:
        yield made


def post(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json={"model": "talker", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: TestClient, path: str, **body: Any) -> list[dict[str, Any]]:
    answer = client.post(path, json={"model": "talker", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_chat_calls_and_reads_the_result(client: TestClient) -> None:
    (choice,) = post(client, "/chat/completions", messages=TURN, tools=TOOLS)["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (message["content"], message["reasoning_content"]) == (None, THOUGHT)
    (call,) = message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome", "days": 2}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    answered = post(client, "/chat/completions", messages=[*TURN, message, result], tools=TOOLS)
    assert answered["choices"][0]["message"]["content"] == SUNNY
    assert answered["choices"][0]["finish_reason"] == "stop"


def test_streamed_pieces_of_a_call_are_the_call(client: TestClient) -> None:
    chunks = events(client, "/chat/completions", messages=TURN, tools=TOOLS, stream_options={"include_usage": True})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(d.get("reasoning_content", "") for d in deltas) == THOUGHT
    pieces = [piece for d in deltas for piece in d.get("tool_calls", ())]
    assert pieces[0]["function"]["name"] == "get_weather"
    assert pieces[0]["id"]
    assert {piece["index"] for piece in pieces} == {0}
    assert json.loads("".join(p["function"]["arguments"] for p in pieces)) == {"city": "Rome", "days": 2}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_response_thinks_calls_and_goes_on(client: TestClient) -> None:
    first = post(client, "/responses", input="How is Rome?", tools=FLAT)
    check_response(first)
    thought, call = first["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": THOUGHT}]
    assert (call["type"], json.loads(call["arguments"])) == ("function_call", {"city": "Rome", "days": 2})
    assert first["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    output = [{"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}]
    second = post(client, "/responses", input=output, previous_response_id=first["id"], tools=FLAT)
    check_response(second)
    assert second["output"][0]["content"][0]["text"] == SUNNY


def test_the_events_of_thoughts_and_calls_keep_the_specification(client: TestClient) -> None:
    found = events(client, "/responses", input="How is Rome?", tools=FLAT, reasoning={"effort": "low"})
    check_events(found)
    kinds = [event["type"] for event in found]
    assert "response.reasoning.delta" in kinds
    assert "response.function_call_arguments.delta" in kinds
    arguments = [e["delta"] for e in found if e["type"] == "response.function_call_arguments.delta"]
    assert json.loads("".join(arguments)) == {"city": "Rome", "days": 2}


def test_a_form_is_kept(client: TestClient) -> None:
    schema = {
        "type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"],
        "additionalProperties": False,
    }  # fmt: skip
    body = {"model": "storyteller", "messages": TURN, "max_tokens": 60, "temperature": 0}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    text = post(client, "/chat/completions", **body, response_format=wanted)["choices"][0]["message"]["content"]
    assert 1 <= json.loads(text)["n"] <= 9
    told = post(
        client, "/responses", model="storyteller", input="Say a number.", max_output_tokens=60, temperature=0,
        text={"format": {"type": "json_schema", "name": "n", "schema": schema}},
    )  # fmt: skip
    check_response(told)
    assert 1 <= json.loads(told["output"][0]["content"][0]["text"])["n"] <= 9
    grammar = {"type": "choice", "value": ["yes", "no"]}
    assert post(client, "/chat/completions", **body, grammar=grammar)["choices"][0]["message"]["content"] in (
        "yes",
        "no",
    )


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "function"}]},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"tool_choice": "required"},
        {"response_format": {"type": "poem"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "magic"}}}},
        {"tools": TOOLS, "functions": [{"name": "x"}]},
        {"web_search_options": {}},
        {"modalities": ["audio"]},
        {"reasoning_effort": "none", "enable_thinking": True},
    ],
)
def test_what_cannot_be_asked(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/chat/completions", json={"model": "talker", "messages": TURN, **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
