# SPDX-License-Identifier: Apache-2.0
"""Reads JSON from a source, piece by piece, and gives the text on as it comes.

It finds where a value ends; it does not build the value, so nesting costs one stack entry and nothing recurses. A
control character inside a string, which models write although JSON forbids it, is given on escaped.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tramontane.chat.parsing.source import Give, Source, Steps

_BETWEEN = re.compile(r"[\s,:0-9a-zA-Z+.\-]+")
_IN_STRING = re.compile(r'[^"\\]+')
_SCALAR = re.compile(r"[0-9a-zA-Z+.\-]+")
_CONTROL = re.compile(r"[\x00-\x1f]")
_CLOSERS = {"{": "}", "[": "]"}
_LONGEST_SCALAR = 4096


def json_value(source: Source, give: Give) -> Steps[bool]:
    """Read one value, the white space before it included, and give on its text.

    Returns:
        Whether a whole value came. If not, reading stopped before the first character that cannot belong to it.
    """
    first = yield from source.skip_space()
    if first == '"':
        return (yield from json_string(source, give))
    if first not in ("{", "["):
        scalar: list[str] = []
        yield from source.run(_SCALAR, scalar.append)
        give("".join(scalar))
        return _is_scalar("".join(scalar))
    open_brackets: list[str] = []
    while True:
        character = yield from source.run(_BETWEEN, give)
        if character == '"':
            if not (yield from json_string(source, give)):
                return False
        elif character in _CLOSERS:
            open_brackets.append(_CLOSERS[character])
            give(source.take(1))
        elif character and character == open_brackets[-1]:
            open_brackets.pop()
            give(source.take(1))
            if not open_brackets:
                return True
        else:
            return False


def json_string(source: Source, give: Give) -> Steps[bool]:
    """Read a string that begins here, quotes included."""

    def escaped(text: str) -> None:
        give(_CONTROL.sub(lambda match: json.dumps(match[0])[1:-1], text))

    give(source.take(1))
    while True:
        character = yield from source.run(_IN_STRING, escaped)
        if character == '"':
            give(source.take(1))
            return True
        if not character:
            return False
        escape = source.take(1)
        if not (yield from source.peek()):
            return False
        give(escape + source.take(1))


def short_string(source: Source, limit: int) -> Steps[str | None]:
    """Read a string and its value; ``None`` if there is none, or it is longer than ``limit`` characters."""
    if (yield from source.skip_space()) != '"':
        return None
    text = [source.take(1)]
    left = limit
    while left > 0:
        character = yield from source.peek()
        if not character:
            return None
        text.append(source.take(1))
        left -= 1
        if character == '"':
            value = loads("".join(text))
            return value if isinstance(value, str) else None
        if character == "\\":
            if not (yield from source.peek()):
                return None
            text.append(source.take(1))
    return None


class NotJson(ValueError):
    """A text is not JSON, or is nested too deeply."""


def loads(text: str) -> Any:
    """The value of a JSON text; ``NotJson`` itself where there is none (JSON has a ``null`` of its own)."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NotJson


def _refuse(constant: str) -> Any:
    raise NotJson(constant)


def _is_scalar(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_SCALAR and loads(text) is not NotJson
