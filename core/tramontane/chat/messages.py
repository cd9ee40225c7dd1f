# SPDX-License-Identifier: Apache-2.0
"""Conversations as plain data, and their small differences between templates.

What a template gets to see is rebuilt from JSON types, so that no object with methods of its own reaches it. Two
things that templates disagree about are settled by trying the template on a small conversation: whether a message's
content may be a list of parts, and whether a tool call's arguments are an object or JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from tramontane.chat.errors import TemplateLimitError
from tramontane.errors import RequestError

_DEEPEST = 64
_REASONING = ("reasoning_content", "reasoning", "thinking")


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """JSON data from anything that looks like it: mappings, sequences, scalars, pydantic models.

    Raises:
        RequestError: Something else is in it, or it is nested too deeply.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if depth == _DEEPEST:
        raise RequestError(f"{where} is nested more than {_DEEPEST} levels deep")
    if callable(getattr(value, "model_dump", None)):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return {_key(key, where): plain(item, f"{where}.{key}"[:200], depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item, f"{where}[{i}]"[:200], depth + 1) for i, item in enumerate(value)]
    raise RequestError(f"{where} must be plain data (text, numbers, lists, objects), got {type(value).__name__}")


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise RequestError(f"{where} has a key that is not a text: {key!r}")
    return str.__str__(key)


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """The messages of a conversation as plain data, reasoning under all the names templates look for.

    Raises:
        RequestError: They are not a list of objects with a role.
    """
    found = plain(messages, "messages")
    if not isinstance(found, list) or not found:
        raise RequestError("messages must be a list of at least one message")
    for i, message in enumerate(found):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not message["role"]:
            raise RequestError(f'messages[{i}] must be an object with a "role"')
        reasoning = next((message[name] for name in _REASONING if message.get(name) is not None), None)
        if reasoning is not None:
            for name in _REASONING:
                message.setdefault(name, reasoning)
    return found


def named_text(name: str, text: str) -> str:
    """A text file as a message tells it: wherever it is attached, the model reads the same."""
    return f"File {name[:200]!r}:\n{text}"


_MEDIA = {"image": "an image", "input_image": "an image", "audio": "sound", "input_audio": "sound", "video": "a video",
          "input_video": "a video"}  # fmt: skip


def media_kind(message: Any) -> str | None:
    """What a message holds besides text, in words: ``an image``, ``sound``, ``a video``; ``None`` if nothing.

    Content parts are told by their ``type``, in the spellings of templates (``image``) and of APIs (``image_url``).
    """
    content = message.get("content") if isinstance(message, Mapping) else None
    for part in content if isinstance(content, Sequence) and not isinstance(content, str) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(kind, str) and kind.removesuffix("_url") in _MEDIA:
            return _MEDIA[kind.removesuffix("_url")]
    return None


Render = Callable[[list[dict[str, Any]], list[Any] | None], str]
"""Renders messages and tools."""


@frozen
class Habits:
    """What a template can take."""

    text: bool = True
    """``content`` as a text."""
    parts: bool = False
    """``content`` as a list of parts."""
    objects: bool = True
    """A tool call's ``arguments`` as an object."""
    needs_tools: bool = False
    """Without tools it wants an empty list."""

    @classmethod
    def of(cls, render: Render) -> Habits:
        """Try a template. ``render`` raises where it fails.

        Raises:
            TemplateLimitError: It never ends.
        """
        conversation = [{"role": "user", "content": _NEEDLE}]
        text = _mentions(render, conversation)
        needs_tools = not text and _mentions(lambda messages, _: render(messages, []), conversation)
        if needs_tools:
            text, given = True, render
            render = lambda messages, tools: given(messages, tools or [])  # noqa: E731
        parts = _mentions(
            render, [{"role": "user", "content": [{"type": "text", "text": _NEEDLE}]}], unlike=("'type'", '"type"')
        )
        return cls(text=text or not parts, parts=parts, objects=_takes_objects(render), needs_tools=needs_tools)

    def adapt(self, messages: list[dict[str, Any]]) -> None:
        """Change messages in place to what the template can take."""
        for message in messages:
            content = message.get("content")
            if isinstance(content, list) and not self.parts and all(map(_is_text, content)):
                message["content"] = "\n".join(part if isinstance(part, str) else part["text"] for part in content)
            elif isinstance(content, str) and not self.text:
                message["content"] = [{"type": "text", "text": content}]
            for call in message.get("tool_calls") or ():
                function = call.get("function") if isinstance(call, dict) else None
                if isinstance(function, dict):
                    _adapt_arguments(function, self.objects)


_NEEDLE = "needle7f3a"
_OTHER = "straw91bc"


def _is_text(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("type", "text") in ("text", "input_text", "output_text") and isinstance(part.get("text"), str)
    return isinstance(part, str)


def _adapt_arguments(function: dict[str, Any], objects: bool) -> None:
    arguments = function.get("arguments")
    if isinstance(arguments, str) and objects:
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            return
        if isinstance(parsed, dict):
            function["arguments"] = parsed
    elif isinstance(arguments, dict) and not objects:
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)


def _mentions(render: Render, messages: list[dict[str, Any]], unlike: tuple[str, ...] = ()) -> bool:
    """Whether the template writes the needle, and not by printing the data around it."""
    try:
        text = render(messages, None)
    except TemplateLimitError:
        raise
    except Exception:  # whatever a template does with a conversation it was not written for
        return False
    return _NEEDLE in text and not any(sign in text for sign in unlike)


def _takes_objects(render: Render) -> bool:
    """Objects, unless only JSON text comes out as it should."""

    def conversation(arguments: Any) -> list[dict[str, Any]]:
        call = {"id": "call00001", "type": "function", "function": {"name": "lookup", "arguments": arguments}}
        return [
            {"role": "user", "content": _OTHER},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]

    as_object = _mentions(render, conversation({_OTHER: _NEEDLE}), unlike=(f"{{'{_OTHER}'",))
    as_text = _mentions(render, conversation(json.dumps({_OTHER: _NEEDLE})), unlike=('\\"',))
    return as_object or not as_text
