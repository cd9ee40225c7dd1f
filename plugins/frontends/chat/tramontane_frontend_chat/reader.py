# SPDX-License-Identifier: Apache-2.0
"""Reads what the person types: with line editing and a history on a terminal, line by line elsewhere.

A message of several lines starts with three double quotes and ends with three, or has lines that end in a backslash; on
a terminal Alt-Enter breaks the line too. Both readers raise ``EOFError`` when input ends (Ctrl-D) and
``KeyboardInterrupt`` for Ctrl-C.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from tramontane_frontend_chat.themes import Theme

QUOTES = '"""'
PROMPT = "> "
CONTINUED = "… "


def unfinished(text: str) -> bool:
    """Whether the typed text asks for another line."""
    if text.lstrip().startswith(QUOTES):
        body = text.lstrip()[len(QUOTES) :]
        return not body.rstrip().endswith(QUOTES)
    return text.endswith("\\")


def cleaned(text: str) -> str:
    """The message without its quotes and line-joining backslashes."""
    stripped = text.strip()
    if stripped.startswith(QUOTES):
        return stripped.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return stripped.replace("\\\n", "\n")


def history_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the history lies: the XDG state directory, or its default."""
    stated = Path(environ.get("XDG_STATE_HOME", ""))
    base = stated if stated.is_absolute() else Path.home() / ".local" / "state"
    return base / "tramontane" / "chat_history"


class Reader(Protocol):
    """One message at a time."""

    def read(self) -> str: ...

    def ask(self, question: str) -> str: ...


class PlainReader:
    """Lines from a stream; asks, on another, only where a person types."""

    def __init__(self, stdin: TextIO, questions: TextIO) -> None:
        self._stdin = stdin
        self._questions = questions
        self._asks = stdin.isatty()

    def read(self) -> str:
        """The next message.

        Raises:
            EOFError: Input ended before a message began.
        """
        text = self._line(PROMPT)
        while unfinished(text):
            try:
                text = f"{text}\n{self._line(CONTINUED)}"
            except EOFError:
                break
        return cleaned(text)

    def ask(self, question: str) -> str:
        """The line that answers a question.

        Raises:
            EOFError: Nobody types here: the next line is a message and no answer.
        """
        if not self._asks:
            raise EOFError
        return self._line(question)

    def _line(self, question: str) -> str:
        if self._asks:
            self._questions.write(question)
            self._questions.flush()
        line = self._stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")


class TerminalReader:
    """Line editing, completion, a history kept between sessions, and a status line below what is typed.

    Args:
        completer: Completes what is typed when Tab is pressed.
        theme: Asked before each message, so that it may change.
        status: The text of the status line, likewise.
        history: The file; ``None`` keeps it for the session alone.
    """

    def __init__(
        self, completer: Completer, theme: Callable[[], Theme], status: Callable[[], str], history: Path | None = None
    ) -> None:
        self._session = _session(completer, history)
        self._theme = theme
        self._status = status

    def read(self) -> str:
        """The next message; see the module's text for what is raised."""
        from prompt_toolkit.output import ColorDepth
        from prompt_toolkit.styles import Style

        theme = self._theme()
        return cleaned(
            self._session.prompt(
                [("class:prompt", PROMPT)],
                style=Style.from_dict({"prompt": theme.prompt, "bottom-toolbar": theme.status}),
                bottom_toolbar=self._status(),
                color_depth=None if theme.colours else ColorDepth.MONOCHROME,
            )
        )

    def ask(self, question: str) -> str:
        """The line that answers a question; it is no part of the history."""
        from prompt_toolkit import prompt

        return prompt(question)


def _session(completer: Completer, history: Path | None) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    store: History = InMemoryHistory()
    if history is not None and _writable(history):
        store = FileHistory(str(history))
    return PromptSession(
        history=store,
        completer=completer,
        complete_while_typing=False,
        multiline=True,
        prompt_continuation=CONTINUED,
        key_bindings=_keys(),
    )


def _writable(path: Path) -> bool:
    """Make the history file private to its owner. A read-only home costs the history, not the chat."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK)


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    @keys.add("c-j")  # what Enter becomes when it is typed while an answer is written
    def send_or_break(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if unfinished(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("escape", "c-j")
    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
