# SPDX-License-Identifier: Apache-2.0
"""Reads Python literals from a source and gives them on as JSON. Nothing is evaluated and nothing recurses.

Literals are strings, numbers, ``True False None`` (and JSON's words for them), lists, tuples and dictionaries, as
models write them in calls such as ``[weather(city="Rome", days=[1, 2])]``.
"""

from __future__ import annotations

import json
import re

from tramontane.chat.parsing.json_values import NotJson, loads
from tramontane.chat.parsing.source import Give, Source, Steps

_WORD = re.compile(r"[\w+.\-]+")
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_CLOSERS = {"[": "]", "(": ")", "{": "}"}
_JSON_OPEN = {"[": "[", "(": "[", "{": "{"}
_JSON_CLOSE = {"]": "]", ")": "]", "}": "}"}
_IN_STRING = {quote: re.compile(rf"[^{quote}\\]+") for quote in "'\""}
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\\": "\\", "'": "'", '"': '"',
    "\n": "", "/": "/", "0": "\0",
}  # fmt: skip
_HEXADECIMAL = {"x": 2, "u": 4, "U": 8}
_MOST_LEVELS = 64
_LONGEST_WORD = 4096


def python_value(source: Source, give: Give) -> Steps[bool]:
    """Read one literal, the white space before it included, and give on its JSON.

    Returns:
        Whether a whole literal came. If not, what was given on is the beginning of a JSON text.
    """
    levels: list[tuple[str, bool]] = []  # (the bracket that closes, is a dictionary)
    separator = ""  # what to give before the next value
    while True:
        character = yield from source.skip_space()
        if levels and character == levels[-1][0]:
            give(_JSON_CLOSE[source.take(1)])
            levels.pop()
        elif character in _CLOSERS and len(levels) < _MOST_LEVELS:
            give(separator + _JSON_OPEN[source.take(1)])
            levels.append((_CLOSERS[character], character == "{"))
            separator = ""
            if not levels[-1][1] or (yield from source.skip_space()) == "}":
                continue
            if not (yield from _key(source, give, "")):
                return False
            continue
        else:
            scalar = yield from _scalar(source)
            if scalar is None:
                return False
            give(separator + scalar)
        separator = ""
        if not levels:
            return True
        closer, is_dictionary = levels[-1]
        character = yield from source.skip_space()
        if character == ",":
            source.take(1)
            if (yield from source.skip_space()) == closer:
                continue
            separator = ", "
            if is_dictionary:
                if not (yield from _key(source, give, separator)):
                    return False
                separator = ""
        elif character != closer:
            return False


def _key(source: Source, give: Give, separator: str) -> Steps[bool]:
    """Read a dictionary's key and the colon after it. JSON has texts as keys only."""
    key = yield from _scalar(source)
    if key is None or (yield from source.skip_space()) != ":":
        return False
    source.take(1)
    give(separator + (key if key.startswith('"') else json.dumps(key)) + ": ")
    return True


def _scalar(source: Source) -> Steps[str | None]:
    """Read a string, a number or a word; its JSON."""
    character = yield from source.skip_space()
    if character and character in "'\"":
        return (yield from _string(source))
    found: list[str] = []
    yield from source.run(_WORD, found.append)
    word = "".join(found)
    if word in _WORDS:
        return _WORDS[word]
    if not 0 < len(word) <= _LONGEST_WORD:
        return None
    number = word.replace("_", "").removeprefix("+")
    number = f"0{number}" if number.startswith(".") else f"{number}0" if number.endswith(".") else number
    return number if isinstance(loads(number), int | float) else None


def _string(source: Source) -> Steps[str | None]:
    """Read a string in single, double or triple quotes; its JSON."""
    quote = source.take(1)
    triple = False
    if (yield from source.peek()) == quote:
        source.take(1)
        if (yield from source.peek()) != quote:
            return '""'
        source.take(1)
        triple = True
    text: list[str] = []
    quotes = 0
    while True:
        character = yield from source.peek()
        if not character:
            return None
        if character == quote:
            source.take(1)
            quotes += 1
            if quotes == (3 if triple else 1):
                return json.dumps("".join(text), ensure_ascii=False)
            continue
        text.append(quote * quotes)
        quotes = 0
        if character == "\\":
            source.take(1)
            text.append((yield from _escape(source)))
        else:
            yield from source.run(_IN_STRING[quote], text.append)


def _escape(source: Source) -> Steps[str]:
    """Read what follows a backslash; one that means nothing stays, as in Python."""
    letter = yield from source.peek()
    if not letter:
        return "\\"
    source.take(1)
    if letter not in _HEXADECIMAL:
        return _ESCAPES.get(letter, "\\" + letter)
    digits = yield from _digits(source, _HEXADECIMAL[letter])
    if len(digits) < _HEXADECIMAL[letter]:
        return "\\" + letter + digits
    code = int(digits, 16)
    if code > 0x10FFFF or 0xDC00 <= code <= 0xDFFF:
        return "\ufffd"
    if not 0xD800 <= code <= 0xDBFF:
        return chr(code)
    return (yield from _second_half(source, code))


def _digits(source: Source, most: int) -> Steps[str]:
    """Read hexadecimal digits."""
    digits = ""
    while len(digits) < most:
        digit = yield from source.peek()
        if not digit or digit not in "0123456789abcdefABCDEF":
            break
        digits += source.take(1)
    return digits


def _second_half(source: Source, high: int) -> Steps[str]:
    """A surrogate pair written as two escapes is one character."""
    if (yield from source.peek()) != "\\":
        return "\ufffd"
    source.take(1)
    if (yield from source.peek()) != "u":
        return "\ufffd" + (yield from _escape(source))
    source.take(1)
    digits = yield from _digits(source, 4)
    if len(digits) < 4:
        return "\ufffd\\u" + digits
    low = int(digits, 16)
    if not 0xDC00 <= low <= 0xDFFF:
        return "\ufffd" + (chr(low) if not 0xD800 <= low <= 0xDBFF else "\ufffd")
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def any_value(text: str, kinds: frozenset[str]) -> str:
    """The JSON of a parameter that was written without quotes, such as ``<parameter=days>3</parameter>``.

    Args:
        text: As written.
        kinds: The types that the tool's schema allows; empty where it does not say.
    """
    if kinds != {"string"}:
        value = loads(_WORDS.get(text.strip(), text))
        fits = _is_of(value, kinds) if kinds else not isinstance(value, str)
        if value is not NotJson and fits:
            return json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False)


def _is_of(value: object, kinds: frozenset[str]) -> bool:
    """Whether a JSON value is of one of the types."""
    names = {
        dict: ("object",), list: ("array",), bool: ("boolean",), int: ("integer", "number"), float: ("number",),
        type(None): ("null",), str: (),
    }  # fmt: skip
    return any(name in kinds for name in names.get(type(value), ()))
