# SPDX-License-Identifier: Apache-2.0
"""Conversations of content blocks, as chat templates take them.

Nothing is ever fetched: a block that names a URL is refused, so no request can make the server call another machine.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tramontane.wire import FieldError

_ROLES = ("user", "assistant", "system")


def chat_messages(system: Any, given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages for the template: the system's blocks first, results of tools as messages of their own.

    Raises:
        FieldError: A role or a block that is none, or that a text model cannot take.
    """
    if not given:
        raise FieldError("messages is empty", param="messages")
    found: list[dict[str, Any]] = []
    if system:
        found.append({"role": "system", "content": _text(system, "system")})
    for place, message in enumerate(given):
        where, role = f"messages[{place}]", message.get("role")
        if role not in _ROLES:
            raise FieldError(f"role must be one of {', '.join(_ROLES)}", param=f"{where}.role")
        content = message.get("content")
        if role == "assistant":
            found.append(_assistant(content, f"{where}.content"))
        elif role == "system":
            found.append({"role": "system", "content": _text(content, f"{where}.content")})
        else:
            found += _user(content, f"{where}.content")
    return found


def continues(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last message is an assistant's beginning that the answer goes on from."""
    last = messages[-1]
    return last["role"] == "assistant" and "tool_calls" not in last


def _blocks(content: Any, where: str) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list | tuple) or not all(isinstance(block, Mapping) for block in content):
        raise FieldError("must be a text or a list of blocks", param=where)
    return list(content)


def _text(content: Any, where: str) -> str:
    blocks = _blocks(content, where)
    return "\n".join(_block_text(block, f"{where}[{place}]") for place, block in enumerate(blocks))


def _block_text(block: Mapping[str, Any], where: str) -> str:
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    if kind == "document" and isinstance(block.get("source"), Mapping):
        title = block.get("title")
        name = f"Document {title[:200]!r}:\n" if isinstance(title, str) else ""
        return name + _source(block["source"], f"{where}.source")
    if kind == "image":
        raise FieldError("this model takes text, not images", param=where)
    raise FieldError(f"a block of type {str(kind)[:80]!r} has no place here", param=where)


def _source(source: Mapping[str, Any], where: str) -> str:
    kind, data = source.get("type"), source.get("data")
    if kind == "text" and isinstance(data, str):
        return data
    if kind == "base64" and isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise FieldError("this model takes text files only", param=where) from None
    if kind == "content":
        return _text(source.get("content"), f"{where}.content")
    raise FieldError("the server fetches nothing; send the document itself", param=where)


def _user(content: Any, where: str) -> list[dict[str, Any]]:
    """Results of tools first: they answer the assistant's message before this one."""
    results, texts = [], []
    for place, block in enumerate(_blocks(content, where)):
        at = f"{where}[{place}]"
        if block.get("type") != "tool_result":
            texts.append(_block_text(block, at))
            continue
        if not isinstance(block.get("tool_use_id"), str):
            raise FieldError("a result must name the tool's use", param=f"{at}.tool_use_id")
        said = _text(block.get("content") or "", f"{at}.content")
        shown = f"Error: {said}" if block.get("is_error") else said
        results.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": shown})
    return [*results, *([{"role": "user", "content": "\n".join(texts)}] if texts or not results else [])]


def _assistant(content: Any, where: str) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for place, block in enumerate(_blocks(content, where)):
        at, kind = f"{where}[{place}]", block.get("type")
        if kind == "thinking" and isinstance(block.get("thinking"), str):
            thoughts.append(block["thinking"])
        elif kind == "tool_use":
            calls.append(_call(block, at))
        elif kind != "redacted_thinking":
            texts.append(_block_text(block, at))
    found: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    if thoughts:
        found["reasoning_content"] = "\n".join(thoughts)
    if calls:
        found["tool_calls"] = calls
    return found


def _call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
        raise FieldError("a tool's use needs an id and a name", param=where)
    if not isinstance(block.get("input"), Mapping):
        raise FieldError("a tool's input must be an object", param=f"{where}.input")
    arguments = orjson.dumps(block["input"]).decode()
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}
