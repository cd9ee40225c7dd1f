# SPDX-License-Identifier: Apache-2.0
"""The notation in which every parameter of a call is a tag of its own, with its value unquoted between tags.

``<tool_call><function=f><parameter=a>1</parameter></function></tool_call>`` and its relatives. What a value means
depends on the tool's schema: where it says that a parameter is a string, the value is one and is given on as it comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from tramontane.chat.parsing.python_values import any_value
from tramontane.chat.parsing.rules import RuledTool, Rules
from tramontane.chat.parsing.sink import MOST_CALLS, Sink
from tramontane.chat.parsing.source import Source, Steps, Stops, nowhere
from tramontane.chat.parsing.syntax import LONGEST_NAME, begin, is_name

_ATTRIBUTES = re.compile(
    r'\s*(?:name\s*=\s*)?["\']?(.*?)["\']?(?:\s+string\s*=\s*["\']?(true|false)["\']?)?\s*', re.DOTALL
)
_STRING = frozenset({"string"})


@frozen(kw_only=True)
class TaggedCalls:
    """Tags of one format. A name or key stands between an opening text and one of those that end it."""

    opens: tuple[str, ...] = ("<tool_call>",)
    call_open: str = "<function="
    """Before a call's name; empty where the name follows the marker at once."""
    call_open_ends: tuple[str, ...] = (">",)
    key_open: str = "<parameter="
    key_ends: tuple[str, ...] = (">",)
    value_open: str = ""
    value_close: str = "</parameter>"
    call_close: str = "</function>"
    """After a call; empty where ``close`` follows its last parameter."""
    close: str = "</tool_call>"
    space: str = "\n"
    """What the model writes around a call and around values that are trimmed."""
    trim: bool = True
    """One line break at each end of a value belongs to the tags ..."""
    padded: bool = True
    """... and the model writes it."""
    firsts: str = ""
    quote: tuple[str, str] = ("", "")
    """What stands around names and keys."""
    string_flag: str = ""
    """What follows a key to say whether its value is a string, with a place for ``true`` or ``false``."""

    @property
    def closes(self) -> tuple[str, ...]:
        """Texts that end the calls."""
        return (self.close,)

    def body(self, rules: Rules) -> str:
        """Each parameter in the order of the schema, those that are not required perhaps left out."""
        call = rules.any_tool(lambda tool: self._written(rules, tool))
        calls = rules.join(rules.text(self.space), rules.series(call, "")) if self.call_open else call
        return rules.join(calls, rules.text(self.close))

    def _written(self, rules: Rules, tool: RuledTool) -> str:
        quote = self.quote
        after = self.space if self.call_open else ""
        parts = [rules.text(f"{self.call_open}{quote[0]}{tool.name}{quote[1]}{self.call_open_ends[0]}{after}")]
        for key, schema in tool.properties.items():
            flag = self.string_flag.format(str(_kinds(schema) == _STRING).lower()) if self.string_flag else ""
            head = f"{self.key_open}{quote[0]}{key}{quote[1]}{flag}{self.key_ends[0]}"
            inner = self.space if self.padded else ""
            opening = f"{head}{self.space if self.value_open else ''}{self.value_open}{inner}"
            closing = f"{inner}{self.value_close}"
            if _kinds(schema) != _STRING:
                value = rules.join(rules.json(tool.within(schema)), rules.text(closing))
            elif isinstance(schema.get("enum"), list):
                choices = [rules.text(choice) for choice in schema["enum"] if isinstance(choice, str)]
                value = rules.join(f"({' | '.join(choices)})", rules.text(closing))
            else:
                value = rules.text_until(closing)
            part = rules.join(rules.text(opening), value, rules.text(self.space))
            parts.append(part if key in tool.required else f"({part})?")
        parts.append(rules.text(f"{self.call_close}{self.space}") if self.call_close else "")
        return rules.join(*parts)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may be a special token."""
        own = (self.call_open, self.key_open, self.value_open, self.value_close, self.call_close, self.close)
        return tuple(text for text in (*self.opens, *own, *self.key_ends) if len(text) > 1)

    def read(self, source: Source, sink: Sink) -> Steps[None]:
        any_call = False
        while True:
            yield from source.skip_space()
            if self.call_open:
                found = yield from source.starts(Stops.of(self.call_open, self.close))
                if found == self.close and any_call:
                    source.recorded()
                if found != self.call_open:
                    return
            elif any_call or sink.calls >= MOST_CALLS:
                return
            if sink.calls >= MOST_CALLS or not (yield from self._call(source, sink)):
                return
            any_call = True
            source.record()
            if not self.call_open:
                source.recorded()
                return

    def _call(self, source: Source, sink: Sink) -> Steps[bool]:
        """Read a call from its name on."""
        head = yield from source.within(Stops.of(*self.call_open_ends, *self._ends), LONGEST_NAME)
        name = _attributes(head[0])[0] if head is not None else ""
        if head is None or not is_name(name):
            return False
        begin(source, sink, name)
        whole = yield from self._parameters(source, sink, name, head[1])
        if whole:
            sink.arguments("}")
        sink.end(whole=whole)
        return True

    @property
    def _ends(self) -> tuple[str, ...]:
        """What may follow a name directly where no tag is closed."""
        return (self.key_open, self.close) if not self.call_open else ()

    def _parameters(self, source: Source, sink: Sink, name: str, last: str) -> Steps[bool]:
        """Read parameters; ``last`` is the tag that was read before. Whether the call came to its end."""
        sink.arguments("{")
        ends = [text for text in (self.call_close, self.close) if text]
        properties = sink.offered.properties(name)
        written: set[str] = set()
        tag: str | None = last
        while tag not in ends and tag is not None:
            if tag == self.key_open:
                tag = yield from self._parameter(source, sink, properties, written)
            else:
                tag = None
            if tag is None:
                tag = yield from source.until(Stops.of(self.key_open, *ends), nowhere)
        return tag is not None

    def _parameter(
        self, source: Source, sink: Sink, properties: Mapping[str, Any], written: set[str]
    ) -> Steps[str | None]:
        """Read a key and its value; the tag after it, where that was read too."""
        head = yield from source.within(Stops.of(*self.key_ends), LONGEST_NAME)
        if head is None:
            return None
        key, is_text = _attributes(head[0])
        if self.value_open:
            yield from source.skip_space()
            yield from source.starts(Stops.of(self.value_open))
        kinds = _STRING if is_text == "true" else _kinds(properties.get(key))
        stops = Stops.of(self.value_close, self.key_open, *(text for text in (self.call_close, self.close) if text))
        if key in written:
            tag = yield from source.until(stops, nowhere)
            return None if tag == self.value_close else tag
        sink.arguments((", " if written else "") + json.dumps(key, ensure_ascii=False) + ": ")
        written.add(key)
        if kinds == _STRING:
            sink.arguments('"')
            value = _Trimmed(sink, self.trim)
            tag = yield from source.until(stops, value.add)
            sink.arguments('"' if tag is not None else "")
        else:
            pieces: list[str] = []
            tag = yield from source.until(stops, pieces.append)
            text = _trimmed("".join(pieces)) if self.trim else "".join(pieces)
            sink.arguments(any_value(text, kinds) if tag is not None else text)
        return None if tag == self.value_close else tag


class _Trimmed:
    """Gives on a string's inside, escaped, without one line break at each end."""

    def __init__(self, sink: Sink, trim: bool) -> None:
        self._sink, self._trim = sink, trim
        self._begun = not trim
        self._held = ""

    def add(self, piece: str) -> None:
        piece = self._held + piece
        self._held = ""
        if not self._begun and piece:
            piece = piece.removeprefix("\n")
            self._begun = True
        if self._trim and piece.endswith("\n"):
            piece, self._held = piece[:-1], "\n"
        self._sink.arguments(json.dumps(piece, ensure_ascii=False)[1:-1])


def _trimmed(text: str) -> str:
    return text.removeprefix("\n").removesuffix("\n")


def _attributes(text: str) -> tuple[str, str | None]:
    """The name in ``name``, ``"name"`` or ``name="name" string="true"``, and the latter's value."""
    match = _ATTRIBUTES.fullmatch(text)
    return (match[1], match[2]) if match is not None else (text.strip(), None)


def _kinds(schema: Any) -> frozenset[str]:
    """The types that a parameter's schema allows, as far as it says so itself."""
    if not isinstance(schema, Mapping):
        return frozenset()
    stated = schema.get("type")
    listed = stated if isinstance(stated, list) else [stated]
    kinds = {kind for kind in listed if isinstance(kind, str)}
    for name in ("anyOf", "oneOf"):
        options = schema.get(name)
        for option in options if isinstance(options, list) else ():
            kinds |= _kinds(option) if isinstance(option, Mapping) and "anyOf" not in option else set()
    choices = schema.get("enum")
    if not kinds and isinstance(choices, list) and all(isinstance(choice, str) for choice in choices):
        kinds = {"string"}
    return frozenset(kinds)
