# SPDX-License-Identifier: Apache-2.0
"""What Tab completes: the names of commands with their help, the words they take, and paths anywhere in a message.

It imports prompt_toolkit, so only a terminal that can edit lines imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from tramontane_frontend_chat.commands import Command
from tramontane_frontend_chat.conversation import Conversation

_COMMAND = re.compile(r"/[A-Za-z]*")


class CommandCompleter(Completer):
    """Completes the message in front of the cursor."""

    def __init__(self, commands: Mapping[str, Command], conversation: Conversation) -> None:
        self._commands = commands
        self._conversation = conversation
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Commands at the beginning, then their words; anywhere else paths, which are words with a slash."""
        text = document.text_before_cursor
        name, gap, rest = text.partition(" ")
        command = self._commands.get(name.lower())
        if _COMMAND.fullmatch(text):
            helps = {one.name: one.help for one in self._commands.values()}
            yield from _matching(text, helps)
        elif gap and command is not None:
            yield from _matching(rest, dict.fromkeys(command.words(self._conversation), ""))
            if command.paths:
                yield from self._files(rest, complete_event)
        else:
            yield from self._files(document.get_word_before_cursor(WORD=True), complete_event)

    def _files(self, begun: str, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Paths that begin like what is typed, if that can be a path at all."""
        if "/" in begun or begun.startswith("~"):
            yield from self._paths.get_completions(Document(begun), complete_event)


def _matching(begun: str, words: Mapping[str, str]) -> Iterable[Completion]:
    """The words that begin like what is typed; the values are what is said of them."""
    for word, said in words.items():
        if word.startswith(begun.lower()):
            yield Completion(word, start_position=-len(begun), display_meta=said)
