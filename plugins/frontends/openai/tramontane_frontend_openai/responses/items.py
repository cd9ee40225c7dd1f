# SPDX-License-Identifier: Apache-2.0
"""Items: what a response is given and what it gives. Here they are checked, completed, and turned into messages."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tramontane.wire import FieldError, identifier
from tramontane_frontend_openai.messages import FileText, parts_text

Lookup = Callable[[str], dict[str, Any] | None]
"""A stored item by its id."""

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def new_id(kind: str) -> str:
    """An id for an item of some type."""
    return f"{_PREFIXES[kind]}_{uuid.uuid4().hex}"


def input_items(given: str | Sequence[Mapping[str, Any]] | None, lookup: Lookup) -> list[dict[str, Any]]:
    """The items of a request, with ids and in their long form; references are replaced by what they refer to.

    Raises:
        FieldError: An item that is none, or that no model can be given.
    """
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": given}]
    return [_item(item, f"input[{place}]", lookup) for place, item in enumerate(given)]


def _item(item: Mapping[str, Any], where: str, lookup: Lookup) -> dict[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else "item_reference" if "id" in item else None)
    if kind == "item_reference":
        found = lookup(_text(item, "id", where))
        if found is None:
            raise FieldError(f"{where} refers to an item that is not stored", param=f"{where}.id", status=404)
        return found
    make = _MAKERS.get(str(kind))
    if make is None:
        raise FieldError(
            f"{where} is of a type that this server does not know: {str(kind)[:80]}", param=f"{where}.type"
        )
    given = item.get("id")
    made_id = identifier(given, f"{where}.id") if isinstance(given, str) and given else new_id(str(kind))
    return {"id": made_id, "type": kind} | make(item, where)


def _message(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in _ROLES:
        raise FieldError(f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role")
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if role == "assistant" else "input_text"
        content = [{"type": kind, "text": content} | ({"annotations": []} if role == "assistant" else {})]
    if not isinstance(content, list):
        raise FieldError(f"{where}.content must be a text or a list of parts", param=f"{where}.content")
    return {"status": "completed", "role": role, "content": content}


def _function_call(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {name: _text(item, name, where) for name in ("call_id", "name", "arguments")}
    return found | {"status": "completed"}


def _function_call_output(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    output = item.get("output")
    if not isinstance(output, str | list):
        raise FieldError(f"{where}.output must be a text or a list of parts", param=f"{where}.output")
    return {"call_id": _text(item, "call_id", where), "output": output, "status": "completed"}


def _reasoning(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {}
    for name in ("summary", "content"):
        parts = item.get(name) or []
        if not isinstance(parts, list) or not all(
            isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in parts
        ):
            raise FieldError(f"{where}.{name} must be a list of texts", param=f"{where}.{name}")
        found[name] = parts
    return found | {"encrypted_content": None}


_MAKERS: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
}


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    found = item.get(name)
    if not isinstance(found, str):
        raise FieldError(f"{where}.{name} must be a text", param=f"{where}.{name}")
    return found


def messages(instructions: str | None, items: Iterable[Mapping[str, Any]], file_text: FileText) -> list[dict[str, Any]]:
    """A conversation as chat templates take it: what an assistant thought, said and called is one message.

    Raises:
        FieldError: A part that is no text.
    """
    found: list[dict[str, Any]] = []
    if instructions:
        found.append({"role": "system", "content": instructions})
    for place, item in enumerate(items):
        where = f"input[{place}]"
        if item["type"] == "function_call_output":
            output = item["output"]
            content = output if isinstance(output, str) else parts_text(output, f"{where}.output", file_text)
            found.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        elif item["type"] == "message" and item["role"] != "assistant":
            content = parts_text(item["content"], f"{where}.content", file_text)
            found.append({"role": _ROLES[item["role"]], "content": content})
        else:
            _extend_assistant(found, item, where, file_text)
    return found


def _extend_assistant(found: list[dict[str, Any]], item: Mapping[str, Any], where: str, file_text: FileText) -> None:
    """Add to the assistant's message, or begin one: a turn thinks, then speaks, then calls."""
    last = found[-1] if found and found[-1]["role"] == "assistant" else None
    ended = last is not None and (
        item["type"] == "reasoning" or (item["type"] == "message" and (last["content"] or "tool_calls" in last))
    )
    if last is None or ended:
        last = {"role": "assistant", "content": ""}
        found.append(last)
    if item["type"] == "reasoning":
        last["reasoning_content"] = "".join(part["text"] for part in item["content"] or item["summary"])
    elif item["type"] == "message":
        last["content"] = parts_text(item["content"], f"{where}.content", file_text)
    else:
        function = {"name": item["name"], "arguments": item["arguments"]}
        last.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})
