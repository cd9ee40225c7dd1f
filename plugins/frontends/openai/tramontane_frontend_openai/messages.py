# SPDX-License-Identifier: Apache-2.0
"""Conversations as clients send them, as chat templates take them.

Nothing is ever fetched: a part that names a URL is refused, so no request can make the server call another machine.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tramontane.chat.messages import named_text
from tramontane.wire import FieldError

FileText = Callable[[str, str], tuple[str, str]]
"""The name and the text of an uploaded file, by its id and the field that names it."""

_TEXT_TYPES = ("text", "input_text", "output_text")
_ROLES = {"developer": "system", "function": "tool"}
"""OpenAI's names for what templates call otherwise."""


def chat_messages(given: Sequence[Mapping[str, Any]], file_text: FileText) -> list[dict[str, Any]]:
    """Messages for the template.

    Raises:
        FieldError: A role or content that is no such thing, or that a text model cannot take.
    """
    if not given:
        raise FieldError("messages is empty", param="messages")
    return [_message(message, f"messages[{place}]", file_text) for place, message in enumerate(given)]


def _message(message: Mapping[str, Any], where: str, file_text: FileText) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise FieldError(f"{where} must have a role", param=f"{where}.role")
    made = {**message, "role": _ROLES.get(role, role)}
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        made["content"] = ""
    elif isinstance(content, list):
        made["content"] = parts_text(content, f"{where}.content", file_text)
    elif content is not None and not isinstance(content, str):
        raise FieldError(f"{where}.content must be a text or a list of parts", param=f"{where}.content")
    if message.get("tool_calls") is not None:
        made["tool_calls"] = _calls(message["tool_calls"], f"{where}.tool_calls")
    return made


def _calls(given: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(given, list):
        raise FieldError(f"{where} must be a list", param=where)
    for place, call in enumerate(given):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise FieldError(f"{where}[{place}] must be a call of a function", param=f"{where}[{place}]")
        if not isinstance(function.get("arguments", ""), str):
            raise FieldError(f"{where}[{place}].function.arguments must be JSON text", param=f"{where}[{place}]")
    return given


def parts_text(parts: Sequence[Any], where: str, file_text: FileText) -> str:
    """The text of a list of content parts, in their order.

    Raises:
        FieldError: A part that is no text and no text file.
    """
    return "\n".join(_part_text(part, f"{where}[{place}]", file_text) for place, part in enumerate(parts))


def _part_text(part: Any, where: str, file_text: FileText) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXT_TYPES and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if kind == "file" and isinstance(part.get("file"), Mapping):
        return _file(part["file"], f"{where}.file", file_text)
    if kind == "input_file":
        return _file(part, where, file_text)
    if kind in ("image_url", "input_image", "input_audio", "audio_url", "video_url", "input_video"):
        raise FieldError(f"{where}: this model takes text, not {kind}", param=where)
    raise FieldError(f"{where} is not a part of a message", param=where)


def _file(given: Mapping[str, Any], where: str, file_text: FileText) -> str:
    if isinstance(given.get("file_id"), str):
        name, text = file_text(given["file_id"], f"{where}.file_id")
    elif isinstance(given.get("file_data"), str):
        name, text = str(given.get("filename") or "file"), _file_data(given["file_data"], f"{where}.file_data")
    elif given.get("file_url") is not None:
        raise FieldError("the server fetches no URLs; send the file itself", param=f"{where}.file_url")
    else:
        raise FieldError(f"{where} needs file_id or file_data", param=where)
    return named_text(name, text)


def _file_data(data: str, where: str) -> str:
    """The text in a data URL or in plain base64."""
    encoded = data.partition(",")[2] if data.startswith("data:") else data
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise FieldError(f"{where} must be a text file in base64", param=where) from None
