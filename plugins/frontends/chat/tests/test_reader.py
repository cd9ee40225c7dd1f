# SPDX-License-Identifier: Apache-2.0
"""Reading messages: several lines, the end of input, where the history lies."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tramontane_frontend_chat.reader import PlainReader, TerminalReader, history_path, unfinished
from tramontane_frontend_chat.themes import THEMES


def _messages(text: str) -> list[str]:
    reader = PlainReader(io.StringIO(text), io.StringIO())
    found = []
    while True:
        try:
            found.append(reader.read())
        except EOFError:
            return found


@pytest.mark.parametrize(
    ("typed", "messages"),
    [
        ("", []),
        ("hello\n", ["hello"]),
        ("  hello  \r\nyou", ["hello", "you"]),
        ("one \\\ntwo\\\nthree\nfour\n", ["one \ntwo\nthree", "four"]),
        ('"""one\n\ntwo"""\nthree\n', ["one\n\ntwo", "three"]),
        ('"""\none\n"""\n', ["one"]),
        ('"""one line"""\n', ["one line"]),
        ('"""never closed\n', ["never closed"]),
        ("ends in \\", ["ends in \\"]),
        ("\n", [""]),
    ],
)
def test_messages(typed: str, messages: list[str]) -> None:
    assert _messages(typed) == messages


def test_a_pipe_is_not_asked() -> None:
    out = io.StringIO()
    PlainReader(io.StringIO("x\n"), out).read()
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "more"), [("a", False), ("a\\", True), ('"""a', True), ('"""a"""', False), ('"""', True), ('a"""', False)]
)
def test_what_asks_for_more(text: str, more: bool) -> None:
    assert unfinished(text) is more


def test_the_history_lies_in_the_state_directory(tmp_path: Path) -> None:
    assert history_path({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "tramontane" / "chat_history"
    assert history_path({"XDG_STATE_HOME": "not/absolute"}) == Path.home() / ".local/state/tramontane/chat_history"


def test_keys_of_the_terminal(tmp_path: Path) -> None:
    """Enter sends, Alt-Enter breaks the line, an open quote goes on; the history is written and private."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.completion import DummyCompleter
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    history = tmp_path / "deep" / "history"
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        reader = TerminalReader(DummyCompleter(), lambda: THEMES["dark"], lambda: "status", history)
        pipe.send_text('early\x0aone\x1b\x0dtwo\\\x0dthree\x0d"""a\x0db"""\x0dlast\x04')
        assert reader.read() == "early"
        assert reader.read() == "one\ntwo\nthree"
        assert reader.read() == "a\nb"
        pipe.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            reader.read()
        pipe.send_text("\x04")
        with pytest.raises(EOFError):
            reader.read()
    assert "+three" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_a_history_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    from prompt_toolkit.completion import DummyCompleter

    blocked = tmp_path / "file"
    blocked.touch()
    TerminalReader(DummyCompleter(), lambda: THEMES["dark"], str, blocked / "history")
