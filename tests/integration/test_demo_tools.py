# SPDX-License-Identifier: Apache-2.0
"""The demo model through the Python API: answers, turns that end, tools that are called and their results used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tramontane import LLM, SamplingParams
from tramontane.requests import FinishReason

pytest.importorskip("tramontane_loader_demo", reason="the demo plugin is not installed")

GREEDY = SamplingParams(max_tokens=200, temperature=0)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluate a mathematical expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}
LAMP = {
    "type": "function",
    "function": {
        "name": "paint_lamp",
        "description": "Paint a lamp.",
        "parameters": {
            "type": "object",
            "properties": {"color": {"type": "string"}, "level": {"type": "integer"}},
            "required": ["color", "level"],
        },
    },
}
# What is asked, the call, what the tool gives back, and what is said of it.
USES: list[tuple[str, str, dict[str, Any], str, tuple[str, ...]]] = [
    (
        "What is the weather in Berlin?",
        "get_weather",
        {"city": "Berlin"},
        '{"temperature": 18, "condition": "sunny"}',
        ("Berlin", "18", "sunny"),
    ),
    ("What is 123 * 45?", "calculator", {"expression": "123 * 45"}, "5535", ("5535",)),
    (
        "Please paint the lamp with color green and level 7.",
        "paint_lamp",
        {"color": "green", "level": 7},
        "The lamp is ready.",
        ("The lamp is ready.",),
    ),
]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("demo") as made:
        yield made


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def called(
    llm: LLM, messages: list[dict[str, Any]], *, stream: bool
) -> tuple[str, list[tuple[str, Any]], FinishReason]:
    """Text, calls and reason of an answer; streamed, as a client puts it together from the pieces."""
    tools = [WEATHER, CALCULATOR, LAMP]
    if not stream:
        whole = llm.chat(messages, GREEDY, tools=tools)
        return whole.text, [(call.name, json.loads(call.arguments)) for call in whole.tool_calls], whole.finish_reason
    text, names, arguments, reason = "", {}, {}, None
    for delta in llm.chat(messages, GREEDY, tools=tools, stream=True):
        text += delta.text
        reason = delta.finish_reason or reason
        for piece in delta.tool_calls:
            names.setdefault(piece.index, piece.name)
            arguments[piece.index] = arguments.get(piece.index, "") + piece.arguments
    assert reason is not None
    return text, [(names[index], json.loads(arguments[index])) for index in sorted(names)], reason


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("asked", "name", "arguments", "result", "told"), USES, ids=[use[1] for use in USES])
def test_a_tool_is_called_and_its_result_used(
    llm: LLM, asked: str, name: str, arguments: dict[str, Any], result: str, told: tuple[str, ...], stream: bool
) -> None:
    messages = user(asked)
    text, calls, reason = called(llm, messages, stream=stream)
    assert (text, calls, reason) == ("", [(name, arguments)], FinishReason.TOOL_CALLS)
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
    ]
    text, calls, reason = called(llm, messages, stream=stream)
    assert (calls, reason) == ([], FinishReason.STOP)
    for part in told:
        assert part in text


def test_two_places_are_two_calls(llm: LLM) -> None:
    _, calls, _ = called(llm, user("What is the weather in Oslo and Madrid?"), stream=False)
    assert calls == [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Madrid"})]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("Who are you?", "I am the demo model of Tramontane, a very small language model."),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is 2 + 2?", "2 + 2 = 4"),
        ("Count to 5.", "1, 2, 3, 4, 5."),
        ("Is the sky blue?", "Yes, the sky is blue."),
        ("Repeat after me: The red kite is mine.", "The red kite is mine."),
    ],
)
def test_simple_questions_have_their_answers(llm: LLM, asked: str, answer: str) -> None:
    found = llm.chat(user(asked), GREEDY)
    assert (found.text, found.finish_reason) == (answer, FinishReason.STOP)


def test_a_question_that_no_tool_fits_is_answered(llm: LLM) -> None:
    text, calls, _ = called(llm, user("What is the opposite of big?"), stream=False)
    assert (text, calls) == ("The opposite of big is small.", [])


def test_what_was_said_is_remembered(llm: LLM) -> None:
    messages = user("My name is Zamira.")
    first = llm.chat(messages, GREEDY)
    assert "Zamira" in first.text
    messages += [{"role": "assistant", "content": first.text}, *user("What is my name?")]
    assert llm.chat(messages, GREEDY).text == "Your name is Zamira."


def test_the_system_message_says_who_it_is(llm: LLM) -> None:
    messages = [{"role": "system", "content": "You are Pip, a friendly robot."}, *user("Who are you?")]
    assert llm.chat(messages, GREEDY).text == "I am Pip, a friendly robot."


def test_a_story_is_about_whom_it_was_asked_for(llm: LLM) -> None:
    told = llm.chat(user("Tell me a story about a fox named Zubi."), SamplingParams(max_tokens=400, temperature=0))
    assert told.finish_reason is FinishReason.STOP
    assert told.text.count("Zubi") >= 3
    assert len(told.text.split()) >= 60
