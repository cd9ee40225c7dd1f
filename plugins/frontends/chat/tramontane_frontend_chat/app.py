# SPDX-License-Identifier: Apache-2.0
"""The terminal chat: reads a message or a command, shows the answer, until the person leaves.

On a terminal it renders markdown and edits lines; on a dumb terminal or in a pipe it reads and writes plain text.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from attrs import define

from tramontane.errors import ConfigError, TramontaneError
from tramontane_frontend_chat.commands import COMMANDS, Leave, is_command, run_command
from tramontane_frontend_chat.conversation import Conversation
from tramontane_frontend_chat.markdown import AnswerWriter, MarkdownWriter, PlainWriter, console_for
from tramontane_frontend_chat.models import Models
from tramontane_frontend_chat.reader import PlainReader, Reader, TerminalReader, history_path
from tramontane_frontend_chat.statistics import ending, summary
from tramontane_frontend_chat.themes import AUTO, Display, theme_named
from tramontane_frontend_chat.toolbox import Providers, Toolbox

if TYPE_CHECKING:
    from tramontane.api import LLM, CompletionStream
    from tramontane.host import FrontendOptions, Host
    from tramontane.records import ToolProviderSpec
    from tramontane.tools import ToolProvider


def run(host: Host, options: FrontendOptions) -> None:
    """Chat with the host's model until the person leaves (the frontend's entry point)."""
    display = Display(theme_named(AUTO, os.environ), figures=options.verbosity > 0)
    models = Models(host, options.settings, options.progress)
    conversation = Conversation(
        models.load(options.model),
        system=options.system,
        sampling=dict(options.sampling),
        template=dict(options.template),
        models=models,
        adapter=options.adapter,
        display=display,
        toolbox=Toolbox(providers_of(host)),
    )
    terminal = Terminal.of(sys.stdin, sys.stdout, os.environ, conversation)
    conversation.toolbox.ask = terminal.reader.ask
    if options.theme is not None:
        try:
            display.theme = theme_named(options.theme, os.environ)
        except ConfigError as error:  # the model is loaded; it is not thrown away for a colour
            terminal.note(f"error: {error}")
    if options.verbosity >= 0:
        terminal.note(greeting(conversation.llm))
    try:
        terminal.chat(conversation)
    finally:
        conversation.toolbox.clear()


def providers_of(host: Host) -> Providers:
    """The installed providers of tools, made when they are asked for."""
    catalog = host.plugins.catalogs.tool_providers
    return {name: partial(_made, catalog.get(name)) for name in host.tools()}


def _made(spec: ToolProviderSpec) -> ToolProvider:
    made: ToolProvider = spec.load("provider")({})
    return made


def capable(stdin: TextIO, stdout: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether both ends are a terminal that can move its cursor."""
    return stdin.isatty() and stdout.isatty() and environ.get("TERM", "") not in ("", "dumb", "unknown")


@define
class Terminal:
    """Where the person is: how to ask, how to show answers and notes."""

    reader: Reader
    make_writer: Callable[[], AnswerWriter]
    """Made anew for each answer."""
    note: Callable[[str], None]
    """Shows a line that is not part of an answer."""

    @classmethod
    def of(cls, stdin: TextIO, stdout: TextIO, environ: Mapping[str, str], conversation: Conversation) -> Terminal:
        """The best the given streams can do. Notes of a pipe go to standard error, so that answers stay clean."""
        if not capable(stdin, stdout, environ):
            notes = stdout if stdin.isatty() and stdout.isatty() else sys.stderr
            return cls(
                reader=PlainReader(stdin, notes),
                make_writer=lambda: PlainWriter(stdout),
                note=lambda text: print(text, file=notes, flush=True),
            )
        return cls._styled(stdout, history_path(environ), conversation)

    @classmethod
    def _styled(cls, stdout: TextIO, history: Path, conversation: Conversation) -> Terminal:
        """Line editing, markdown, a status line, in the colours of the conversation's theme, which may change."""
        from tramontane_frontend_chat.completion import CommandCompleter

        display, meter = conversation.display, conversation.meter
        display.styled = True

        def writer() -> AnswerWriter:
            if conversation.raw:
                return PlainWriter(stdout)
            return MarkdownWriter(console_for(display.theme, stdout), display.theme, meter.growing)

        def note(text: str) -> None:
            style = display.theme.note
            console_for(display.theme, stdout).print(text, style=style, markup=False, highlight=False, soft_wrap=True)

        def status() -> str:
            return meter.line(conversation.llm.name, conversation.llm.max_model_len)

        reader = TerminalReader(CommandCompleter(COMMANDS, conversation), lambda: display.theme, status, history)
        return cls(reader=reader, make_writer=writer, note=note)

    def chat(self, conversation: Conversation) -> None:
        """Take turns until the input ends or the person leaves."""
        while True:
            try:
                text = self.reader.read()
                if text:
                    self.turn(conversation, text)
            except KeyboardInterrupt:
                self.note("(Ctrl-D or /exit leaves)")
            except (EOFError, Leave):
                return

    def turn(self, conversation: Conversation, text: str) -> None:
        """Carry out one command or answer one message; an error is shown and the chat goes on."""
        try:
            if is_command(text):
                self.note(run_command(conversation, text))
            else:
                self.answer(conversation, text)
        except TramontaneError as error:
            self.note(f"error: {error}")

    def answer(self, conversation: Conversation, text: str) -> None:
        """Show the answer to a message, then its figures. Ctrl-C ends the answer, which is kept as far as it got."""
        writer = self.make_writer()
        with interruptible() as started:
            try:
                completion = conversation.answer(text, writer, started)
            finally:
                writer.close()
        if conversation.display.figures:
            self.note(summary(completion, conversation.llm.max_model_len))
        elif why := ending(completion):
            self.note(f"({why})")


@contextmanager
def interruptible() -> Iterator[Callable[[CompletionStream], None]]:
    """While inside, Ctrl-C cancels the stream given to the yielded function; it raises nothing.

    An exception could surface anywhere, in the middle of drawing too; a cancelled stream just ends. Only the main
    thread may handle signals, so in any other this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda stream: None
        return
    current: list[CompletionStream] = []
    asked = False

    def cancel(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for stream in current:
            stream.cancel()

    def started(stream: CompletionStream) -> None:
        current.append(stream)
        if asked:
            stream.cancel()

    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield started
    finally:
        signal.signal(signal.SIGINT, before)


def greeting(llm: LLM) -> str:
    """What the person is told first."""
    lines = [f"{llm.name}: /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves."]
    if not llm.has_chat_template:
        lines.append("This model has no chat template: it continues your text, each message on its own.")
    return "\n".join(lines)
