# SPDX-License-Identifier: Apache-2.0
"""Every format on outputs of every kind, cut at every place: the same calls, never an exception."""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from chat_format_outputs import BARE, WRITERS, Call

from tramontane.chat.parsing import ChatFormat, Demand, Offered
from tramontane_tools_chat_formats.plugin import tramontane_chat_formats

FORMATS: dict[str, ChatFormat] = {spec.name: spec.load("format") for spec in tramontane_chat_formats()}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "options": {"type": "object"},
                    "note": {"type": "string"},
                    "flags": {"type": "array"},
                    "sure": {"type": "boolean"},
                    "nothing": {"type": ["null", "string"]},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
OFFERED = Offered.of(TOOLS)

ONE: list[Call] = [("get_weather", {"city": "Rome", "days": 3})]
CASES: dict[str, list[Call]] = {
    "one": ONE,
    "parallel": [*ONE, ("now", {}), ("get_weather", {"city": "Oslo"})],
    "nested": [
        ("get_weather", {"options": {"a": [1, {"b": [True, None, -2.5e3]}], "c": {}}, "flags": [], "sure": False}),
    ],
    "unicode": [("get_weather", {"city": "Zürich 東京 \U0001f327 e\u0301"})],
    "escapes": [("get_weather", {"city": 'a"b\\c', "note": "line\nline\ttab '}' ]) {\"x\": 1} <b> é"})],
    "empty": [("now", {})],
    "null": [("get_weather", {"city": "", "nothing": None, "sure": True})],
}  # fmt: skip


def parse(
    form: ChatFormat, pieces: Iterable[str], offered: Offered = OFFERED, thinking: bool = False
) -> dict[str, Any]:
    """Everything a parser gives, put together; each delta must make sense by itself."""
    parser = form.parser(offered, thinking=thinking)
    found: dict[str, Any] = {"text": "", "reasoning": "", "calls": []}
    ids = []
    for parsed in (*map(parser.push, pieces), parser.finish()):
        found["text"] += parsed.text
        found["reasoning"] += parsed.reasoning
        for delta in parsed.calls:
            if delta.index == len(found["calls"]):
                assert delta.id
                assert delta.name
                ids.append(delta.id)
                found["calls"].append([delta.name, ""])
            assert delta.index == len(found["calls"]) - 1
            found["calls"][-1][1] += delta.arguments
    assert len(set(ids)) == len(ids)
    return found


