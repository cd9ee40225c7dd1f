# SPDX-License-Identifier: Apache-2.0
"""From a model's deltas to items and events. No engine, no store and no clock in it.

At most one item is open at a time. Its events open it, carry its pieces and close it, each with a number of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from tramontane.api.results import CompletionDelta, ToolCallDelta
from tramontane.requests import TokenLogprobs
from tramontane_frontend_openai.answers.common import Spell, token_entries
from tramontane_frontend_openai.responses.items import new_id

Event = dict[str, Any]


@define(eq=False)
class Composer:
    """Builds the output of one response."""

    resource: dict[str, Any]
    """The response; its ``output`` grows."""
    spell: Spell
    wants_logprobs: bool = False
    reasoning_tokens: int = 0
    _number: int = field(default=0, init=False)
    _open: dict[str, Any] | None = field(default=None, init=False)

    def event(self, kind: str, **content: Any) -> Event:
        """An event with the next number."""
        made = {"type": kind, "sequence_number": self._number, **content}
        self._number += 1
        return made

    def state(self, kind: str) -> Event:
        """An event that carries the whole response as it is now."""
        return self.event(kind, response=copy.deepcopy(self.resource))

    def feed(self, delta: CompletionDelta) -> Iterator[Event]:
        """The events of a delta."""
        self.reasoning_tokens += delta.reasoning_tokens
        if delta.reasoning:
            yield from self._reason(delta.reasoning)
        if delta.text:
            yield from self._say(delta.text, delta.logprobs)
        for piece in delta.tool_calls:
            yield from self._call(piece)

    def close(self, status: str = "completed") -> Iterator[Event]:
        """Close the open item."""
        item, self._open = self._open, None
        if item is None:
            return
        if item["type"] == "function_call":
            yield self._of(item, "response.function_call_arguments.done", arguments=item["arguments"])
        else:
            part = item["content"][0]
            place: dict[str, Any] = {"content_index": 0, "text": part["text"]}
            if item["type"] == "message":
                yield self._of(item, "response.output_text.done", **place, logprobs=part["logprobs"])
            else:
                yield self._of(item, "response.reasoning.done", **place)
            yield self._of(item, "response.content_part.done", content_index=0, part=copy.deepcopy(part))
        if "status" in item:
            item["status"] = status
        yield self.event("response.output_item.done", output_index=self._index(item), item=copy.deepcopy(item))

    def _reason(self, text: str) -> Iterator[Event]:
        item = self._open
        if item is None or item["type"] != "reasoning":
            part = {"type": "reasoning_text", "text": ""}
            item = {"type": "reasoning", "summary": [], "content": [part], "encrypted_content": None}
            yield from self._begin(item)
        item["content"][0]["text"] += text
        yield self._of(item, "response.reasoning.delta", content_index=0, delta=text)

    def _say(self, text: str, logprobs: tuple[TokenLogprobs, ...]) -> Iterator[Event]:
        item = self._open
        if item is None or item["type"] != "message":
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {"type": "message", "role": "assistant", "status": "in_progress", "content": [part]}
            yield from self._begin(item)
        entries = token_entries(logprobs, self.spell) if self.wants_logprobs else []
        part = item["content"][0]
        part["text"] += text
        part["logprobs"] += entries
        yield self._of(item, "response.output_text.delta", content_index=0, delta=text, logprobs=entries)

    def _call(self, piece: ToolCallDelta) -> Iterator[Event]:
        item = self._open
        if piece.id is not None or item is None or item["type"] != "function_call":
            item = {
                "type": "function_call", "status": "in_progress", "call_id": piece.id or "", "name": piece.name or "",
                "arguments": "",
            }  # fmt: skip
            yield from self._begin(item)
        if piece.arguments:
            item["arguments"] += piece.arguments
            yield self._of(item, "response.function_call_arguments.delta", delta=piece.arguments)

    def _begin(self, item: dict[str, Any]) -> Iterator[Event]:
        yield from self.close()
        item["id"] = new_id(item["type"])
        self._open = item
        self.resource["output"].append(item)
        shown = copy.deepcopy(item)
        if item["type"] != "function_call":
            shown["content"] = []
        yield self.event("response.output_item.added", output_index=self._index(item), item=shown)
        if item["type"] != "function_call":
            part = copy.deepcopy(item["content"][0])
            yield self._of(item, "response.content_part.added", content_index=0, part=part)

    def _of(self, item: dict[str, Any], kind: str, **content: Any) -> Event:
        return self.event(kind, item_id=item["id"], output_index=self._index(item), **content)

    def _index(self, item: dict[str, Any]) -> int:
        return next(place for place, one in enumerate(self.resource["output"]) if one is item)
