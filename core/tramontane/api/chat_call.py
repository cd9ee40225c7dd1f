# SPDX-License-Identifier: Apache-2.0
"""One call of ``chat``: a conversation, and how the answer to it is to be made and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

Message = Mapping[str, Any]
ToolChoice = str | Mapping[str, Any] | None
"""``"auto"``, ``"none"``, ``"required"``, ``{"type": "function", "function": {"name": ...}}`` or OpenAI's
``allowed_tools``."""


@frozen(kw_only=True)
class ChatCall:
    """What the caller of :meth:`tramontane.LLM.chat` asked for."""

    messages: Sequence[Message]
    tools: Sequence[Any] | None = None
    """Functions the model may call, as JSON schemas in OpenAI's form."""
    tool_choice: ToolChoice = None
    """Whether, and which of them, the model must call; ``None`` is ``"auto"``."""
    parallel_tool_calls: bool = True
    """Whether one answer may make several calls."""
    response_format: Any = None
    """A form that the answer must have: OpenAI's ``{"type": "json_schema" | "json_object" | "text", ...}``."""
    thinking_budget: int | None = None
    """Most tokens of reasoning: after them its end is forced and the answer begins."""
    parse: bool = True
    """Tell reasoning and tool calls from the text; ``False`` leaves the model's output as it is."""
    template: Mapping[str, Any] = field(factory=dict)
    """Further options of the chat template."""
