# SPDX-License-Identifier: Apache-2.0
"""The tool loop, with a model whose answers are written here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tramontane.chat.parsing import ChatFormat, JsonCalls
from tramontane.errors import RequestError
from tramontane.testing.answering import answering_llm
from tramontane.tools import Tool, ToolCall, run_call, run_tools

FORM = ChatFormat(calls=(JsonCalls(opens=("<tool_call>",), closes=("</tool_call>",)),))
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[call {{ c.function.name }}]{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
USER = [{"role": "user", "content": "Weather?"}]


def get_weather(city: str) -> dict[str, Any]:
    """Tell the weather."""
    return {"city": city, "sky": "blue"}


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def answer(prompt: str) -> str:
    if "<tool>" not in prompt:
        return "Let me see." + call("get_weather", city="Rome") + call("get_weather", city="Oslo")
    return f"Blue {prompt.count('blue')} times."


def llm(say: Any = answer) -> Any:
    return answering_llm(say, template=TEMPLATE, chat_format=FORM)


def test_calls_are_run_and_their_results_used() -> None:
    run = run_tools(llm(), USER, [get_weather])
    assert run.finish().text == "Blue 2 times."
    assert [(made.arguments, result) for made, result in run.calls] == [
        ('{"city": "Rome"}', '{"city": "Rome", "sky": "blue"}'),
        ('{"city": "Oslo"}', '{"city": "Oslo", "sky": "blue"}'),
    ]
    assert [message["role"] for message in run.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert run.messages[2]["tool_call_id"] == run.messages[1]["tool_calls"][0]["id"]
    assert USER == [{"role": "user", "content": "Weather?"}]


def test_a_run_streams() -> None:
    run = run_tools(llm(), USER, [get_weather])
    assert "".join(delta.text for delta in run) == "Let me see.Blue 2 times."
    assert run.completion is not None


def test_rounds_end_a_model_that_never_stops_calling() -> None:
    ran = []

    def now() -> str:
        ran.append(1)
        return "noon"

    out = run_tools(llm(lambda prompt: call("now")), USER, [now], rounds=3).finish()
    assert out.tool_calls
    assert len(ran) == 2


def test_what_goes_wrong_is_told_to_the_model() -> None:
    def broken(x: int) -> None:
        raise ValueError("no luck")

    tools = {tool.name: tool for tool in (Tool.of(broken), Tool.of(get_weather))}

    def result(name: str, arguments: str, **options: Any) -> str:
        return run_call(tools, ToolCall(id="1", name=name, arguments=arguments), **options)

    assert result("nope", "{}") == "Error: there is no tool 'nope'. The tools are: broken, get_weather."
    assert "not valid JSON" in result("broken", "{")
    assert "not valid JSON" in result("broken", "[" * 100_000)
    assert "must be a JSON object" in result("broken", "[1]")
    assert result("broken", '{"x": 1}') == "Error: ValueError: no luck"
    assert "TypeError" in result("get_weather", '{"town": "Rome"}')
    assert "did not allow" in result("get_weather", '{"city": "x"}', approve=lambda call: False)
    assert "blue" in result("get_weather", '{"city": "x"}', approve=lambda call: True)
    long = Tool.of(lambda: "x" * 300_000, name="long")
    assert run_call({"long": long}, ToolCall(id="1", name="long", arguments="{}")).endswith("[cut off]")


def test_tools_that_cannot_be_run_are_refused() -> None:
    with pytest.raises(RequestError, match="has no function to run"):
        run_tools(llm(), USER, [{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(RequestError, match="two tools are named"):
        run_tools(llm(), USER, [get_weather, get_weather])
    with pytest.raises(RequestError, match="rounds"):
        run_tools(llm(), USER, [get_weather], rounds=0)
