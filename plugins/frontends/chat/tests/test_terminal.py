# SPDX-License-Identifier: Apache-2.0
"""The chat as a program: in a pipe, on a pseudo-terminal, and under tmux where that is installed."""

from __future__ import annotations

import io
import os
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_chat.py"))]
PATIENCE_S = 120.0
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>78]|\r")


def _environment(home: Path, term: str = "xterm-256color") -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(home), "TERM": term, "PYTHONUNBUFFERED": "1", "COLUMNS": "80"}


# --- pipes ------------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_answers_alone(tmp_path: Path) -> None:
    typed = 'hello\n/topk 3\n"""two\nlines"""\n/nothing\nevil\n'
    ended = subprocess.run(
        PROGRAM, input=typed, capture_output=True, text=True, timeout=120, check=True, env=_environment(tmp_path)
    )
    assert ended.stdout == "**Hello** to *you*.\nYou said 'two\\nlines' as line 2.\na\x1b]0;owned\x07b\n"
    notes = ended.stderr.splitlines()
    assert notes[0].startswith("fake: /help lists the commands")
    assert "top_k = 3" in notes
    assert sum("first token" in line for line in notes) == 3
    assert any("no command /nothing" in line for line in notes)
    assert notes[-1] == "left"
    assert not (tmp_path / "tramontane").exists()


Piped = Callable[..., tuple[str, str]]


