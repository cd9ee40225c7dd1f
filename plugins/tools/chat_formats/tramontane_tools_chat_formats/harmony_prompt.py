# SPDX-License-Identifier: Apache-2.0
"""Writes a conversation as gpt-oss was trained to see it, in place of its template, which differs in details.

The variables are those of a chat template. Beside the usual ones it looks at ``model_identity``, ``knowledge_cutoff``,
``current_date`` (``None`` leaves it out), ``valid_channels``, ``builtin_tools`` (``browser``, ``python``),
``keep_analysis`` and ``system_message`` (``False`` leaves that message out). Source: https://github.com/openai/harmony.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from tramontane_tools_chat_formats.typescript import namespace

_IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
_CHANNELS = ("analysis", "commentary", "final")
_BROWSER_ABOUT = """Tool for browsing.
The `cursor` appears in brackets before each browsing display: `[{cursor}]`.
Cite information from the tool using the following format:
`【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.
Do not quote more than 10 words directly from the tool output.
sources=web (default: web)"""
_PYTHON_ABOUT = (
    "Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. This tool "
    "should be used for internal reasoning, but not for code that is intended to be visible to the user (e.g. when "
    "creating plots, tables, or files).\n\nWhen you send a message containing Python code to python, it will be "
    "executed in a stateful Jupyter notebook environment. python will respond with the output of the execution or time "
    "out after 120.0 seconds. The drive at '/mnt/data' can be used to save and persist user files. Internet "
    "access for this "
    "session is UNKNOWN. Depends on the cluster."
)
_MINUS_ONE = {"type": "number", "default": -1}
_BROWSER = [
    {
        "name": "search",
        "description": "Searches for information related to `query` and displays `topn` results.",
        "parameters": {
            "properties": {
                "query": {"type": "string"},
                "topn": {"type": "number", "default": 10},
                "source": {"type": "string"},
            },
            "required": ["query"],
        },
    },
    {
        "name": "open",
        "description": "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, showing "
        "`num_lines` lines.\nValid link ids are displayed with the formatting: `【{id}†.*】`.\nIf `cursor` is not "
        "provided, the most recent page is implied.\nIf `id` is a string, it is treated as a fully qualified URL "
        "associated with `source`.\nIf `loc` is not provided, the viewport will be positioned at the beginning of the "
        "document or centered on the most relevant passage, if available.\nUse this function without `id` to scroll to "
        "a new location of an opened page.",
        "parameters": {
            "properties": {
                "id": {"type": ["number", "string"], "default": -1},
                "cursor": _MINUS_ONE,
                "loc": _MINUS_ONE,
                "num_lines": _MINUS_ONE,
                "view_source": {"type": "boolean", "default": False},
                "source": {"type": "string"},
            },
        },
    },
    {
        "name": "find",
        "description": "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.",
        "parameters": {
            "properties": {"pattern": {"type": "string"}, "cursor": _MINUS_ONE},
            "required": ["pattern"],
        },
    },
]


def write_prompt(variables: Mapping[str, Any]) -> str:
    """The text of a prompt, from the variables of a chat template."""
    messages = list(variables["messages"])
    tools = [tool.get("function", tool) for tool in variables.get("tools") or ()]
    instructions = None
    if messages and messages[0]["role"] in ("system", "developer"):
        instructions = messages.pop(0)["content"]
    parts = []
    if variables.get("system_message", True):
        parts.append(_message("system", _system(variables, bool(tools))))
    developer = _developer(instructions, tools)
    if developer:
        parts.append(_message("developer", developer))
    parts += _conversation(messages, keep=bool(variables.get("keep_analysis")))
    if variables.get("add_generation_prompt"):
        parts.append("<|start|>assistant")
    return "".join(parts)


def _message(header: str, content: str, end: str = "<|end|>") -> str:
    return f"<|start|>{header}<|message|>{content}{end}"


def _system(variables: Mapping[str, Any], has_tools: bool) -> str:
    date = variables.get("current_date", datetime.now().strftime("%Y-%m-%d"))
    opening = [variables.get("model_identity") or _IDENTITY]
    opening.append(f"Knowledge cutoff: {variables.get('knowledge_cutoff') or '2024-06'}")
    opening += [f"Current date: {date}"] if date else []
    sections = ["\n".join(opening), f"Reasoning: {variables.get('reasoning_effort') or 'medium'}"]
    builtin = variables.get("builtin_tools") or ()
    described = []
    if "browser" in builtin:
        described.append(namespace("browser", _BROWSER, _BROWSER_ABOUT))
    if "python" in builtin:
        described.append(f"## python\n\n{_PYTHON_ABOUT}")
    sections += ["# Tools", *described] if described else []
    channels = ", ".join(variables.get("valid_channels") or _CHANNELS)
    last = f"# Valid channels: {channels}. Channel must be included for every message."
    if has_tools:
        last += "\nCalls to these tools must go to the commentary channel: 'functions'."
    return "\n\n".join([*sections, last])


def _developer(instructions: str | None, tools: Sequence[Mapping[str, Any]]) -> str:
    sections = [f"# Instructions\n\n{instructions}"] if instructions else []
    sections += [f"# Tools\n\n{namespace('functions', tools)}"] if tools else []
    return "\n\n".join(sections)


def _conversation(messages: Sequence[Mapping[str, Any]], keep: bool) -> Iterator[str]:
    """Messages in order. Reasoning that led to an answer is left out once the conversation has gone on."""
    finals = [i for i, m in enumerate(messages) if m["role"] == "assistant" and not m.get("tool_calls")]
    settled = max((i for i in finals if i + 1 < len(messages)), default=-1)
    called: dict[str, str] = {}
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            for call in message.get("tool_calls") or ():
                called[call.get("id") or ""] = call.get("function", call)["name"]
            yield from _assistant(message, keep or place > settled)
        elif message["role"] == "tool":
            name = message.get("name") or called.get(message.get("tool_call_id") or "", "unknown")
            bare = "channel" in message and message["channel"] is None
            route = "" if bare else " to=assistant<|channel|>commentary"
            yield _message(f"functions.{name}{route}", _text(message.get("content")))
        else:
            role = "developer" if message["role"] == "system" else message["role"]
            yield _message(role, _text(message.get("content")))


def _assistant(message: Mapping[str, Any], thoughts: bool) -> Iterator[str]:
    reasoning = message.get("reasoning_content")
    if thoughts and reasoning:
        yield _message("assistant<|channel|>analysis", reasoning)
    content, calls = _text(message.get("content")), message.get("tool_calls") or ()
    if content:
        yield _message(f"assistant<|channel|>{'commentary' if calls else 'final'}", content)
    for call in calls:
        function = call.get("function", call)
        arguments = function.get("arguments", {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        header = f"assistant to=functions.{function['name']}<|channel|>commentary <|constrain|>json"
        yield _message(header, text, "<|call|>")


def _text(content: Any) -> str:
    """A message's content: a text, or parts of which the texts count."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and "text" in part)
    return content or ""
