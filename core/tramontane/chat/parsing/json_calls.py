# SPDX-License-Identifier: Apache-2.0
"""The notations in which the arguments of a call are a JSON object.

The name stands beside them in an object around both (:class:`JsonCalls`), or before them (:class:`HeadedJson`,
:class:`BareHeadedJson`).
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from tramontane.chat.parsing.json_values import json_string, json_value, loads, short_string
from tramontane.chat.parsing.rules import ARGUMENTS, NAME, Rules
from tramontane.chat.parsing.sink import MOST_CALLS, Sink
from tramontane.chat.parsing.source import Source, Steps, Stops, nowhere
from tramontane.chat.parsing.syntax import ANY, LONGEST_NAME, begin, broken, is_name

_NAMES = frozenset({"name", "tool_name", "function", "tool"})
_ARGUMENTS = frozenset({"arguments", "parameters", "args"})
_IDS = frozenset({"id", "tool_call_id"})


@frozen(kw_only=True)
class JsonCalls:
    """``{"name": ..., "arguments": {...}}``, alone, one after the other, or in a list."""

    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    firsts: str = ""
    only_offered: bool = False
    """What does not name a tool that is offered is text: for markers that have other meanings too."""
    keyed: bool = False
    """``{name: arguments}``."""
    keys: tuple[str, str] = ("name", "arguments")
    """What a model of this format calls them; any of the usual names is read."""
    listed: bool = False
    """The model writes a list, be it of one call."""
    joint: str = ""
    """What it writes between calls that are in no list; empty where there is only one."""
    space: str = ""
    """What it may write at both ends of the calls."""

    def body(self, rules: Rules) -> str:
        """One object, or a list of them, and what closes."""
        first, second = self.keys
        call = f'{{"{NAME}": {ARGUMENTS}}}' if self.keyed else f'{{"{first}": "{NAME}", "{second}": {ARGUMENTS}}}'
        calls = rules.calls(call)
        if self.listed:
            calls = rules.join(rules.text("["), rules.series(calls, ", "), rules.text("]"))
        elif self.joint:
            calls = rules.series(calls, self.joint)
        close = rules.text(self.closes[0]) if self.closes else ""
        return rules.join(rules.maybe(self.space), calls, rules.maybe(self.space) if close else "", close)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may be a special token."""
        return (*self.opens, *self.closes)

    def read(self, source: Source, sink: Sink) -> Steps[None]:
        any_call = False
        in_list = False
        while True:
            character = yield from source.skip_space()
            if character == "[" and not any_call and not in_list:
                source.take(1)
                in_list = True
            elif character == "{" and sink.calls < MOST_CALLS:
                if not (yield from _Object(self, source, sink).read()):
                    return
                any_call = True
                source.record()
            elif character and character in ",;" and any_call:
                source.take(1)
            elif character == "]" and in_list:
                source.take(1)
                in_list = False
                any_call = any_call or bool(self.opens)
            else:
                break
        if any_call:
            yield from source.starts(Stops.of(*self.closes))
            source.recorded()


