# SPDX-License-Identifier: Apache-2.0
"""How the output of a chat is read: which format it has, what it may call, and what of it the parser must see."""

from __future__ import annotations

from attrs import frozen

from tramontane.chat.parsing import ChatFormat, Offered, OutputParser


@frozen
class Reading:
    """What a choice of a chat needs to make a parser."""

    form: ChatFormat
    offered: Offered
    """The tools that may be called; without any, calls are text."""
    visible: frozenset[int]
    """Special tokens whose text the parser must see."""
    thinking: bool = False
    """The prompt ends inside the reasoning."""
    most_calls: int | None = None
    """The answer ends with this many calls."""

    def parser(self) -> OutputParser:
        """A parser for one choice."""
        return self.form.parser(self.offered, thinking=self.thinking, most_calls=self.most_calls)
