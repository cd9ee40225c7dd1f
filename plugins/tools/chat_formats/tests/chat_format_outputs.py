# SPDX-License-Identifier: Apache-2.0
"""How each format writes calls, for the tests: written by hand from the models' templates, not from the parsers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

Call = tuple[str, dict[str, Any]]
Write = Callable[[Sequence[Call]], str]


def named(name: str, arguments: Any, key: str = "arguments", name_key: str = "name") -> str:
    return json.dumps({name_key: name, key: arguments}, ensure_ascii=False)


def objects(calls: Sequence[Call], **keys: str) -> str:
    return "[" + ", ".join(named(name, arguments, **keys) for name, arguments in calls) + "]"


def python(value: Any) -> str:
    return repr(value)


def python_calls(calls: Sequence[Call], joint: str = ", ") -> str:
    return joint.join(
        f"{name}({', '.join(f'{key}={python(value)}' for key, value in arguments.items())})"
        for name, arguments in calls
    )


def unquoted(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def each(template: Callable[[str, dict[str, Any]], str], joint: str = "\n") -> Write:
    return lambda calls: joint.join(template(name, arguments) for name, arguments in calls)


def hermes(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{named(name, arguments)}\n</tool_call>"


def function_tags(name: str, arguments: dict[str, Any]) -> str:
    parameters = "".join(f"<parameter={key}>\n{unquoted(value)}\n</parameter>\n" for key, value in arguments.items())
    return f"<function={name}>\n{parameters}</function>"


def deepseek3(name: str, arguments: dict[str, Any]) -> str:
    body = json.dumps(arguments, ensure_ascii=False)
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{body}\n```<｜tool▁call▁end｜>"


def deepseek31(name: str, arguments: dict[str, Any]) -> str:
    return f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{json.dumps(arguments, ensure_ascii=False)}<｜tool▁call▁end｜>"


def deepseek32(name: str, arguments: dict[str, Any]) -> str:
    parameters = "".join(
        f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">{unquoted(value)}'
        "</｜DSML｜parameter>\n"
        for key, value in arguments.items()
    )
    return f'<｜DSML｜invoke name="{name}">\n{parameters}</｜DSML｜invoke>'


def invoke(name: str, arguments: dict[str, Any]) -> str:
    parameters = "".join(f'<parameter name="{key}">{unquoted(value)}</parameter>\n' for key, value in arguments.items())
    return f'<invoke name="{name}">\n{parameters}</invoke>'


def glm45(name: str, arguments: dict[str, Any]) -> str:
    parameters = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{unquoted(value)}</arg_value>\n" for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{parameters}</tool_call>"


def kimi(calls: Sequence[Call]) -> str:
    inside = "".join(
        f"<|tool_call_begin|>functions.{name}:{i}<|tool_call_argument_begin|>"
        f"{json.dumps(arguments, ensure_ascii=False)}<|tool_call_end|>"
        for i, (name, arguments) in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inside}<|tool_calls_section_end|>"


def harmony(calls: Sequence[Call]) -> str:
    """After ``<|start|>assistant``; the last ``<|call|>`` ends the answer and is no text."""
    return "<|start|>assistant".join(
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
        f"{json.dumps(arguments, ensure_ascii=False)}<|call|>"
        for name, arguments in calls
    )


def around(before: str, after: str, write: Write) -> Write:
    return lambda calls: before + write(calls) + after


WRITERS: dict[str, Write] = {
    "hermes": each(hermes),
    "qwen-coder": each(lambda name, arguments: f"<tool_call>\n{function_tags(name, arguments)}\n</tool_call>"),
    "seed": around("<seed:tool_call>\n", "\n</seed:tool_call>", each(function_tags)),
    "llama3": each(lambda name, arguments: named(name, arguments, "parameters"), "; "),
    "llama4": around("[", "]", python_calls),
    "functionary": each(
        lambda name, arguments: f"<function={name}>{json.dumps(arguments, ensure_ascii=False)}</function>"
    ),
    "mistral": around("[TOOL_CALLS] ", "", objects),
    "mistral-v11": each(
        lambda name, arguments: f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}", ""
    ),
    "mistral-think": each(
        lambda name, arguments: f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}", ""
    ),
    "deepseek-v3": around("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", each(deepseek3)),
    "deepseek-v31": around("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", each(deepseek31, "")),
    "deepseek-v32": around("<｜DSML｜function_calls>\n", "\n</｜DSML｜function_calls>", each(deepseek32)),
    "gemma": around("```tool_code\n", "\n```", lambda calls: python_calls(calls, "\n")),
    "glm4": each(lambda name, arguments: f"{name}\n{json.dumps(arguments, ensure_ascii=False)}"),
    "glm45": each(glm45),
    "phi4-mini": around("<|tool_call|>", "<|/tool_call|>", objects),
    "granite": around("<|tool_call|>", "", objects),
    "command-r": around(
        "Action:\n```json\n", "```", lambda calls: objects(calls, key="parameters", name_key="tool_name")
    ),
    "command-r7b": around(
        "<|START_ACTION|>\n", "\n<|END_ACTION|>", lambda calls: objects(calls, key="parameters", name_key="tool_name")
    ),
    "smollm3": around("<code>\n", "\n</code>", lambda calls: python_calls(calls, "\n")),
    "lfm2": around("<|tool_call_start|>[", "]<|tool_call_end|>", python_calls),
    "hunyuan": around("<tool_calls>\n", "\n</tool_calls>", objects),
    "kimi-k2": kimi,
    "minimax-m1": around("<tool_calls>\n", "\n</tool_calls>", each(named)),
    "minimax-m2": around("<minimax:tool_call>\n", "\n</minimax:tool_call>", each(invoke)),
    "nemotron": around("<TOOLCALL>", "</TOOLCALL>", objects),
    "apriel": around("<tool_calls>", "</tool_calls>", objects),
    "apertus": around(
        "<|tools_prefix|>[",
        "]<|tools_suffix|>",
        each(lambda name, arguments: json.dumps({name: arguments}, ensure_ascii=False), ", "),
    ),
    "firefunction": around("functools", "", objects),
    "plain-json": each(named, "\n"),
    "harmony": harmony,
}
BARE = frozenset({"llama3", "llama4", "glm4", "plain-json"})
"""Formats without a marker: only tools that are offered are called, and only where a line begins."""