class _Object:
    """Reads one call that is a JSON object."""

    def __init__(self, syntax: JsonCalls, source: Source, sink: Sink) -> None:
        self._syntax, self._source, self._sink = syntax, source, sink
        self._strict = syntax.only_offered or not syntax.opens
        self._name: str | None = None
        self._id: str | None = None
        self._early: list[str] = []
        self._has_arguments = False
        self._keys = 0

    def read(self) -> Steps[bool]:
        """Whether it was a call; an object that was one in part is."""
        if (yield from self._entries()):
            if self._name is None:
                return False
            self._sink.end()
            return True
        if self._name is None:
            return False
        yield from broken(self._source, self._sink, self._syntax.closes)
        return True

    def _entries(self) -> Steps[bool]:
        """Read to the end of the object. One that ends early, but after its arguments, is whole enough."""
        source, depth = self._source, 1
        source.take(1)
        while depth:
            character = yield from source.skip_space()
            if character == "}":
                depth -= 1
                source.take(1)
            elif character == ",":
                source.take(1)
            elif character == '"':
                nested = yield from self._entry()
                if nested is None:
                    return False
                depth += nested
            else:
                return self._has_arguments and self._name is not None
        return True

    def _entry(self) -> Steps[int | None]:
        """Read a key and its value: 1 if the value is an object whose entries are the call's, ``None`` if broken."""
        source = self._source
        key = yield from short_string(source, LONGEST_NAME)
        if key is None or (yield from source.skip_space()) != ":":
            return None
        source.take(1)
        self._keys += 1
        character = yield from source.skip_space()
        if self._syntax.keyed and self._name is None:
            return 0 if self._begin(key) and (yield from self._arguments()) else None
        if key == "function" and character == "{" and self._name is None:
            source.take(1)
            return 1
        if key in _NAMES and character == '"' and self._name is None:
            name = yield from short_string(source, LONGEST_NAME)
            return 0 if name is not None and self._begin(name) else None
        if key in _ARGUMENTS and not self._has_arguments:
            return 0 if (yield from self._arguments()) else None
        if key in _IDS and character == '"' and self._name is None:
            self._id = yield from short_string(source, LONGEST_NAME)
            return None if self._id is None else 0
        if self._strict and self._name is None and key != "type":
            return None
        return 0 if (yield from json_value(source, nowhere)) else None

    def _begin(self, name: str) -> bool:
        if not is_name(name) or (self._strict and name not in self._sink.offered):
            return False
        self._name = name
        begin(self._source, self._sink, name, self._id)
        for piece in self._early:
            self._sink.arguments(piece)
        self._early.clear()
        return True

    def _arguments(self) -> Steps[bool]:
        """Read arguments: an object, or a string that holds one."""
        give = self._sink.arguments if self._name is not None else self._early.append
        self._has_arguments = True
        if (yield from self._source.skip_space()) != '"':
            return (yield from json_value(self._source, give))
        text: list[str] = []
        whole = yield from json_string(self._source, text.append)
        inner = loads("".join(text))
        give(inner if isinstance(inner, str) else "".join(text))
        return whole


@frozen(kw_only=True)
class HeadedJson:
    """A name, something between, and a JSON object: ``get_weather[ARGS]{...}``, ``<function=get_weather>{...}``."""

    opens: tuple[str, ...] = ()
    separators: tuple[str, ...] = ()
    """Texts that end the name."""
    closes: tuple[str, ...] = ()
    head: Callable[[str], tuple[str, str | None] | None] = lambda text: (text.strip(), None)
    """Name and id from what stands before the separator."""
    inside: tuple[str, ...] = ()
    """Further marks that may stand before the separator."""
    before: tuple[str, ...] = ()
    """Texts to skip before the object, such as the fence of a code block."""
    after: tuple[str, ...] = ()
    """Texts to skip after it."""
    firsts: str = ""
    written: str = ""
    """A call after its opening text, with ``NAME``, ``ARGUMENTS`` and ``NUMBER`` in it, for the grammar."""

    def body(self, rules: Rules) -> str | None:
        """As :attr:`written` says."""
        return rules.calls(self.written) if self.written else None

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may be a special token."""
        return (*self.opens, *self.separators, *self.inside, *self.closes)

    def read(self, source: Source, sink: Sink) -> Steps[None]:
        found = yield from source.within(Stops.of(*self.separators), LONGEST_NAME)
        head = self.head(found[0]) if found is not None else None
        if head is None or not is_name(head[0]) or sink.calls >= MOST_CALLS:
            return
        begin(source, sink, *head)
        yield from source.skip_space()
        if (yield from source.starts(Stops.of(*self.before))) is not None:
            yield from source.skip_space()
        if (yield from source.peek()) == "{":
            whole = yield from json_value(source, sink.arguments)
        else:
            whole = bool(self.closes) and (yield from source.starts(Stops.of(*self.closes))) is not None
        if not whole:
            yield from broken(source, sink, self.closes)
            return
        sink.end()
        yield from source.skip_space()
        if (yield from source.starts(Stops.of(*self.after))) is not None:
            yield from source.skip_space()
        yield from source.starts(Stops.of(*self.closes))


@frozen(kw_only=True)
class BareHeadedJson:
    """``get_weather``, a new line and a JSON object, without any marker: only tools that are offered."""

    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    firsts: str = ANY

    def body(self, rules: Rules) -> str:
        """The name, a line break, the object."""
        return rules.series(rules.calls(f"{NAME}\n{ARGUMENTS}"), "\n")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may be a special token."""
        return ()

    def read(self, source: Source, sink: Sink) -> Steps[None]:
        if sink.calls >= MOST_CALLS:
            return
        found = yield from source.starts(Stops.of(*(f"{name}\n" for name in sink.offered.schemas)))
        if found is None or (yield from source.skip_space()) != "{":
            return
        begin(source, sink, found[:-1])
        if (yield from json_value(source, sink.arguments)):
            sink.end()
        else:
            yield from broken(source, sink, ())
