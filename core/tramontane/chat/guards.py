# SPDX-License-Identifier: Apache-2.0
"""What templates may call, each with a check of its cost before it runs.

Filters and methods are allowed by name; those missing here either have no place in a chat template or cannot be
bounded (regular expressions that backtrack, for one). The checks ask the meter for the size of the result where that
can be large.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.tests import TESTS

from tramontane.chat.errors import TemplateLimitError
from tramontane.chat.meter import Meter, current

Guard = Callable[[Meter, Sequence[Any], Mapping[str, Any]], None]
"""``guard(meter, (value, *arguments), keywords)``: raises if the call would cost too much."""

_WIDE_FORMAT = re.compile(r"\d{5,}|\*")
_MARK_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u(fdd[0-9a-f])")


def plus(meter: Meter, left: Any, right: Any) -> None:
    """Before ``left + right``."""
    if isinstance(left, str) and isinstance(right, str):
        meter.text(len(left) + len(right))
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        meter.count(len(left) + len(right))
    else:
        plain_number(meter, left, right)


def times(meter: Meter, left: Any, right: Any) -> None:
    """Before ``left * right``."""
    if isinstance(left, int) and isinstance(right, int):
        meter.number(left, right, grown=min(left.bit_length(), right.bit_length()))
        return
    for value, count in ((left, right), (right, left)):
        if isinstance(value, str | bytes) and isinstance(count, int):
            meter.text(len(value) * max(0, count))
        elif isinstance(value, list | tuple) and isinstance(count, int):
            meter.count(meter.weigh(value) * max(0, count))
    meter.step()


def power(meter: Meter, left: Any, right: Any) -> None:
    """Before ``left ** right``."""
    if isinstance(left, int) and isinstance(right, int):
        meter.number(left, right, grown=left.bit_length() * abs(right))
    meter.step()


def plain_number(meter: Meter, left: Any, right: Any) -> None:
    """Before an operation whose result is no larger than its operands (dividing large numbers is slow)."""
    if isinstance(left, int) and isinstance(right, int):
        meter.number(left, right, grown=1)
    meter.step()


def percent(meter: Meter, left: Any, right: Any) -> None:
    """Before ``left % right``, which formats if ``left`` is a text."""
    if isinstance(left, str):
        if _WIDE_FORMAT.search(left):
            raise TemplateLimitError("the chat template formats with too large a width")
        meter.text(len(left) + meter.weigh(right) * (left.count("%") + 1))
    plain_number(meter, left, right)


def joined(parts: Iterable[Any], separator: Any = "", attribute: Any = None) -> list[Any]:
    """Before joining texts: the parts as a list, counted."""
    meter = current.get()
    found = list(parts)
    each = len(separator) if isinstance(separator, str) else 16
    meter.text(sum(meter.weigh(part) for part in found) * (attribute is None) + each * len(found))
    return found


def replaced(meter: Meter, text: Any, old: Any, new: Any) -> None:
    """Before replacing in a text."""
    text, old, new = str(text), str(old), str(new)
    found = text.count(old) if len(new) > len(old) else 0
    meter.text(len(text) + found * (len(new) - len(old)))


def _any(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """The common check: no absurd numbers, and bounded data."""
    meter.width(*values[1:], *keywords.values())
    meter.step(meter.weigh(values[0]) if values else 0)


def _text(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Makes a text of about the same size."""
    _any(meter, values, keywords)
    meter.text(meter.weigh(values[0]))


