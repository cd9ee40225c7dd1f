# SPDX-License-Identifier: Apache-2.0
"""A chat format: how a family of models writes reasoning, answers and calls, and the parser that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from tramontane.chat.parsing.demand import Demand, call_constraint
from tramontane.chat.parsing.sink import Offered, Parsed, Sink, random_id
from tramontane.chat.parsing.source import Source, Steps, Stops
from tramontane.chat.parsing.syntax import ANY, CallSyntax
from tramontane.grammar import Constraint


@frozen(kw_only=True)
class Reasoning:
    """Tags around what a model thinks before it answers."""

    opens: str = "<think>"
    closes: str = "</think>"
    ends_before: tuple[str, ...] = ()
    """Texts that end the reasoning too, such as a model's single token that begins calls."""


@frozen(kw_only=True)
class ChatFormat:
    """What a model's output means. Most formats are values of this class; others override :meth:`read`."""

    calls: tuple[CallSyntax, ...] = ()
    """The notations of calls that the model uses."""
    reasoning: Reasoning | None = None
    ignored: tuple[str, ...] = ()
    """Texts around calls or answers that mean nothing by themselves."""
    ends: tuple[str, ...] = ()
    """Tokens that end an answer, beside those that the checkpoint names."""
    make_id: Callable[[], str] = random_id
    around: tuple[str, str] = ("", "")
    """What the model writes before the first and after the last call of an answer."""
    between: str = "\n"
    """What it writes between calls that have a marker each."""
    write_prompt: Callable[[Mapping[str, Any]], str] | None = None
    """Writes a prompt from the variables of the chat template, in place of a template that gets it wrong."""
    writes: CallSyntax | None = None
    """The notation that the model is held to; the first of ``calls`` where it is not said."""

    @property
    def visible(self) -> tuple[str, ...]:
        """Texts the parser must see although they may be special tokens, which are left out of answers otherwise."""
        around = (self.reasoning.opens, self.reasoning.closes) if self.reasoning is not None else ()
        calls = (text for syntax in self.calls for text in syntax.texts)
        return tuple(dict.fromkeys((*around, *self.ignored, *calls)))

    def parser(self, offered: Offered, *, thinking: bool = False, most_calls: int | None = None) -> OutputParser:
        """A parser for one answer.

        Args:
            offered: The tools that the model may call; without any, calls are not looked for.
            thinking: The prompt has opened the reasoning.
            most_calls: What comes after this many calls is dropped.
        """
        return OutputParser(self, Sink(offered, self.make_id, most_calls), thinking)

    def opens_reasoning(self, prompt: str) -> bool:
        """Whether a prompt ends with the beginning of the reasoning."""
        return self.reasoning is not None and prompt.rstrip().endswith(self.reasoning.opens)

    def constraint(self, demand: Demand, special: Callable[[str], int | None]) -> Constraint | None:
        """What keeps the model to what is demanded of its calls; see :func:`call_constraint`.

        Raises:
            RequestError: The format cannot state the grammar of its calls.
        """
        return call_constraint(self, demand, special)

    def read(self, source: Source, sink: Sink, thinking: bool) -> Steps[None]:
        """Read a whole answer into ``sink``."""
        yield from _Answer(self, source, sink).read(thinking)


class OutputParser:
    """Turns the pieces of one answer into what they mean. How the answer is cut into pieces changes nothing."""

    def __init__(self, form: ChatFormat, sink: Sink, thinking: bool) -> None:
        self._source = Source()
        self._sink = sink
        self._steps = form.read(self._source, sink, thinking)
        self._resume()

    @property
    def calls(self) -> int:
        """Calls begun so far."""
        return self._sink.calls

    @property
    def closed(self) -> bool:
        """Whether there were as many calls as there may be; what follows is dropped."""
        return self._sink.closed

    def push(self, text: str) -> Parsed:
        """Take in a piece; what is certain now."""
        self._source.add(text)
        self._resume()
        return self._sink.take()

    def finish(self) -> Parsed:
        """The answer is over; what was held back."""
        if not self._source.ended:
            self._source.ended = True
            self._resume()
            self._sink.finish()
        return self._sink.take()

    def _resume(self) -> None:
        next(self._steps, None)


class _Answer:
    """Reads one answer in a format made of markers."""

    def __init__(self, form: ChatFormat, source: Source, sink: Sink) -> None:
        self._form, self._source, self._sink = form, source, sink
        syntaxes: Sequence[CallSyntax] = form.calls if sink.offered.schemas else ()
        self._ways = {marker: syntax for syntax in reversed(syntaxes) for marker in syntax.opens}
        self._bare = [syntax for syntax in syntaxes if syntax.firsts]
        line = ("\n",) if self._bare else ()
        self._stops = Stops.of(*self._ways, *form.ignored, *line)
        self._fresh = True

    def read(self, thinking: bool) -> Steps[None]:
        marker: str | None = (yield from self._think()) if thinking else ""
        while marker is not None:
            line_begins = True
            if marker in self._ways:
                line_begins = yield from self._call(self._ways[marker], marker)
            elif marker == "\n":
                self._text("\n")
            elif marker:
                self._sink.separate()
            if self._fresh and (yield from self._opens_reasoning()):
                marker = yield from self._think()
            elif line_begins and (yield from self._bare_call()):
                marker = ""
            else:
                marker = yield from self._source.until(self._stops, self._text)

    def _text(self, piece: str) -> None:
        if not piece.isspace():
            self._fresh = False
        self._sink.text(piece)

    def _opens_reasoning(self) -> Steps[bool]:
        if self._form.reasoning is None:
            return False
        yield from self._source.skip_space(self._text)
        return (yield from self._source.starts(Stops.of(self._form.reasoning.opens))) is not None

    def _think(self) -> Steps[str | None]:
        """Read reasoning to its end; the marker to go on with."""
        form = self._form.reasoning
        if form is None:
            return ""
        known = (*self._ways, *self._form.ignored)
        stops = Stops.of(form.closes, *(text for text in form.ends_before if text in known))
        self._sink.reason()
        marker = yield from self._source.until(stops, self._sink.reasoning)
        self._sink.separate()
        return "" if marker == form.closes else marker

    def _bare_call(self) -> Steps[bool]:
        """Read calls without a marker, where the line begins with one."""
        if not self._bare:
            return False
        character = yield from self._source.skip_space(self._text)
        for syntax in self._bare if character else ():
            fits = syntax.firsts == ANY or character in syntax.firsts
            if fits and (yield from self._call(syntax, "")):
                return True
        return False

    def _call(self, syntax: CallSyntax, marker: str) -> Steps[bool]:
        """Read calls, if there are any; what is none is text."""
        before = self._sink.calls
        self._source.record()
        yield from syntax.read(self._source, self._sink)
        left = self._source.recorded()
        called = self._sink.calls > before
        self._fresh = self._fresh or called
        if not called:
            left = marker + left
        if left:
            self._text(left)
        return called