@pytest.fixture
def piped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Piped:
    """Chat in this process with what comes from a pipe; what it writes, and what it says about that."""
    program = runpy.run_path(PROGRAM[1])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("tramontane.api.service.Service.load", program["load"])

    def piped(text: str, *words: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        program["chat"](*words)
        return capsys.readouterr()

    return piped


def test_without_verbose_a_pipe_hears_of_no_figures(piped: Piped) -> None:
    out, err = piped("hello\n/maxtokens 3\nhello\n", "quiet")
    assert out == "**Hello** to *you*.\n**H\n"
    assert err.splitlines()[1:] == ["max_tokens = 3", "(stopped at the token limit)"]


def test_an_image_is_refused_where_the_model_takes_text_alone(piped: Piped, tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()
    out, err = piped(f"what is in {tmp_path}/cat.png\nhello\n", "quiet")
    assert out == "**Hello** to *you*.\n"
    assert "error: messages[1] holds an image, and fake takes text alone" in err


def test_a_base_model_says_what_it_does(piped: Piped) -> None:
    out, err = piped("Once upon a time\n/exit\nnever read\n", "raw")
    assert out == "You said 'Once upon a time' as line 0.\n"
    assert "no chat template: it continues your text" in err


# --- a pseudo-terminal ------------------------------------------------------------------------------------------------


class Terminal:
    """A program on a pseudo-terminal, and what it has shown so far (without escape sequences)."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments], stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(side)
        self.raw = ""

    @property
    def shown(self) -> str:
        return ESCAPES.sub("", self.raw)

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def expect(self, text: str, after: int = 0) -> int:
        """Wait until ``text`` is shown after a place; the place behind it."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown[after:]:
            assert time.monotonic() < deadline, f"{text!r} was not shown after {after}:\n{self.shown[after:]}"
            self._read()
        return self.shown.index(text, after) + len(text)

    def answered(self, text: str, after: int) -> int:
        """Wait for an answer, the statistics under it and the next prompt: keys mean something only from then on."""
        return self.expect(">", self.expect("first token", self.expect(text, after)))

    def leaves(self) -> int:
        """Wait for the end of the program and of what it has written; the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        while self._read():
            pass
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.main)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.main], [], [], 0.05)
        if not ready:
            return False
        try:
            data = os.read(self.main, 65536)
        except OSError:  # the other side is closed
            return False
        text = data.decode(errors="replace")
        self.raw += text
        if "\x1b[6n" in text:  # the program asks where the cursor is
            self.type("\x1b[1;1R")
        return True


pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are a POSIX thing")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(_environment(tmp_path))
    yield opened
    opened.close()


def test_a_chat_on_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """Markdown, lines that are typed early, answers that are stopped, and the history: one program, since each takes
    seconds to start."""
    place = terminal.expect(">", terminal.expect("Ctrl-D leaves."))
    terminal.type("hello\r")
    place = terminal.answered("Hello to you.", place)
    assert "**Hello**" not in terminal.shown
    terminal.type("evil\r")
    place = terminal.answered("a]0;ownedb", place)
    assert "\x1b]0;owned" not in terminal.raw
    terminal.type("one\x1b\rtwo\r")
    place = terminal.answered("You said 'one\\ntwo' as line 3.", place)

    terminal.type("long\r")
    place = terminal.expect("point number 3", place)
    terminal.type("early\r")
    place = terminal.expect("first token", place)
    place = terminal.answered("You said 'early' as line 5.", place)

    before = place
    terminal.type("long\r")
    place = terminal.expect("point number 3", place)
    terminal.type("\x03")
    place = terminal.expect(">", terminal.expect("stopped by you", place))
    assert "point number 59" not in terminal.shown[before:]
    terminal.type("\x03")
    place = terminal.expect(">", terminal.expect("(Ctrl-D or /exit leaves)", place))
    terminal.type("hello\r")
    terminal.answered("Hello to you.", place)
    terminal.type("\x04")
    assert terminal.leaves() == 0
    assert "left" in terminal.shown
    history = (tmp_path / "tramontane" / "chat_history").read_text()
    assert "+hello" in history
    assert "+one\n+two" in history


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    terminal = Terminal(_environment(tmp_path, term="dumb"))
    try:
        place = terminal.expect(">", terminal.expect("Ctrl-D leaves."))
        terminal.type("hello\n")
        place = terminal.answered("**Hello** to *you*.", place)
        terminal.type("long\n")
        place = terminal.expect("point number 3", place)
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.expect(">", terminal.expect("stopped by you", place))
        terminal.type("\x04")
        assert terminal.leaves() == 0
        assert "\x1b" not in terminal.raw
    finally:
        terminal.close()


# --- tmux -------------------------------------------------------------------------------------------------------------


class Tmux:
    """The program in a window of a tmux server of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.socket = str(folder / f"tmux-{uuid.uuid4().hex[:8]}")
        command = " ".join(PROGRAM)
        self._call("-f", "/dev/null", "new-session", "-d", "-x", "60", "-y", "12", command, environment=environment)

    def _call(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        ended = subprocess.run(
            ["tmux", "-S", self.socket, *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env=environment,
            check=False,
        )
        return ended.stdout

    def type(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._call("resize-window", "-x", str(width), "-y", str(height))

    def all_lines(self) -> str:
        """The window and what has scrolled out of it."""
        return self._call("capture-pane", "-p", "-J", "-S", "-1000")

    def expect(self, text: str) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while text not in (shown := self.all_lines()):
            assert time.monotonic() < deadline, f"{text!r} was not shown:\n{shown}"
            time.sleep(0.05)
        return shown

    def close(self) -> None:
        self._call("kill-server")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    opened = Tmux(_environment(tmp_path), tmp_path)
    yield opened
    opened.close()


def test_a_long_answer_scrolls_once_even_when_the_window_changes(tmux: Tmux) -> None:
    """What is drawn while it grows is gone when the answer is there: each line is on the screen or in history once."""
    tmux.expect("Ctrl-D leaves.")
    tmux.type("long", "Enter")
    tmux.expect("point number 5")
    tmux.resize(50, 16)
    shown = tmux.expect("first token")
    assert all(len(re.findall(rf"point number {number}\b", shown)) >= 1 for number in range(60))
    tmux.type("again", "Enter")
    tmux.expect("You said 'again' as line 2.")
    tmux.type("/exit", "Enter")


def test_the_status_line_commands_many_lines_and_stopping_under_tmux(tmux: Tmux) -> None:
    tmux.expect("context 0/4096 · fake · /help")
    tmux.type("one", "M-Enter", "two", "Enter")
    tmux.expect("You said 'one\\ntwo' as line 1.")
    tmux.type("long", "Enter")
    tmux.expect("tokens/s · Ctrl-C stops")
    tmux.type("C-c")
    tmux.expect("stopped by you")
    tmux.expect("cache hits ")
    tmux.type("/temperature 0", "Enter")
    tmux.expect("temperature = 0.0")
    tmux.type("/the", "Tab")
    tmux.expect("> /theme")
    tmux.type(" li", "Tab")
    tmux.expect("> /theme light")
    tmux.type("Enter")
    tmux.expect("Themes: dark, [light], plain.")
    tmux.resize(100, 20)
    tmux.expect("· fake · /help")
    tmux.type("/clear", "Enter")
    tmux.expect("context 0/4096 · fake · /help")
    tmux.type("/model ot", "Tab")
    tmux.expect("> /model other")
    tmux.type("Enter")
    tmux.expect("other answers from here on; what was said stays.")
    tmux.type("hello", "Enter")
    tmux.expect("· other · /help")
    tmux.type("/model", "Enter")
    tmux.expect("* other  ready · context 4096 · path/to/other")
