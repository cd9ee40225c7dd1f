# SPDX-License-Identifier: Apache-2.0
"""A real model that knows nothing of tools, made to call them: formats, grammars and the engine together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tramontane import LLM, SamplingParams
from tramontane.requests import FinishReason

TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
USER = [{"role": "user", "content": "Weather?"}]
GREEDY = SamplingParams(temperature=0, max_tokens=160)


def get_weather(city: str, days: int) -> str:
    """Tell the weather."""
    return "sunny"


def now() -> str:
    """Tell the time."""
    return "noon"


@pytest.fixture(scope="module")
def llm() -> Iterator[Any]:
    pytest.importorskip("tramontane_loader_demo", reason="asks the demo model")
    with LLM("demo", chat_template=TEMPLATE, chat_format="hermes", device="cpu", max_model_len=512) as model:
        yield model


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call_is_made(llm: Any, stream: bool) -> None:
    options: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False}
    if stream:
        with llm.chat(USER, GREEDY, tools=[get_weather, now], stream=True, **options) as deltas:
            out = deltas.completion()
    else:
        out = llm.chat(USER, GREEDY, tools=[get_weather, now], **options)
    assert out.finish_reason is FinishReason.TOOL_CALLS
    assert len(out.tool_calls) == 1
    arguments = json.loads(out.tool_calls[0].arguments)
    assert out.tool_calls[0].name in ("get_weather", "now")
    assert out.tool_calls[0].name == "now" or (type(arguments["city"]), type(arguments["days"])) == (str, int)


def test_a_named_tool_is_called(llm: Any) -> None:
    choice = {"type": "function", "function": {"name": "now"}}
    out = llm.chat(USER, GREEDY, tools=[get_weather, now], tool_choice=choice, parallel_tool_calls=False)
    assert [(call.name, call.arguments) for call in out.tool_calls] == [("now", "{}")]


def test_an_answer_keeps_to_its_format(llm: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    out = llm.chat(USER, GREEDY, response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert 0 <= json.loads(out.text)["n"] <= 9
