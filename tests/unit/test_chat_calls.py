# SPDX-License-Identifier: Apache-2.0
"""Reasoning and tool calls through ``LLM.chat``, with a model whose answers are written here."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Literal

import pytest

from tramontane.api import AsyncLLM
from tramontane.api.chat_call import ChatCall
from tramontane.chat.parsing import ChatFormat, JsonCalls, Offered, Reasoning
from tramontane.errors import ModalityError, RequestError
from tramontane.grammar import Constraint
from tramontane.requests import FinishReason, SamplingParams
from tramontane.testing.answering import answering_llm, answering_service
from tramontane.tools import Tool

FORM = ChatFormat(reasoning=Reasoning(), calls=(JsonCalls(opens=("<tool_call>",), closes=("</tool_call>",)),))
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
USER = [{"role": "user", "content": "Weather?"}]


def get_weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """Tell the weather.

    Args:
        city: where
        days (int): how many days
    """
    return f"sunny in {city}"


def call(name: str = "get_weather", **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


ANSWER = f"<think>\nThey ask.\n</think>\n\nOne moment.\n{call(city='Rome')}\n{call(city='Oslo', days=2)}"


def llm(answer: str = ANSWER, **settings: Any) -> Any:
    return answering_llm(lambda prompt: answer, template=TEMPLATE, chat_format=FORM, **settings)


def test_an_answer_is_told_apart() -> None:
    out = llm().chat(USER, tools=[get_weather])
    assert (out.text, out.reasoning, out.finish_reason) == ("One moment.", "They ask.", FinishReason.TOOL_CALLS)
    assert [(c.name, json.loads(c.arguments)) for c in out.tool_calls] == [
        ("get_weather", {"city": "Rome"}),
        ("get_weather", {"city": "Oslo", "days": 2}),
    ]
    assert len({c.id for c in out.tool_calls}) == 2


def test_streamed_deltas_join_to_the_answer() -> None:
    with llm().chat(USER, tools=[get_weather], stream=True) as stream:
        deltas = list(stream)
    out = deltas[-1].completion
    assert out is not None
    assert "".join(delta.text for delta in deltas) == out.text
    assert "".join(delta.reasoning for delta in deltas) == out.reasoning
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert [piece.id for piece in pieces if piece.id] == [c.id for c in out.tool_calls]
    for index, whole in enumerate(out.tool_calls):
        assert "".join(piece.arguments for piece in pieces if piece.index == index) == whole.arguments
    assert deltas[-1].finish_reason is FinishReason.TOOL_CALLS


def test_arguments_are_told_while_they_are_written() -> None:
    parser = FORM.parser(Offered.of([{"name": "get_weather", "parameters": {}}]))
    deltas = [delta for character in ANSWER for delta in parser.push(character).calls]
    assert len(deltas) > 4 * len({delta.index for delta in deltas})


def test_async_chat() -> None:
    async def ask() -> Any:
        async with AsyncLLM.over(answering_service(lambda _: ANSWER, template=TEMPLATE, chat_format=FORM)) as face:
            return await face.chat(USER, tools=[get_weather])

    assert len(asyncio.run(ask()).tool_calls) == 2


def test_without_parsing_or_tools_the_output_stays() -> None:
    out = llm().chat(USER, tools=[get_weather], parse=False)
    assert (out.text, out.reasoning, out.tool_calls) == (ANSWER, None, ())
    for options in ({}, {"tools": [get_weather], "tool_choice": "none"}):
        out = llm().chat(USER, **options)
        assert out.tool_calls == ()
        assert out.text == ANSWER.split("</think>\n\n")[1]
        assert out.reasoning == "They ask."
        assert out.finish_reason is FinishReason.STOP
    raw = llm().generate("x")
    assert raw.text == ANSWER[:16]


def test_tool_choice_none_hides_the_tools() -> None:
    model = llm()
    assert "get_weather" in model.detokenize(model.render_chat(USER, tools=[get_weather]))
    prompts = []
    model = answering_llm(lambda prompt: prompts.append(prompt) or "x", template=TEMPLATE, chat_format=FORM)
    model.chat(USER, tools=[get_weather], tool_choice="none")
    assert "get_weather" not in prompts[0]


def test_a_prompt_that_opens_the_reasoning() -> None:
    out = llm("So it is.\n</think>Yes.").chat(USER, enable_thinking=True)
    assert (out.reasoning, out.text) == ("So it is.", "Yes.")
    cut = llm("So it is").chat(USER, SamplingParams(max_tokens=5), enable_thinking=True)
    assert (cut.reasoning, cut.text, cut.finish_reason) == ("So it", "", FinishReason.LENGTH)


def test_one_call_only() -> None:
    out = llm(ANSWER + " More text.").chat(USER, tools=[get_weather], parallel_tool_calls=False)
    assert [c.arguments for c in out.tool_calls] == ['{"city": "Rome"}']
    assert (out.text, out.finish_reason) == ("One moment.", FinishReason.TOOL_CALLS)
    assert out.usage.completion_tokens < len(ANSWER)


def test_a_call_cut_off_is_a_matter_of_length() -> None:
    out = llm().chat(USER, SamplingParams(max_tokens=len(ANSWER) - 30), tools=[get_weather])
    assert out.finish_reason is FinishReason.LENGTH
    assert len(out.tool_calls) == 2


def test_several_choices() -> None:
    out = llm().chat(USER, SamplingParams(n=3, max_tokens=300), tools=[get_weather])
    assert len({c.id for choice in out.choices for c in choice.tool_calls}) == 6


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("sometimes", "one of auto, none, required"),
        ({"type": "function", "function": {"name": "nope"}}, "'nope', which is not among the tools"),
        ({"type": "function"}, "must name a function"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "maybe", "tools": []}}, "allowed_tools must have a mode"),
        ({"type": "custom"}, 'of type "function" or "allowed_tools"'),
        (3, "tool_choice must be"),
    ],
)
def test_wrong_tool_choices(choice: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        llm().chat(USER, tools=[get_weather], tool_choice=choice)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("get_weather", "must be a list"),
        ([3], "a tool is a function"),
        ([{"type": "function", "function": {"name": "a b"}}], "1 to 64 letters"),
        ([{"type": "function", "function": {"name": "f", "parameters": []}}], "JSON schema object"),
        ([{"type": "retrieval"}], "a tool must be"),
        ([get_weather, get_weather], "two tools are named 'get_weather'"),
        ([lambda *a: 1], "1 to 64 letters|cannot be given by name"),
    ],
)
def test_wrong_tools(tools: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        llm().chat(USER, tools=tools)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}, "an image"),
        ({"type": "image", "path": "cat.png"}, "an image"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "sound"),
        ({"type": "video", "path": "cat.mp4"}, "a video"),
    ],
)
def test_media_are_refused_and_never_written_as_text(part: dict[str, Any], what: str) -> None:
    talk: list[Any] = [*USER, {"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]
    with llm() as model, pytest.raises(ModalityError, match=rf"^messages\[1\] holds {what}, and answering takes text"):
        model.chat(talk)


def test_only_allowed_tools_are_calls() -> None:
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "now"}]},
    }
    form = ChatFormat(calls=(JsonCalls(firsts="{"),))
    model = answering_llm(lambda _: '{"name": "now", "arguments": {}}', template=TEMPLATE, chat_format=form)
    other = {"type": "function", "function": {"name": "now"}}
    assert model.chat(USER, tools=[get_weather, other], tool_choice=allowed).tool_calls[0].name == "now"


def test_without_a_format_tool_calls_stay_text_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = answering_llm(lambda _: ANSWER, template=TEMPLATE)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert model.chat(USER, tools=[get_weather]).text == ANSWER
    assert [record.message for record in caplog.records if "stay text" in record.message][1:] == []
    with pytest.raises(RequestError, match="no installed chat format"):
        model.chat(USER, tools=[get_weather], tool_choice="required")
    with pytest.raises(RequestError, match="takes no tools"):
        answering_llm(lambda _: "x").chat(USER, tools=[get_weather])


def test_what_is_demanded_becomes_a_constraint() -> None:
    maker = answering_service(lambda _: "x", template=TEMPLATE, chat_format=FORM).maker.chats
    strict = Tool.of(get_weather, strict=True)

    def constraint(**options: Any) -> Any:
        template = options.pop("template", {})
        return maker.prepare(ChatCall(messages=USER, template=template, **options)).constraint

    assert constraint(tools=[get_weather]) is None
    assert constraint(tools=[get_weather], tool_choice="none") is None
    assert constraint(tools=[strict]).after == ("<tool_call>",)
    required = constraint(tools=[get_weather], tool_choice="required")
    assert required.after == ()
    assert '"days"' in required.value
    named = constraint(
        tools=[get_weather, strict_other()], tool_choice={"type": "function", "function": {"name": "now"}}
    )
    assert "get_weather" not in named.value
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "integer"}}}
    assert constraint(response_format=schema) == Constraint.json_schema({"type": "integer"})
    thinking = constraint(response_format={"type": "json_object"}, template={"enable_thinking": True})
    assert thinking.after == ("</think>",)
    assert constraint(response_format={"type": "text"}) is None
    assert constraint(response_format=Constraint.regex("a")) == Constraint.regex("a")
    with pytest.raises(RequestError, match="exclude each other"):
        constraint(tools=[strict], response_format=schema)
    with pytest.raises(RequestError, match="response_format must be"):
        constraint(response_format={"type": "xml"})
    with pytest.raises(RequestError, match="a constraint already"):
        llm().chat(USER, SamplingParams(constraint=Constraint.regex("a")), response_format=schema)


def strict_other() -> Tool:
    return Tool(name="now", strict=True)


def test_a_function_as_a_tool() -> None:
    schema = Tool.of(get_weather).schema["function"]
    assert schema["description"] == "Tell the weather."
    assert schema["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "where"},
            "days": {"type": "integer", "description": "how many days", "default": 1},
            "unit": {"enum": ["C", "F"], "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert Tool.of(get_weather, strict=True).schema["function"]["strict"] is True

    def typed(a: list[int], b: dict[str, float] | None, c: tuple[str, ...] = ()) -> None: ...

    properties = Tool.of(typed).parameters["properties"]
    assert properties["a"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["b"] == {
        "anyOf": [{"type": "object", "additionalProperties": {"type": "number"}}, {"type": "null"}]
    }

    def impossible(a: complex) -> None: ...

    with pytest.raises(RequestError, match="no JSON schema"):
        Tool.of(impossible)
