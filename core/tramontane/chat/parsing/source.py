# SPDX-License-Identifier: Apache-2.0
"""A text that arrives in pieces, and how a parser reads it without caring where it was cut.

A parser is a generator that reads from a :class:`Source` and pauses (``yield``) where it cannot go on before more text
has come. What it reads depends on the text alone. Everything is looked at a bounded number of times, so reading takes
time in proportion to the text, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

from attrs import frozen

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A parser, or a part of one, that ends with a ``T``."""
Give = Callable[[str], None]
"""Takes pieces of text in order."""

_SPACE = re.compile(r"\s*")


def nowhere(text: str) -> None:
    """Takes text that nobody wants."""


@frozen
class Stops:
    """Texts to look for."""

    pattern: re.Pattern[str]
    heads: frozenset[str]
    """Proper beginnings of the texts."""
    longest: int

    @staticmethod
    @lru_cache(maxsize=256)
    def of(*texts: str) -> Stops:
        """Stops for these texts; of several at one place the longest counts."""
        ordered = sorted({text for text in texts if text}, key=len, reverse=True)
        pattern = "|".join(map(re.escape, ordered)) or "(?!)"
        heads = frozenset(text[:i] for text in ordered for i in range(1, len(text)))
        return Stops(re.compile(pattern), heads, max(map(len, ordered), default=0))

    def settled(self, text: str, start: int) -> int:
        """Where the longest ending of ``text[start:]`` begins that more text may make one of the texts."""
        for at in range(max(start, len(text) - self.longest + 1), len(text)):
            if text[at:] in self.heads:
                return at
        return len(text)


class Source:
    """The text that has come and was not read yet."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._tape: list[str] | None = None
        self.ended = False
        """No more text will come."""

    def add(self, piece: str) -> None:
        """More text has come."""
        self._text = self._text[self._at :] + piece
        self._at = 0

    def more(self) -> Steps[bool]:
        """Wait for more text; ``False`` if none will come."""
        if self.ended:
            return False
        yield
        return True

    def record(self) -> None:
        """Keep what is read from here on, for :meth:`recorded`."""
        self._tape = []

    def recorded(self) -> str:
        """What was read since :meth:`record`; recording ends."""
        tape, self._tape = self._tape or [], None
        return "".join(tape)

    def take(self, count: int) -> str:
        """Read characters that :meth:`peek` or a search has shown to be there."""
        taken = self._text[self._at : self._at + count]
        self._at += count
        if self._tape is not None:
            self._tape.append(taken)
        return taken

    def peek(self) -> Steps[str]:
        """The next character, without reading it; nothing at the end."""
        while self._at == len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._at]

    def skip_space(self, give: Give = nowhere) -> Steps[str]:
        """Read white space; the next character, as :meth:`peek`."""
        return (yield from self.run(_SPACE, give))

    def run(self, pattern: re.Pattern[str], give: Give) -> Steps[str]:
        """Read while ``pattern``, which matches single characters repeatedly, goes on; the next character."""
        while True:
            match = pattern.match(self._text, self._at)
            if match is not None and match.end() > self._at:
                give(self.take(match.end() - self._at))
            if self._at < len(self._text):
                return self._text[self._at]
            if not (yield from self.more()):
                return ""

    def until(self, stops: Stops, give: Give) -> Steps[str | None]:
        """Read up to and over the first of some texts, giving what comes before it as soon as it is certain.

        Returns:
            Which; ``None`` if the text ended without one.
        """
        while True:
            settled = len(self._text) if self.ended else stops.settled(self._text, self._at)
            match = stops.pattern.search(self._text, self._at)
            if match is not None and (match.start() < settled or self.ended):
                settled = match.start()
            else:
                match = None
            if settled > self._at:
                give(self.take(settled - self._at))
            if match is not None:
                return self.take(len(match[0]))
            if not (yield from self.more()):
                return None

    def within(self, stops: Stops, limit: int) -> Steps[tuple[str, str] | None]:
        """Read a short text and what ends it.

        Returns:
            (the text, the stop after it); ``None`` if none came within ``limit`` characters, all of which are read.
        """
        found: list[str] = []
        left = limit
        while left >= 0:
            settled = len(self._text) if self.ended else stops.settled(self._text, self._at)
            match = stops.pattern.search(self._text, self._at, min(len(self._text), self._at + left + stops.longest))
            near = match is not None and match.start() - self._at <= left
            if match is not None and near and (match.start() < settled or self.ended):
                found.append(self.take(match.start() - self._at))
                return "".join(found), self.take(len(match[0]))
            taken = self.take(min(settled - self._at, left + 1))
            found.append(taken)
            left -= len(taken)
            if left >= 0 and not (yield from self.more()):
                return None
        return None

    def starts(self, stops: Stops) -> Steps[str | None]:
        """Read one of some texts if it comes next; ``None``, and nothing read, if not."""
        while True:
            match = stops.pattern.match(self._text, self._at)
            rest = self._text[self._at : self._at + stops.longest]
            undecided = not rest or (self._at + len(rest) == len(self._text) and rest in stops.heads)
            if not undecided or self.ended:
                return self.take(len(match[0])) if match is not None else None
            if not (yield from self.more()):
                continue