@pytest.fixture(autouse=True, params=[11, pytest.param(1, marks=pytest.mark.full)])
def every(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at every place in the long form, else at one in eleven (and at every byte and token at once)."""
    monkeypatch.setitem(STEP, "bytes", request.param)


STEP = {"bytes": 1}


def byte_splits(text: str) -> Iterator[list[str]]:
    """The text as it is decoded when its bytes come in two pieces, and one by one."""
    content = text.encode()
    for cut in range(1, len(content), STEP["bytes"]):
        decoder = codecs.getincrementaldecoder("utf-8")()
        yield [decoder.decode(content[:cut]), decoder.decode(content[cut:])]
    decoder = codecs.getincrementaldecoder("utf-8")()
    yield [decoder.decode(content[i : i + 1]) for i in range(len(content))]


def token_splits(text: str) -> Iterator[list[str]]:
    """The text in pieces such as vocabularies have: marks, words with the space before them, signs; also two by two."""
    tokens = re.findall(r"<[|｜/]?\w[^<>\s]*>|\[/?[A-Z_]+\]| ?\w+|\s+|[^\w\s]", text)
    assert "".join(tokens) == text
    yield tokens
    yield ["".join(tokens[i : i + 2]) for i in range(0, len(tokens), 2)]
    yield ["".join(tokens[max(0, i) : i + 3]) for i in range(-1, len(tokens), 3)]


def check_splits(form: ChatFormat, text: str, thinking: bool = False) -> dict[str, Any]:
    """The whole text's meaning, after asserting that no split changes it."""
    whole = parse(form, [text], thinking=thinking)
    for pieces in (*byte_splits(text), *token_splits(text)):
        assert parse(form, pieces, thinking=thinking) == whole, pieces
    return whole


def as_calls(found: dict[str, Any]) -> list[Call]:
    return [(name, json.loads(arguments)) for name, arguments in found["calls"]]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("case", CASES)
def test_calls_are_found_wherever_the_text_is_cut(name: str, case: str) -> None:
    found = check_splits(FORMATS[name], WRITERS[name](CASES[case]))
    assert as_calls(found) == CASES[case]
    assert found["text"] == ""
    assert found["reasoning"] == ""


@pytest.mark.parametrize("name", WRITERS)
def test_schemas_that_say_nonsense_change_no_name(name: str) -> None:
    nonsense: list[Any] = [5, {"type": 5}, {"type": "string", "enum": 5}, {"enum": 5}, {"anyOf": 5}]
    for schema in nonsense:
        parameters = {"type": "object", "properties": {"city": schema, "days": schema}}
        offered = Offered.of([{"name": "get_weather", "parameters": parameters, "strict": True}])
        parser = FORMATS[name].parser(offered)
        pieces = [parser.push(WRITERS[name](ONE)), parser.finish()]
        names = [call.name for piece in pieces for call in piece.calls if call.name]
        assert names == ["get_weather"], schema
        assert FORMATS[name].constraint(Demand(offered=offered, required=True), lambda text: None) is not None


@pytest.mark.parametrize("name", WRITERS)
def test_text_without_calls_is_left_as_it_is(name: str) -> None:
    text = " The answer is 3 < 4 {not a call}, [1] <x> naïve 東京.\n\n* one `f()`\n* two\n"
    if name == "harmony":
        text = f"<|channel|>final<|message|>{text}"
    found = check_splits(FORMATS[name], text)
    assert found == {"text": text.removeprefix("<|channel|>final<|message|>"), "reasoning": "", "calls": []}


@pytest.mark.parametrize("name", WRITERS)
def test_text_before_and_after(name: str) -> None:
    body = WRITERS[name](ONE)
    before, after = "I look it up.", "Done."
    if name == "harmony":
        text = (
            f"<|channel|>commentary<|message|>{before}<|end|><|start|>assistant{body}"
            f"<|start|>assistant<|channel|>final<|message|>{after}"
        )
    else:
        text = f"{before}\n{body}\n{after}"
    found = check_splits(FORMATS[name], text)
    assert as_calls(found) == ONE
    assert found["text"].split() == [*before.split(), *after.split()] or name == "harmony"
    assert found["text"].startswith(before)
    assert found["text"].endswith(after)


@pytest.mark.parametrize("name", WRITERS)
def test_truncated_calls(name: str) -> None:
    """Cut off anywhere: what was found before stays, nothing is made up, and the arguments are a beginning."""
    whole = WRITERS[name](ONE)
    complete = parse(FORMATS[name], [whole])
    for cut in range(len(whole)):
        found = parse(FORMATS[name], [whole[:cut]])
        assert found["reasoning"] == ""
        assert len(found["calls"]) <= 1
        for (called, arguments), (wanted, full) in zip(found["calls"], complete["calls"], strict=False):
            assert wanted.startswith(called)
            assert arguments == full or not is_json(arguments)
    check_splits(FORMATS[name], whole[: len(whole) * 2 // 3])


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


MALFORMED = (
    lambda text: text.replace("Rome", 'Ro"me'),
    lambda text: text.replace("3", "@"),
    lambda text: text.replace("get_weather", ""),
    lambda text: text.replace("get_weather", "get weather (x)"),
    lambda text: text.replace("city", "ci\nty"),
    lambda text: text.replace("}", ""),
    lambda text: text.replace("{", "[["),
    lambda text: text.replace(":", ""),
    lambda text: text.replace(">", ""),
    lambda text: text + text[::-1],
    lambda text: text[len(text) // 2 :] + text,
    lambda text: text.replace("Rome", "\x00\x1b"),
)


@pytest.mark.parametrize("name", WRITERS)
def test_malformed_calls(name: str) -> None:
    for spoil in MALFORMED:
        text = spoil(WRITERS[name](ONE))
        found = check_splits(FORMATS[name], text)
        for called, _ in found["calls"]:
            assert called


@pytest.mark.parametrize("name", WRITERS)
def test_unknown_tools(name: str) -> None:
    """A marked call is the model's word, whatever it names; without a mark it is text."""
    text = WRITERS[name]([("frobnicate", {"city": "Rome"})])
    found = check_splits(FORMATS[name], text)
    if name in BARE:
        assert found == {"text": text, "reasoning": "", "calls": []}
    else:
        assert as_calls(found) == [("frobnicate", {"city": "Rome"})]


@pytest.mark.parametrize("name", WRITERS)
def test_without_tools_calls_are_text(name: str) -> None:
    found = parse(FORMATS[name], [WRITERS[name](ONE)], Offered())
    assert found["calls"] == []


def garbage(name: str) -> Iterator[str]:
    """A megabyte each of what makes careless parsers slow, or recurse."""
    million = 1_000_000
    opening = WRITERS[name](ONE)
    head = opening[: opening.index("get_weather")]
    yield from (
        (unit * (million // len(unit) + 1))[:million] for unit in ("<", "[", "{", "<tool_call>", '{"a":', "\\", "\n")
    )
    marker = head or "{"
    yield (marker * (million // len(marker) + 1))[:million]
    yield marker + "[" * million
    yield marker + '{"' * (million // 2)
    yield head + "a" * million
    up_to_value = opening[: opening.index("Rome")]
    yield up_to_value + "[" * million
    yield up_to_value + '{"a":[' * (million // 6)
    yield up_to_value + "\\" * million


@pytest.mark.parametrize("name", WRITERS)
def test_a_megabyte_of_garbage_takes_linear_time(name: str) -> None:
    """In the short form 30 kB: what takes a second for each of them in a quadratic parser."""
    size = 1 if STEP["bytes"] == 1 else 33
    for text in (text[: len(text) // size] for text in garbage(name)):
        began = time.process_time()
        whole = parse(FORMATS[name], [text])
        pieces = parse(FORMATS[name], (text[i : i + 1000] for i in range(0, len(text), 1000)))
        assert whole == pieces
        assert time.process_time() - began < 10, text[:60]


def test_nothing_is_evaluated(tmp_path: Any) -> None:
    canary = tmp_path / "canary"
    attack = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    for name, form in FORMATS.items():
        for text in (
            f"[get_weather(city={attack})]",
            f"<|tool_call_start|>[f({attack})]<|tool_call_end|>",
            f"```tool_code\nget_weather(city={attack})\n```",
            WRITERS[name]([("get_weather", {"city": attack})]) if name in WRITERS else attack,
        ):
            parse(form, [text])
    assert not canary.exists()


@pytest.mark.parametrize(
    ("name", "opens", "closes"),
    [
        ("hermes", "<think>", "</think>"),
        ("qwen-coder", "<think>", "</think>"),
        ("deepseek-v31", "<think>", "</think>"),
        ("mistral-v11", "[THINK]", "[/THINK]"),
        ("seed", "<seed:think>", "</seed:think>"),
        ("command-r7b", "<|START_THINKING|>", "<|END_THINKING|>"),
        ("kimi-k2", "<think>", "</think>"),
        ("thinking", "<think>", "</think>"),
    ],
)
def test_reasoning(name: str, opens: str, closes: str) -> None:
    form = FORMATS[name]
    called = WRITERS[name](ONE) if name in WRITERS else ""
    expected = {"text": "It is\n 4.", "reasoning": "2 + 2\n\n  is what? <b>"}
    inside = "\n2 + 2\n\n  is what? <b>\n"
    for text, thinking in (
        (f"\n{opens}{inside}{closes}\n\nIt is\n 4.{called}", False),
        (f"{inside}{closes}It is\n 4.{called}", True),
    ):
        found = check_splits(form, text, thinking)
        assert {key: found[key] for key in expected} == expected
        assert as_calls(found) == (ONE if called else [])
    assert form.opens_reasoning(f"<|assistant|>\n{opens}\n")
    assert not form.opens_reasoning(f"{opens}\n\n{closes}\n\n")
    cut = check_splits(form, inside, thinking=True)
    assert (cut["text"], cut["reasoning"]) == ("", inside.strip())
    later = check_splits(form, f"A tag is written {opens}x{closes}")
    assert later["text"] == f"A tag is written {opens}x{closes}"
    assert later["reasoning"] == ""


def test_harmony_channels() -> None:
    text = (
        "<|channel|>analysis<|message|>User asks.\n<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        "<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>"
        '{"city": "Rome", "days": 3}<|call|>'
    )
    found = check_splits(FORMATS["harmony"], text)
    assert (found["text"], found["reasoning"], as_calls(found)) == ("I look.", "User asks.", ONE)
    assert check_splits(FORMATS["harmony"], "<|channel|>final<|message|>4<|return|>")["text"] == "4"
    assert check_splits(FORMATS["harmony"], "plain words")["text"] == "plain words"


def test_ids_that_the_model_writes() -> None:
    kimi = parse_ids("kimi-k2", WRITERS["kimi-k2"]([*ONE, *ONE]))
    assert kimi == ["functions.get_weather:0", "functions.get_weather:1"]
    twice = parse_ids("kimi-k2", WRITERS["kimi-k2"](ONE) * 2)
    assert twice[0] == "functions.get_weather:0"
    assert twice[1] != twice[0]
    assert parse_ids("mistral", "[TOOL_CALLS]now[CALL_ID]abcDEF123[ARGS]{}") == ["abcDEF123"]
    made = parse_ids("mistral", "[TOOL_CALLS]now[ARGS]{}")
    assert re.fullmatch(r"[A-Za-z0-9]{9}", made[0])


def parse_ids(name: str, text: str) -> list[str | None]:
    parser = FORMATS[name].parser(OFFERED)
    deltas = (*parser.push(text).calls, *parser.finish().calls)
    return [delta.id for delta in deltas if delta.id is not None]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("mistral", "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Rome\", \"days\": 3}", ONE),
        ("llama3", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome", "days": 3}}', ONE),
        ("llama3", '<|python_tag|>get_weather.call(city="Rome", days=3)', ONE),
        ("llama3", '{"type": "function", "name": "now", "parameters": {}}', [("now", {})]),
        ("llama3", '{"type": "function", "function": {"name": "now", "parameters": {}}}', [("now", {})]),
        ("llama4", "<|python_start|>[now()]<|python_end|>", [("now", {})]),
        ("hermes", '<tool_call>{"arguments": {"city": "Rome", "days": 3}, "name": "get_weather"}</tool_call>', ONE),
        ("hermes", '<tool_call>{"name": "now", "arguments": "{\\"a\\": \\"b\\"}"}</tool_call>', [("now", {"a": "b"})]),
        ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": 3}</tool_call>', ONE),
        ("hermes", '<tool_call>{"name": "now"}</tool_call>', [("now", {})]),
        ("hermes", '<tool_call>{"name": "now", "arguments": {"a": "a\nb"}}</tool_call>', [("now", {"a": "a\nb"})]),
        ("qwen-coder", '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', [("now", {})]),
        ("qwen-coder", "<tool_call><function=get_weather>\n<parameter=city>\n12\n</parameter></function></tool_call>",
         [("get_weather", {"city": "12"})]),
        ("smollm3", '<tool_call>{"name": "now", "arguments": {}}</tool_call>', [("now", {})]),
        ("gemma", "[get_weather('Rome', 3)]", ONE),
        ("gemma", '```json\n{"name": "now", "parameters": {}}\n```', [("now", {})]),
        ("phi4-mini", 'functools[{"name": "now", "arguments": {}}]', [("now", {})]),
        ("granite", '<tool_call>[{"name": "now", "arguments": {}}]', [("now", {})]),
        ("lfm2", "<|tool_call_start|>[now(a='Ro\\'me', b=(1, 2,), c={'a': {1: True}})]<|tool_call_end|>",
         [("now", {"a": "Ro'me", "b": [1, 2], "c": {"a": {"1": True}}})]),
        ("lfm2", "<|tool_call_start|>[get_weather(city=\"\\u00e9\\ud83d\\ude00\\x41\\q\")]<|tool_call_end|>",
         [("get_weather", {"city": "é😀A\\q"})]),
    ],
)  # fmt: skip
def test_other_spellings(name: str, text: str, expected: list[Call]) -> None:
    found = check_splits(FORMATS[name], text)
    assert as_calls(found) == expected
    assert found["text"] == ""
