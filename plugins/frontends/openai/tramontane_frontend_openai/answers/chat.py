# SPDX-License-Identifier: Apache-2.0
"""Chat completions: one object, or chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from tramontane.api.results import Choice, Completion, CompletionDelta, ToolCall, ToolCallDelta, Usage
from tramontane.requests import TokenLogprobs
from tramontane_frontend_openai.answers.common import Spell, UsageMeanwhile, finish, token_entries, usage


@define(kw_only=True)
class ChatShape:
    """Chat completions of one request."""

    model: str
    spell: Spell
    wants_logprobs: bool = False
    meanwhile: UsageMeanwhile | None = None
    """Told with every chunk."""
    id: str = field(factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(factory=lambda: int(time.time()))
    _begun: set[int] = field(factory=set, init=False)
    _reasoning: int = field(default=0, init=False)

    def note(self, delta: CompletionDelta) -> None:
        """Count the tokens of a delta that were thought and not said."""
        self._reasoning += delta.reasoning_tokens

    def whole(self, done: Completion) -> dict[str, Any]:
        """The answer as one object; :meth:`note` was told of its deltas."""
        choices = [
            {
                "index": choice.index,
                "message": _message(choice),
                "logprobs": self._logprobs(choice.logprobs),
                "finish_reason": finish(choice.finish_reason),
            }
            for choice in done.choices
        ]
        return self._frame("chat.completion", choices) | {"usage": usage([done.usage], self._reasoning)}

    def chunk(self, delta: CompletionDelta) -> dict[str, Any] | None:
        """A piece of it; ``None`` where nothing can be shown yet."""
        self.note(delta)
        used = {} if self.meanwhile is None else {"usage": self.meanwhile.after(delta)}
        content: dict[str, Any] = {"role": "assistant", "content": ""} if delta.index not in self._begun else {}
        self._begun.add(delta.index)
        if delta.text:
            content["content"] = delta.text
        if delta.reasoning:
            content["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            content["tool_calls"] = [_call_piece(piece) for piece in delta.tool_calls]
        if not (content or delta.finish_reason or (self.wants_logprobs and delta.logprobs)):
            return None
        choice = {
            "index": delta.index, "delta": content, "logprobs": self._logprobs(delta.logprobs or None),
            "finish_reason": finish(delta.finish_reason),
        }  # fmt: skip
        return self._frame("chat.completion.chunk", [choice]) | used

    def last(self, found: Sequence[Usage]) -> dict[str, Any]:
        """The chunk that carries usage alone."""
        return self._frame("chat.completion.chunk", []) | {"usage": usage(found, self._reasoning)}

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices,
                "system_fingerprint": "tramontane"}  # fmt: skip

    def _logprobs(self, found: Sequence[TokenLogprobs] | None) -> dict[str, Any] | None:
        if not self.wants_logprobs or found is None:
            return None
        return {"content": token_entries(found, self.spell), "refusal": None}


def _message(choice: Choice) -> dict[str, Any]:
    found: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.reasoning:
        found["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        found["content"] = choice.text or None
        found["tool_calls"] = [_call(call) for call in choice.tool_calls]
    return found


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_piece(piece: ToolCallDelta) -> dict[str, Any]:
    found: dict[str, Any] = {"index": piece.index, "function": {"arguments": piece.arguments}}
    if piece.id is not None:
        found |= {"id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": piece.arguments}}
    return found
