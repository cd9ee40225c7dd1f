# SPDX-License-Identifier: Apache-2.0
"""What clients get: a message, or the events that build one up."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
from attrs import define, field

from tramontane.api.results import Choice, Completion, CompletionDelta, Usage
from tramontane.requests import FinishReason

Event = dict[str, Any]
SIGNATURE = "dHJhbW9udGFuZQ=="
"""Thoughts are signed so that clients send them back as they are; this server trusts them unsigned too."""
_TAIL = 512
"""Tokens at the end of an answer in which the stop sequence is looked for."""
_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CANCELED: "end_turn",
    FinishReason.ERROR: "refusal",
}


@define(eq=False, kw_only=True)
class MessageShape:
    """The answer to one request."""

    model: str
    stop_sequences: Sequence[str]
    detokenize: Callable[[Sequence[int]], str]
    id: str = field(factory=lambda: f"msg_{uuid.uuid4().hex}")
    _blocks: int = field(default=0, init=False)
    _open: str | None = field(default=None, init=False)

    def whole(self, done: Completion) -> dict[str, Any]:
        """The answer as one object."""
        reason, sequence = self._ending(done.choices[0])
        return {
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": _content(done.choices[0]), "stop_reason": reason, "stop_sequence": sequence,
            "usage": _usage(done.usage),
        }  # fmt: skip

    def begin(self, prompt_tokens: int) -> Iterator[Event]:
        """The events before the first piece."""
        message: dict[str, Any] = {
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": None, "stop_sequence": None,
            "usage": _usage(Usage(prompt_tokens=prompt_tokens, completion_tokens=0)),
        }  # fmt: skip
        yield {"type": "message_start", "message": message}
        yield {"type": "ping"}

    def feed(self, delta: CompletionDelta) -> Iterator[Event]:
        """The events of a piece."""
        if delta.reasoning:
            yield from self._in("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            yield from self._in("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": delta.text})
        for piece in delta.tool_calls:
            if piece.id is not None:
                yield from self._close()
                block: dict[str, Any] = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
                yield from self._in("tool_use", block)
            if piece.arguments:
                yield self._delta({"type": "input_json_delta", "partial_json": piece.arguments})
        if delta.completion is not None:
            yield from self._end(delta.completion)

    def _end(self, done: Completion) -> Iterator[Event]:
        yield from self._close()
        reason, sequence = self._ending(done.choices[0])
        ending = {"stop_reason": reason, "stop_sequence": sequence}
        yield {"type": "message_delta", "delta": ending, "usage": _usage(done.usage)}
        yield {"type": "message_stop"}

    def _in(self, kind: str, block: dict[str, Any]) -> Iterator[Event]:
        """Events after which a block of that kind is open."""
        if self._open != kind:
            yield from self._close()
            self._open = kind
            yield {"type": "content_block_start", "index": self._blocks, "content_block": block}

    def _close(self) -> Iterator[Event]:
        if self._open is None:
            return
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": SIGNATURE})
        yield {"type": "content_block_stop", "index": self._blocks}
        self._open = None
        self._blocks += 1

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._blocks, "delta": delta}

    def _ending(self, choice: Choice) -> tuple[str, str | None]:
        """Why it ended. A text that a stop sequence ended has none before its end, so the first one found did it."""
        reason = _REASONS[choice.finish_reason]
        if choice.finish_reason is FinishReason.STOP and self.stop_sequences:
            tail = self.detokenize(choice.token_ids[-_TAIL:])
            found = [(tail.find(sequence), sequence) for sequence in self.stop_sequences if sequence in tail]
            if found:
                return "stop_sequence", min(found)[1]
        return reason, None


def _content(choice: Choice) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if choice.reasoning:
        found.append({"type": "thinking", "thinking": choice.reasoning, "signature": SIGNATURE})
    if choice.text:
        found.append({"type": "text", "text": choice.text})
    found += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}
        for call in choice.tool_calls
    ]
    return found


def _input(arguments: str) -> dict[str, Any]:
    """A call's input; what a model wrote that is no object is kept as a text."""
    try:
        found = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"arguments": arguments}


def _usage(used: Usage) -> dict[str, Any]:
    """Anthropic counts what was read from a cache apart."""
    return {
        "input_tokens": used.prompt_tokens - used.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": used.cached_tokens,
        "output_tokens": used.completion_tokens,
    }
