# SPDX-License-Identifier: Apache-2.0
"""A model's calls of tools, whole and in pieces."""

from __future__ import annotations

from attrs import frozen


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
