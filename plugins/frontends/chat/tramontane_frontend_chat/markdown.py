# SPDX-License-Identifier: Apache-2.0
"""Shows an answer while it arrives: rendered markdown on a terminal, plain text anywhere else.

Markdown is rendered block by block. A block that can no longer change is printed for good; only the last one is drawn
again as it grows, cropped to the window, so that an answer longer than the window neither flickers nor repeats itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from tramontane.tools import ToolCall
    from tramontane_frontend_chat.themes import Theme

REDRAW_S = 0.08
"""Between two drawings of the growing block: rendering markdown for each token would cost more than the token."""
MOST_SHOWN, MOST_LINES = 600, 8
"""Characters and lines of a call's result."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Drop control characters other than newline and tab: a model's text must not steer the terminal."""
    return _CONTROL.sub("", text)


def beginning(text: str) -> str:
    """As much of a call's result as a person wants to see."""
    lines = text[:MOST_SHOWN].splitlines()[:MOST_LINES]
    shown = "\n".join(lines)
    return shown if len(shown) == len(text) else f"{shown} ..."


def stable_length(text: str) -> int:
    """How many leading characters of a growing markdown text are whole blocks that more text cannot change.

    A block ends at a blank line outside a code fence once the line after it has begun and is not indented (an indented
    line continues a list item).
    """
    stable = position = 0
    fence = ""
    blank = False
    for line in text.splitlines(keepends=True):
        if blank and not fence and line.strip() and not line[0].isspace():
            stable = position
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        elif mark:
            fence = mark[1]
        blank = not line.strip() and line.endswith("\n")
        position += len(line)
    return stable


class AnswerWriter(Protocol):
    """Takes the pieces of one answer in order."""

    def write(self, text: str) -> None: ...

    def think(self, text: str) -> None: ...

    def call(self, call: ToolCall) -> None: ...

    def result(self, text: str) -> None: ...

    def close(self) -> None: ...


class PlainWriter:
    """Writes pieces as they come; on a terminal without their control characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._thinks = False
        self._last = "\n"

    def write(self, text: str) -> None:
        """Write and flush, so that a reader sees each token at once."""
        if self._thinks and text:
            self._thinks = False
            self._put("\n\n")
        self._put(text)

    def _put(self, text: str) -> None:
        if self._terminal:
            text = printable(text)
        if text:
            self._last = text[-1]
            self._stream.write(text)
            self._stream.flush()

    def think(self, text: str) -> None:
        """Show reasoning on a terminal; in a pipe it is no part of the answer."""
        if self._terminal:
            self._thinks = True
            self._put(text)

    def call(self, call: ToolCall) -> None:
        """Show a call on a line of its own, on a terminal."""
        if self._terminal:
            self.close()
            self._put(f"-> {call.name}({call.arguments})\n")

    def result(self, text: str) -> None:
        """Show the beginning of what a call came to, on a terminal."""
        if self._terminal:
            self._put(f"<- {beginning(text)}\n")

    def close(self) -> None:
        """End the line, if one was begun."""
        if self._last != "\n":
            self.write("\n")


class _Tail:
    """A markdown block of which only the last lines that fit the window are drawn, above the status line."""

    def __init__(self, text: str, status: str, theme: Theme) -> None:
        self._text = text
        self._status = status
        self._theme = theme

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.markdown import Markdown
        from rich.segment import Segment
        from rich.text import Text

        lines = console.render_lines(Markdown(self._text, code_theme=self._theme.code), options, pad=False)
        for line in lines[-max(1, console.size.height - 3) :]:
            yield from line
            yield Segment.line()
        yield Text(self._status, style=self._theme.note, no_wrap=True, overflow="ellipsis")


def console_for(theme: Theme, stream: TextIO) -> Console:
    """Where a theme's styles are known by name."""
    from rich.console import Console
    from rich.theme import Theme as Styles

    return Console(file=stream, theme=Styles(dict(theme.markdown)), no_color=not theme.colours or None)


class MarkdownWriter:
    """Renders markdown on a terminal as it streams.

    Args:
        console: The terminal.
        theme: How things look.
        status: The status line of the moment, drawn below what grows.
    """

    def __init__(self, console: Console, theme: Theme, status: Callable[[], str]) -> None:
        self._console = console
        self._theme = theme
        self._status = status
        self._pending = ""
        self._any = False
        self._drawn = 0.0
        self._live: Live | None = None
        self._thinks = False

    def think(self, text: str) -> None:
        """Add to the reasoning, which is dimmed and no markdown."""
        if not self._thinks:
            self.close()
            self._thinks = True
        self._dimmed(text, end="")

    def call(self, call: ToolCall) -> None:
        """Show a call on a line of its own."""
        self.close()
        self._dimmed(f"-> {call.name}({call.arguments})")

    def result(self, text: str) -> None:
        """Show the beginning of what a call came to."""
        self.close()
        self._dimmed(f"<- {beginning(text)}")

    def _dimmed(self, text: str, end: str = "\n") -> None:
        self._console.print(
            printable(text), style=self._theme.note, end=end, markup=False, highlight=False, soft_wrap=True
        )
        self._any = True

    def write(self, text: str) -> None:
        """Add a piece; draw if the last drawing is old enough."""
        self._end_reasoning()
        self._pending += printable(text)
        stable = stable_length(self._pending)
        if stable:
            self._print(self._pending[:stable])
            self._pending = self._pending[stable:]
        now = time.monotonic()
        if now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._region().update(_Tail(self._pending, self._status(), self._theme), refresh=True)

    def close(self) -> None:
        """Replace the growing block by its final form."""
        self._end_reasoning()
        if self._live is not None:
            self._live.update("", refresh=True)
            self._live.stop()
            self._live = None
        if self._pending.strip():
            self._print(self._pending)
        self._pending = ""

    def _end_reasoning(self) -> None:
        if self._thinks:
            self._thinks = False
            self._console.print()

    def _print(self, block: str) -> None:
        from rich.markdown import Markdown

        if self._live is not None:
            self._live.update("")
        if self._any:
            self._console.print()
        self._console.print(Markdown(block, code_theme=self._theme.code))
        self._any = True

    def _region(self) -> Live:
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self._live
