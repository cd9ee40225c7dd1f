# SPDX-License-Identifier: Apache-2.0
"""What a notation of calls is, and what all of them share.

A notation is a frozen description that can read calls from a source. Once a call's name is known the call has begun,
and its arguments are given on as they come; what turns out to be no call before that is text, as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from tramontane.chat.parsing.rules import Rules
from tramontane.chat.parsing.sink import Sink
from tramontane.chat.parsing.source import Source, Steps, Stops

LONGEST_NAME = 256
ANY = "\0"
"""As :attr:`CallSyntax.firsts`: a bare call may begin with any character."""
_NAME = re.compile(r"[\w.\-/:$]+")


class CallSyntax(Protocol):
    """One notation for calls."""

    @property
    def opens(self) -> tuple[str, ...]:
        """Texts that begin calls; empty where calls stand bare at the start of a line."""

    @property
    def closes(self) -> tuple[str, ...]:
        """Texts that end calls."""

    @property
    def firsts(self) -> str:
        """Characters a bare call may begin with; empty where there are none."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of the notation that may be a special token of a vocabulary."""

    def body(self, rules: Rules) -> str | None:
        """The grammar of what follows the text that begins calls; ``None`` where it cannot be stated."""

    def read(self, source: Source, sink: Sink) -> Steps[None]:
        """Read calls, after the text that begins them. The source records; what it holds at the end is text."""


def is_name(text: str) -> bool:
    """Whether a tool can be called so."""
    return 0 < len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def begin(source: Source, sink: Sink, name: str, call_id: str | None = None) -> None:
    """A call has begun: what was read belongs to it."""
    source.recorded()
    sink.begin(name, call_id)


def broken(source: Source, sink: Sink, closes: Sequence[str]) -> Steps[None]:
    """The arguments are not what they should be: give on what there is, for the caller of the model to see."""
    yield from source.until(Stops.of(*closes), sink.arguments)
    sink.end(whole=False)


@frozen(kw_only=True)
class Either:
    """Two notations behind the same marker, told apart by the first character."""

    opens: tuple[str, ...]
    first: CallSyntax
    characters: str
    """What calls of the first notation begin with."""
    second: CallSyntax
    firsts: str = ""
    writes_second: bool = False
    """The model writes the second one."""

    def body(self, rules: Rules) -> str | None:
        """That of the notation which the model writes."""
        return (self.second if self.writes_second else self.first).body(rules)

    @property
    def closes(self) -> tuple[str, ...]:
        return (*self.first.closes, *self.second.closes)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may be a special token."""
        return (*self.first.texts, *self.second.texts)

    def read(self, source: Source, sink: Sink) -> Steps[None]:
        character = yield from source.skip_space()
        way = self.first if character and character in self.characters else self.second
        yield from way.read(source, sink)