def _padded(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Makes a text of a given width."""
    _any(meter, values, keywords)
    meter.text(len(str(values[0])) + 100_000)


def _indented(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    _any(meter, values, keywords)
    width = values[1] if len(values) > 1 else keywords.get("width", 4)
    text = str(values[0])
    meter.text(len(text) + (text.count("\n") + 1) * (width if isinstance(width, int) else len(str(width))))


def _replace(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    _any(meter, values[:1], {})
    old, new = [*values[1:3], *(keywords[k] for k in ("s", "old", "new") if k in keywords)][:2]
    replaced(meter, values[0], old, new)


def _format(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    percent(meter, str(values[0]), [*values[1:], *keywords.values()])


def _sum(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    _any(meter, values, keywords)
    start = values[2] if len(values) > 2 else keywords.get("start", 0)
    if not isinstance(start, int | float):
        raise SecurityError("chat templates may only sum numbers")


def _split(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    separator = values[1] if len(values) > 1 else keywords.get("sep")
    text = values[0]
    meter.count(text.count(separator) if isinstance(separator, str) and separator else len(text) // 2)
    meter.text(len(text))


def _encoded(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    _any(meter, values, keywords)
    meter.text(12 * len(str(values[0])))


def _listed(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    _any(meter, values, keywords)
    if isinstance(values[0], str):
        meter.count(len(values[0]))


def _formatted(meter: Meter, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """``str.format``: widths are checked by the formatter itself; the arguments may appear once a field."""
    meter.text(len(values[0]) + sum(map(meter.weigh, [*values[1:], *keywords.values()])) * (1 + values[0].count("{")))


_FILTER_GUARDS: dict[str, Guard] = {
    **dict.fromkeys(
        (
            *("abs", "attr", "batch", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items"),
            *("last", "length", "map", "max", "min", "reject", "rejectattr", "round", "select", "selectattr"),
            *("slice", "sort", "unique", "wordcount", "filesizeformat"),
        ),
        _any,
    ),
    **dict.fromkeys(("capitalize", "lower", "reverse", "safe", "string", "title", "trim", "truncate", "upper"), _text),
    **dict.fromkeys(("e", "escape", "forceescape", "urlencode"), _encoded),
    "center": _padded,
    "format": _format,
    "indent": _indented,
    "list": _listed,
    "replace": _replace,
    "sum": _sum,
}

_TEXT_METHODS: dict[str, Guard] = {
    **dict.fromkeys(
        (
            *("count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit"),
            *("isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper"),
            *("rfind", "rindex", "startswith"),
        ),
        _any,
    ),
    **dict.fromkeys(
        (
            *("capitalize", "casefold", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rpartition"),
            *("rstrip", "strip", "swapcase", "title", "upper"),
        ),
        _text,
    ),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _padded),
    **dict.fromkeys(("rsplit", "split", "splitlines"), _split),
    **dict.fromkeys(("format", "format_map"), _formatted),
    "replace": _replace,
}

_OTHER_METHODS = frozenset({"append", "copy", "count", "get", "index", "is_integer", "items", "keys", "pop", "values"})


def check_method(meter: Meter, owner: Any, name: str, values: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Before a method of a value is called.

    Raises:
        SecurityError: The method is not one that templates may call.
    """
    if isinstance(owner, str):
        guard = _TEXT_METHODS.get(name)
        if guard is not None:
            guard(meter, (owner, *values), keywords)
            return
    elif name in _OTHER_METHODS:
        if name == "copy":
            meter.count(len(owner))
        elif name == "append":
            meter.items(len(owner) + 1)
            meter.weigh(list(values))
        meter.step(len(owner) if hasattr(owner, "__len__") else 1)
        return
    raise SecurityError(f"chat templates may not call {type(owner).__name__}.{name}()")


def tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as chat templates expect it: nothing escaped for HTML, non-ASCII characters as they are."""
    meter = current.get()
    if isinstance(value, Iterator):  # what `map` and `select` give
        value = list(value)
    step = indent if isinstance(indent, int) else len(str(indent or ""))
    between = len("".join(map(str, separators))) if separators else 4
    meter.width(step, between)
    nodes, characters, depth = meter.shape(value)
    meter.text(2 * characters + nodes * (between + max(0, step) * depth + 8))
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    meter.text(len(text))
    # Marks around control tokens must survive, or they would be read as text.
    return _MARK_ESCAPE.sub(lambda m: m[1] + chr(int(m[2], 16)), text) if ensure_ascii else text


def metered_filters() -> dict[str, Callable[..., Any]]:
    """The filters of the environment."""
    found = {name: _metered(FILTERS[name], guard) for name, guard in _FILTER_GUARDS.items()}
    return {**found, "tojson": tojson, "join": _joining(FILTERS["join"])}


def metered_tests() -> dict[str, Callable[..., Any]]:
    """The tests of the environment."""
    tests: Mapping[str, Any] = TESTS
    return {name: _metered(test, _compared) for name, test in tests.items()}


def _compared(meter: Meter, values: Sequence[Any], _keywords: Mapping[str, Any]) -> None:
    meter.step(sum(map(meter.weigh, values)))


def _metered(function: Callable[..., Any], guard: Guard) -> Callable[..., Any]:
    """A filter or test that asks its guard first. Jinja's own argument (context ...) is passed through."""
    extra = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def metered(*values: Any, **keywords: Any) -> Any:
        meter = current.get()
        guard(meter, values[extra:], keywords)
        result = function(*values, **keywords)
        if isinstance(result, list):
            meter.count(len(result))
        elif isinstance(result, int):
            meter.number(result)
        return result

    return metered


def _joining(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def metered(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        return function(context, joined(value, d, attribute), d, attribute)

    return metered
