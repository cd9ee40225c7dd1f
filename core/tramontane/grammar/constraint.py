# SPDX-License-Identifier: Apache-2.0
"""What a request's output must look like: one frozen, serializable record.

It checks what can be said without a tokenizer (kinds, sizes, nesting) when it is made; whether the grammar itself is
sound is found out when it is compiled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Self

from attrs import evolve, field, frozen

from tramontane.errors import GrammarError

MAX_BYTES = 256 * 1024
"""Longest grammar, schema, pattern or list of choices, as UTF-8."""
MAX_CHOICES = 4096
MAX_TRIGGERS = 64
MAX_TRIGGER_LENGTH = 256
MAX_JSON_DEPTH = 64
"""Deepest nesting of a schema or of an llguidance grammar, in brackets."""


class Kind(StrEnum):
    """What a constraint's value is."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    LARK = "lark"
    LLGUIDANCE = "llguidance"
    CHOICE = "choice"


_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
"""A bracket, or a whole string."""


def _triggers(value: str | int | Iterable[str | int]) -> tuple[str | int, ...]:
    return (value,) if isinstance(value, str | int) else tuple(value)


@frozen(kw_only=True)
class Constraint:
    """What the output must look like. Made by the class methods.

    Raises:
        GrammarError: The value is not of its kind, too large or nested too deeply.
    """

    kind: Kind = field(converter=Kind)
    value: str = ""
    """The schema, grammar or list of choices as JSON text, the pattern or the Lark grammar as it is."""
    after: tuple[str | int, ...] = field(default=(), converter=_triggers)
    """Texts or token ids. With any, the output is free until the first of them appears (it is kept), and what follows
    it must match; an output in which none appears may end at any time. A text that is one token of the vocabulary's
    special ones means that token."""
    again: bool = False
    """With ``after``: what has matched is followed by free text in which a trigger begins a further match; otherwise
    the output ends with the first match."""

    @classmethod
    def json_schema(cls, schema: str | bytes | bool | Mapping[str, Any]) -> Self:
        """JSON that is valid under a JSON Schema, given as text or as parsed JSON."""
        text = schema.decode() if isinstance(schema, bytes) else schema
        return cls(kind=Kind.JSON_SCHEMA, value=text if isinstance(text, str) else json.dumps(text))

    @classmethod
    def json_object(cls) -> Self:
        """Any JSON object."""
        return cls(kind=Kind.JSON_OBJECT)

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Text that a regular expression (the syntax of Rust's ``regex``) matches from its start to its end."""
        return cls(kind=Kind.REGEX, value=pattern)

    @classmethod
    def lark(cls, grammar: str) -> Self:
        """Text of a context-free grammar in llguidance's dialect of Lark."""
        return cls(kind=Kind.LARK, value=grammar)

    @classmethod
    def llguidance(cls, grammar: str | Mapping[str, Any]) -> Self:
        """Text of an llguidance grammar: ``{"grammars": [{"json_schema": ...}, {"lark_grammar": ...}]}``."""
        return cls(kind=Kind.LLGUIDANCE, value=grammar if isinstance(grammar, str) else json.dumps(grammar))

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Self:
        """Exactly one of some texts."""
        return cls(kind=Kind.CHOICE, value=json.dumps([*texts], ensure_ascii=False))

    def triggered(self, after: str | int | Iterable[str | int], *, again: bool = False) -> Self:
        """The same constraint, from the moment one of ``after`` appears in free text; see :attr:`after`."""
        return evolve(self, after=after, again=again)

    def __attrs_post_init__(self) -> None:
        for fault in _faults(self):
            raise GrammarError(f"a constraint of kind {self.kind} cannot be used: {fault}")


def _faults(constraint: Constraint) -> Iterator[str]:
    value, after = constraint.value, constraint.after
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        yield f"it is not valid Unicode ({error.reason} at character {error.start})"
        return
    if size > MAX_BYTES:
        yield f"it may have {MAX_BYTES} bytes, and has {size}"
    if len(after) > MAX_TRIGGERS or not all(_is_trigger(one) for one in after):
        yield f"after may hold {MAX_TRIGGERS} token ids and texts of 1 to {MAX_TRIGGER_LENGTH} characters"
    if constraint.kind is Kind.CHOICE:
        choices = json.loads(value)
        if not choices or len(choices) > MAX_CHOICES or not all(isinstance(one, str) for one in choices):
            yield f"it must be a list of 1 to {MAX_CHOICES} texts"
        elif "" in choices:
            yield "a choice must not be empty"
    if constraint.kind in (Kind.JSON_SCHEMA, Kind.LLGUIDANCE) and _depth(value) > MAX_JSON_DEPTH:
        yield f"it may be nested {MAX_JSON_DEPTH} deep"


def _is_trigger(one: object) -> bool:
    if isinstance(one, str):
        return 0 < len(one) <= MAX_TRIGGER_LENGTH
    return isinstance(one, int) and not isinstance(one, bool) and one >= 0


def _depth(text: str) -> int:
    """How deeply brackets nest, those inside strings aside."""
    deepest = depth = 0
    for match in _BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "]}":
            depth -= 1
    return deepest


__all__ = ["Constraint", "Kind"]
