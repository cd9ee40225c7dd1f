# SPDX-License-Identifier: Apache-2.0
"""Chat templates: real templates against ``transformers`` and recorded renderings, and everything around them."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tramontane.chat import (
    ChatTemplate,
    TemplateError,
    TemplateFailedError,
    TemplateRefusedError,
    find_template,
)
from tramontane.chat.messages import plain_messages
from tramontane.checkpoint import Files
from tramontane.errors import RequestError

TEMPLATES = Path(__file__).parents[3] / "shared" / "data" / "templates"
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
NOON = datetime(2026, 11, 23, 12, 0, 0)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <b>",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "é"},
                "days": {"type": "integer", "description": "how many"},
            },
            "required": ["city"],
        },
    },
}
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "without system": (
        [
            {"role": "user", "content": "Hello 'you' \"there\" <x> é\n"},
            {"role": "assistant", "content": " Hi! "},
            {"role": "user", "content": "More?"},
        ],
        None,
    ),
    "with system": (
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "More?"},
        ],
        None,
    ),
    "with tools": (
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": '{"t": 20}'},
        ],
        [WEATHER],
    ),
}
#: Variables that a template of the collection expects from code of its own.
EXPECTED = {"llama.cpp/fireworks-ai-llama-3-firefunction-v2.jinja": {"functions": "[]", "datetime": "now"}}
#: Where a template of the collection looks for the tools: the engine puts them there, a caller of transformers has to.
TOOLS_AS = {"mistral.rs/smollm3.jinja": "xml_tools"}
#: These do what the sandbox of ``transformers`` refuses: queues made of lists, JSON of a generator, no tools.
BEYOND = ("Kimi-K2", "llama-cpp-deepseek-r1", "tool_use")


@cache
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TEMPLATES / "llamacpp-chat-template-cases.json").read_text(encoding="utf-8"))
    return found


@cache
def collection() -> dict[str, str]:
    found = {str(p.relative_to(TEMPLATES)): p.read_text(encoding="utf-8") for p in TEMPLATES.rglob("*.jinja")}
    for path in TEMPLATES.rglob("mistral.rs/*.json"):
        source = find_template(Files(), path)
        assert source is not None
        found |= {f"{path.name}: {name}": text for name, text in source.templates.items()}
    if TEMPLATES.is_dir():
        found |= {f"case: {case['name']}": case["template_str"] for case in recorded()["cases"]}
    return dict(sorted(found.items()))


def names_for(name: str) -> dict[str, Any]:
    return {
        **NAMES,
        **({"additional_special_tokens": ["<|a|>", "<|b|>", "<|c|>", "<|d|>"]} if "GigaChat-20B" in name else {}),
    }


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.full)])
def test_real_templates_render_as_in_transformers(step: int) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    if not TEMPLATES.is_dir():
        pytest.skip(f"needs the shared test data at {TEMPLATES}")
    equal = 0
    for name, text in list(collection().items())[::step]:
        template = ChatTemplate(text, names=names_for(name))
        extra = EXPECTED.get(name, {})
        for messages, tools in CONVERSATIONS.values():
            adapted = plain_messages(messages)
            template._habits_of(text).adapt(adapted)
            found = {TOOLS_AS[name]: tools} if name in TOOLS_AS else {}
            try:
                expected = utils.render_jinja_template(
                    [adapted], tools=tools, chat_template=text, add_generation_prompt=True,
                    **names_for(name), **extra, **found,
                )[0][0]  # fmt: skip
            except Exception as error:
                expected = error
            if isinstance(expected, Exception) and any(part in name for part in BEYOND):
                assert template.render(messages, tools=tools).text
            elif isinstance(expected, Exception):
                with pytest.raises(TemplateRefusedError) as raised:
                    template.render(messages, tools=tools, template_kwargs=extra)
                assert raised.value.message == str(expected), name
            else:
                assert template.render(messages, tools=tools, template_kwargs=extra).text == expected, name
                equal += 1
    assert equal > 350 / step


def test_recorded_renderings_are_reproduced() -> None:
    if not TEMPLATES.is_dir():
        pytest.skip(f"needs the shared test data at {TEMPLATES}")
    exact = 0
    for case in recorded()["cases"]:
        names = {"bos_token": case.get("bos_token", ""), "eos_token": case.get("eos_token", "")}
        template = ChatTemplate(case["template_str"], names=names)
        if case["jinja2_python"] == "match":
            expected = case["expected_output_jinja"] or case["expected_output"]
            messages = recorded()["conversation"] + case.get("extra_conversation", [])
            assert template.render(messages).text == expected, case["name"]
            exact += 1
        elif case["jinja2_python"] == "error TemplateError":
            with pytest.raises(TemplateRefusedError):
                template.render(recorded()["conversation"])
    assert exact >= 28


def render(text: str, messages: Any = None, **options: Any) -> str:
    names = options.pop("names", NAMES)
    template = ChatTemplate(text, names=names, clock=lambda: NOON)
    return template.render(messages or [{"role": "user", "content": "hi"}], **options).text


def test_the_variables_a_template_sees() -> None:
    assert render("{{ bos_token }}{{ messages[0].content }}{{ add_generation_prompt }}") == "<s>hiTrue"
    assert render("{{ enable_thinking is defined }} {{ tools }} {{ documents }}") == "False None None"
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"
    assert render("{{ reasoning_effort }}", reasoning_effort="high") == "high"
    assert render("{{ documents[0].title }}", documents=[{"title": "T", "text": "x"}]) == "T"
    assert render("{{ tools[0].function.name }}", tools=[WEATHER]) == "get_weather"
    assert render("{{ a }}{{ b.c }}", template_kwargs={"a": 1, "b": {"c": "d"}}) == "1d"
    assert render("{{ strftime_now('%d %b %Y') }}") == "23 Nov 2026"


def test_the_language_is_that_of_transformers() -> None:
    assert render("  {% if true %}\n  x\n  {% endif %}\ny\n") == "  x\ny"
    assert render("{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}"
                  "{{ i }}{% endfor %}") == "013"  # fmt: skip
    assert render("a{% generation %}b{% endgeneration %}c") == "abc"
    assert render("""{{ {"b": "<é>'", "a": [1, none]} | tojson }}""") == """{"b": "<é>'", "a": [1, null]}"""
    assert render("{{ {'a': 'é'} | tojson(ensure_ascii=true, indent=1) }}") == '{\n "a": "\\u00e9"\n}'
    assert render("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}") == '{"a":2,"b":1}'
    assert (
        render("{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}")
        == "4"
    )
    assert render("{{ messages[::-1][0].role ~ 1 }} {{ 'x' in ['x'] }} {{ 'abc'[1:] }} {{ 7 // 2 }}{{ 2 ** 3 }}") == (
        "user1 True bc 38"
    )
    assert render("{{ dict(a=1).items() | list }}{{ 'a,b'.split(',') | join('+') }}") == "[('a', 1)]a+b"


def test_a_templates_refusal_is_its_own_message() -> None:
    with pytest.raises(TemplateRefusedError) as raised:
        render("{{ raise_exception('Roles must alternate!') }}")
    assert raised.value.message == "Roles must alternate!"
    assert isinstance(raised.value, RequestError)


def test_a_failing_template_is_an_error_with_its_reason() -> None:
    with pytest.raises(TemplateFailedError, match=r"UndefinedError: .*'nothing' is undefined"):
        render("{{ nothing.at.all }}")
    with pytest.raises(TemplateFailedError, match="TypeError"):
        render("{{ 'a' + 1 }}")
    with pytest.raises(TemplateError, match="line 2"):
        ChatTemplate("ok\n{% if %}")


@pytest.mark.parametrize(
    "name", ["messages", "tools", "chat_template", "tokenize", "bos_token", "raise_exception", "a b"]
)
def test_request_variables_cannot_replace_internals(name: str) -> None:
    with pytest.raises(RequestError, match=f"may not set {name}"):
        render("x", template_kwargs={name: True})


def test_contents_of_parts() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    only_text = "{% for m in messages %}[{{ m.content + '' }}]{% endfor %}"
    only_parts = "{% for m in messages %}[{% for c in m['content'] %}{{ c['text'] }}.{% endfor %}]{% endfor %}"
    both = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for c in m.content %}<{{ c.text }}>{% endfor %}{% endif %}{% endfor %}"
    )
    assert render(only_text, parts) == "[a\nb]"
    assert render(only_parts, parts) == "[a.b.]"
    assert render(both, parts) == "<a><b>"
    assert render(only_parts) == "[hi.]"
    assert render(both) == "hi"
    assert render("{{ messages[0].content }}", parts) == "a\nb"
    image = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    assert render(only_parts, image) == "[.a.]"


def test_arguments_of_tool_calls_are_what_the_template_can_take() -> None:
    def conversation(arguments: Any) -> list[dict[str, Any]]:
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]

    base = "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    as_object = base + "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    as_text = base + "{{ '<' + c.function.arguments + '>' }}{% endfor %}{% endfor %}"
    for given in ({"a": "é"}, '{"a": "é"}'):
        assert render(as_object, conversation(given)) == 'q{"a": "é"}'
        assert render(as_text, conversation(given)) == 'q<{"a": "é"}>'
    assert render(as_object, conversation("not json")) == 'q"not json"'


def test_reasoning_is_found_under_every_name() -> None:
    for name in ("reasoning_content", "reasoning", "thinking"):
        messages = [{"role": "assistant", "content": "x", name: "why"}]
        assert render("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}", messages) == "whywhy"


def test_the_last_message_can_be_continued() -> None:
    chatml = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    trimming = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }} !{% endfor %}"
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Once upon "}]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    assert render(chatml, messages, **options) == "<user>q</user><assistant>Once upon "
    assert render(trimming, messages, **options) == "<user>q !<assistant>Once upon"
    messages[1]["content"] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    parts = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for c in m.content %}<{{ c.text }}>{% endfor %}{% endif %}{% endfor %}"
    )
    assert render(parts, messages, **options) == "q<a><b"
    with pytest.raises(RequestError, match="exclude each other"):
        render(chatml, messages, continue_final_message=True)
    with pytest.raises(TemplateFailedError, match="does not write the last message"):
        render("{{ messages[0].content }}", messages, **options)
    with pytest.raises(RequestError, match="a last message with text"):
        render(chatml, [{"role": "assistant", "content": None}], **options)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "list of at least one message"),
        ([], "list of at least one message"),
        ([{"content": "x"}], r'messages\[0\] must be an object with a "role"'),
        ([{"role": "user", "content": "x"}, 3], r"messages\[1\]"),
        ([{"role": "", "content": "x"}], r"messages\[0\]"),
        ([{"role": "user", "content": object()}], r"messages\[0\]\.content must be plain data"),
        ([{"role": "user", 3: "x"}], "key that is not a text"),
        ([{"role": "user", "content": b"x"}], "plain data"),
    ],
)
def test_bad_conversations_are_refused(messages: Any, message: str) -> None:
    template = ChatTemplate("{{ messages }}")
    with pytest.raises(RequestError, match=message):
        template.render(messages)


def test_what_callers_pass_in_is_not_changed() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "tool_calls": [CALL]},
    ]
    tools = [WEATHER]
    before = copy.deepcopy((messages, tools))
    render("{% set _ = messages.append(1) %}{{ messages | length }}", messages, tools=tools)
    assert (messages, tools) == before


def test_a_template_says_what_it_looks_at() -> None:
    assert ChatTemplate("{% if tools %}{{ tools | tojson }}{% endif %}{{ enable_thinking }}").variables == {
        "tools", "enable_thinking",
    }  # fmt: skip
    assert not ChatTemplate("{{ messages }}").supports_tools


def test_renderings_in_threads_do_not_meet() -> None:
    template = ChatTemplate("{% for i in range(n) %}{{ messages[0].content }}{% endfor %}")

    def one(i: int) -> bool:
        text = template.render([{"role": "user", "content": str(i)}], template_kwargs={"n": 200 + i}).text
        return text == str(i) * (200 + i)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(40)))
