# SPDX-License-Identifier: Apache-2.0
"""What a parser has found: pieces of the answer, of the reasoning and of tool calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from tramontane.tools.calls import ToolCallDelta, joined

MOST_CALLS = 1024
"""Calls in one answer; what comes after them stays text."""


@frozen
class Parsed:
    """What a piece of output turned out to be."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)

    def __add__(self, after: Parsed) -> Parsed:
        if not after or not self:
            return self if self else after
        return Parsed(self.text + after.text, self.reasoning + after.reasoning, joined(self.calls, after.calls))

    def goes_with(self, after: Parsed) -> bool:
        """Whether both as one still tell what came first: reasoning is before text, and text before calls."""
        if not self or not after:
            return True
        latest = 2 if self.calls else 1 if self.text else 0
        earliest = 0 if after.reasoning else 1 if after.text else 2
        return latest <= earliest


def properties(schema: Any) -> Mapping[str, Any]:
    """The schemas of an object's properties, in order; empty where they are not stated."""
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


@frozen
class Offered:
    """The tools a model may call: name -> JSON schema of the parameters."""

    schemas: Mapping[str, Any] = field(factory=dict)
    strict: Mapping[str, bool] = field(factory=dict)
    """Whether a grammar is to hold the model to the schema, for tools that say so."""

    @classmethod
    def of(cls, tools: Sequence[Any] | None) -> Offered:
        """The tools of a request, in OpenAI's form (``{"type": "function", "function": {...}}``) or flat."""
        found: dict[str, Any] = {}
        strict: dict[str, bool] = {}
        for tool in tools or ():
            function = tool.get("function", tool) if isinstance(tool, Mapping) else None
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                found[function["name"]] = function.get("parameters") or {}
                if isinstance(function.get("strict"), bool):
                    strict[function["name"]] = function["strict"]
        return cls(found, strict)

    def only(self, names: Sequence[str]) -> Offered:
        """Those of these names."""
        return Offered({name: self.schemas[name] for name in names}, self.strict)

    def __contains__(self, name: str) -> bool:
        return name in self.schemas

    def properties(self, name: str) -> Mapping[str, Any]:
        """The schemas of a tool's parameters, in order; empty where they are not stated."""
        return properties(self.schemas.get(name))


def random_id() -> str:
    """An identifier as OpenAI's look."""
    return "call_" + os.urandom(12).hex()


@define
class _Channel:
    """One of the texts. White space at its end waits until something follows; at its start it can be dropped."""

    drop_space: bool = False
    _given: list[str] = field(factory=list)
    _space: list[str] = field(factory=list)

    def add(self, piece: str) -> None:
        if self.drop_space:
            piece = piece.lstrip()
        if not piece:
            return
        kept = piece.rstrip()
        if kept:
            self._given += [*self._space, kept]
            self._space.clear()
            self.drop_space = False
        if len(kept) < len(piece):
            self._space.append(piece[len(kept) :])

    def restart(self) -> None:
        """What came before has ended: white space before the next word does not count."""
        self.drop_space = True

    def forget_space(self) -> None:
        """The white space that waits does not count."""
        self._space.clear()

    def flush(self) -> None:
        """White space at the end counts too, unless something other than this text followed it."""
        if not self.drop_space:
            self._given += self._space
        self._space.clear()

    def take(self) -> str:
        given = "".join(self._given)
        self._given.clear()
        return given


@define
class Sink:
    """Collects what a parser finds."""

    offered: Offered
    make_id: Callable[[], str] = random_id
    most: int | None = None
    """What comes after this many calls is dropped."""
    calls: int = 0
    """Calls begun so far."""
    closed: bool = False
    """There were as many calls as there may be."""
    _text: _Channel = field(factory=_Channel)
    _reasoning: _Channel = field(factory=lambda: _Channel(drop_space=True))
    _deltas: list[ToolCallDelta] = field(factory=list)
    _arguments: list[str] = field(factory=list)
    _written: bool = False
    _ids: set[str] = field(factory=set)

    def text(self, piece: str) -> None:
        """A piece of the answer."""
        if not self.closed:
            self._text.add(piece)

    def reasoning(self, piece: str) -> None:
        """A piece of the reasoning."""
        if not self.closed:
            self._reasoning.add(piece)

    def separate(self) -> None:
        """Something other than text was read: white space that follows is no text."""
        self._text.restart()

    def reason(self) -> None:
        """Reasoning begins: white space before it is no text."""
        self._text.forget_space()

    def begin(self, name: str, call_id: str | None = None) -> None:
        """A call begins. An id that the model wrote is kept where it is new."""
        if self.closed:
            return
        while not call_id or call_id in self._ids:
            call_id = self.make_id()
        self._ids.add(call_id)
        self._deltas.append(ToolCallDelta(index=self.calls, id=call_id, name=name))
        self.calls += 1
        self._written = False

    def arguments(self, piece: str) -> None:
        """A piece of the arguments of the call that has begun."""
        if piece and not self.closed:
            self._written = True
            self._arguments.append(piece)

    def end(self, *, whole: bool = True) -> None:
        """The call is over; a whole one without arguments has an empty object."""
        if whole and not self._written:
            self.arguments("{}")
        self._flush_arguments()
        self._text.restart()
        self.closed = self.closed or self.calls == self.most

    def finish(self) -> None:
        """The output is over."""
        self._text.flush()

    def take(self) -> Parsed:
        """What was found since the last time."""
        self._flush_arguments()
        deltas = tuple(self._deltas)
        self._deltas.clear()
        return Parsed(self._text.take(), self._reasoning.take(), deltas)

    def _flush_arguments(self) -> None:
        if not self._arguments:
            return
        piece = "".join(self._arguments)
        self._arguments.clear()
        index = self.calls - 1
        last = self._deltas[-1] if self._deltas else None
        if last is not None and last.index == index:
            self._deltas[-1] = ToolCallDelta(index=index, id=last.id, name=last.name, arguments=last.arguments + piece)
        else:
            self._deltas.append(ToolCallDelta(index=index, arguments=piece))
