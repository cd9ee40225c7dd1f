# SPDX-License-Identifier: Apache-2.0
"""What llguidance reads more loosely than JSON Schema means it, said more strictly before it sees a schema.

* ``date`` knows the days of each month, ``time`` and ``date-time`` have no leap second: most of those are wrong.
* ``\\S`` in a pattern leaves out U+FEFF, which is white space to ECMAScript.

Keywords and values that llguidance passes over in silence are refused here. What is valid under what comes out is
valid under what went in; the reverse holds but for leap seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tramontane.errors import GrammarError

_DATE = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[Zz]|[+\-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_FORMATS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}[Tt]{_TIME}$"}
_NOT_SPACE = r"[^\s\x{FEFF}]"

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value maps names to schemas."""
_DATA = frozenset({"const", "enum", "default", "example", "examples", "x-guidance"})
"""Keywords whose value is no schema."""


_IGNORED = (
    *("contentEncoding", "contentMediaType", "contentSchema", "propertyDependencies"),
    *("disallow", "divisibleBy", "extends"),  # draft 3
)
"""Keywords that llguidance does not look at, and that some draft lets refuse instances."""
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")


def strict_schema(text: str) -> str:
    """A schema, as JSON, with the changes above.

    Raises:
        GrammarError: It is not JSON, or uses what would be passed over.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the schema is not valid JSON: {error}") from error
    for part in _parts(schema):
        _refuse(part)
        _tighten(part)
    return json.dumps(schema, ensure_ascii=False)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all its sub-schemas; what is yielded may be changed."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            if key in _MAPS and isinstance(value, dict):
                waiting.extend(value.values())
            elif key not in _DATA:
                waiting.append(value)
        yield part


def _refuse(schema: dict[str, Any]) -> None:
    found = [name for name in _IGNORED if name in schema]
    if "$ref" in schema and any(isinstance(schema.get(name), str) for name in ("$id", "id")):
        found.append("$id beside $ref")  # the drafts disagree about what it means
    properties = schema.get("properties")
    names = [*properties] if isinstance(properties, dict) else []
    fixed = [schema.get("const"), schema.get("enum"), schema.get("required"), names]
    if any(_CONTROL.search(text) for text in _texts(fixed)):
        found.append("control characters, which need an escape that is not allowed")
    if found:
        raise GrammarError(
            f"the schema uses what is not supported: {', '.join(found)}",
            hint="docs/structured-output.md lists what is refused",
        )


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one


def _tighten(schema: dict[str, Any]) -> None:
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        schema["pattern"] = _not_space(pattern)
    named = schema.get("patternProperties")
    if isinstance(named, dict):
        schema["patternProperties"] = {_not_space(name): value for name, value in named.items()}
    kind = schema.get("format")
    if not isinstance(kind, str) or kind not in _FORMATS:
        return
    del schema["format"]
    if "pattern" in schema:
        both = schema.get("allOf")
        schema["allOf"] = [*(both if isinstance(both, list) else ()), {"pattern": _FORMATS[kind]}]
    else:
        schema["pattern"] = _FORMATS[kind]


def _not_space(pattern: str) -> str:
    r"""A pattern with its ``\S`` spelled out; Rust's syntax lets classes stand in classes."""
    pieces = []
    place = 0
    while place < len(pattern):
        length = 2 if pattern[place] == "\\" else 1
        piece = pattern[place : place + length]
        pieces.append(_NOT_SPACE if piece == r"\S" else piece)
        place += length
    return "".join(pieces)
