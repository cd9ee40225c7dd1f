# SPDX-License-Identifier: Apache-2.0
"""A model's calls of tools, whole and in pieces."""

from __future__ import annotations

from attrs import evolve, frozen


@frozen(kw_only=True)
class ToolCall:
    """A call of a tool that a model made."""

    id: str
    """Unique; the message with the tool's result names it."""
    name: str
    arguments: str
    """JSON text, as the model wrote it or translated from the model's own notation. What a model writes need not be
    valid JSON, nor fit the tool's schema, unless a grammar made it so."""


@frozen(kw_only=True)
class ToolCallDelta:
    """A piece of a tool call. The first of a call has its id and name; the ``arguments`` of all, joined, are the
    call's."""

    index: int
    """Which of the choice's calls."""
    id: str | None = None
    name: str | None = None
    arguments: str = ""


def joined(before: tuple[ToolCallDelta, ...], after: tuple[ToolCallDelta, ...]) -> tuple[ToolCallDelta, ...]:
    """Pieces of calls and those that follow them, as few as they can be: a client may look at one piece of a call in
    each event."""
    if before and after and after[0].id is None and after[0].index == before[-1].index:
        whole = evolve(before[-1], arguments=before[-1].arguments + after[0].arguments)
        return (*before[:-1], whole, *after[1:])
    return before + after
