# SPDX-License-Identifier: Apache-2.0
"""What clients get: completions and chat completions as objects and as streamed chunks.

Field names and shapes are OpenAI's; figures beyond theirs (time to first token, rates) are in ``usage``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field

from tramontane.api.results import Choice, Completion, CompletionDelta, Usage
from tramontane.requests import FinishReason, TokenLogprobs

Spell = Callable[[int], bytes]
"""A token id -> its bytes."""

_REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.CANCELED: "stop",
            FinishReason.ERROR: "error", FinishReason.TOOL_CALLS: "tool_calls"}  # fmt: skip


def usage(found: Sequence[Usage]) -> dict[str, Any]:
    """Usage over the prompts of one request."""
    prompt, completion = sum(u.prompt_tokens for u in found), sum(u.completion_tokens for u in found)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in found)},
        "ttft_s": min((u.ttft_s for u in found), default=0.0),
        "prompt_tps": sum(u.prompt_tps for u in found),
        "decode_tps": sum(u.decode_tps for u in found),
    }


def finish(reason: FinishReason | None) -> str | None:
    """OpenAI's word for why a sequence ended."""
    return None if reason is None else _REASONS[reason]


@define(kw_only=True)
class ChatShape:
    """Chat completions of one request."""

    model: str
    spell: Spell
    wants_logprobs: bool = False
    id: str = field(factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(factory=lambda: int(time.time()))
    _begun: set[int] = field(factory=set, init=False)

    def whole(self, done: Completion) -> dict[str, Any]:
        """The answer as one object."""
        choices = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": self._logprobs(choice.logprobs),
                "finish_reason": finish(choice.finish_reason),
            }
            for choice in done.choices
        ]
        return self._frame("chat.completion", choices) | {"usage": usage([done.usage])}

    def chunk(self, delta: CompletionDelta) -> dict[str, Any]:
        """A piece of it."""
        content: dict[str, Any] = {"content": delta.text} if delta.text or not delta.finish_reason else {}
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            content = {"role": "assistant", "content": "", **content}
        choice = {
            "index": delta.index, "delta": content, "logprobs": self._logprobs(delta.logprobs or None),
            "finish_reason": finish(delta.finish_reason),
        }  # fmt: skip
        return self._frame("chat.completion.chunk", [choice])

    def last(self, found: Sequence[Usage]) -> dict[str, Any]:
        """The chunk that carries usage alone."""
        return self._frame("chat.completion.chunk", []) | {"usage": usage(found)}

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices,
                "system_fingerprint": "tramontane"}  # fmt: skip

    def _logprobs(self, found: Sequence[TokenLogprobs] | None) -> dict[str, Any] | None:
        if not self.wants_logprobs or found is None:
            return None
        content = [
            self._entry(one.token_id, one.logprob) | {"top_logprobs": [self._entry(*pair) for pair in one.top]}
            for one in found
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        spelled = self.spell(token)
        return {"token": spelled.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(spelled)}


@define(kw_only=True)
class TextShape:
    """Legacy completions of one request: choices of all prompts are numbered through."""

    model: str
    spell: Spell
    n: int
    echoes: Sequence[str] | None = None
    """The prompts' texts, if they are to be repeated."""
    wants_logprobs: bool = False
    id: str = field(factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(factory=lambda: int(time.time()))
    _begun: set[int] = field(factory=set, init=False)

    def whole(self, done: Sequence[Completion]) -> dict[str, Any]:
        """The answer as one object. Of more choices than were asked for (``best_of``) the likeliest are kept."""
        choices = []
        for place, completion in enumerate(done):
            for rank, choice in enumerate(_best(completion.choices, self.n)):
                echo = "" if self.echoes is None else self.echoes[place]
                choices.append({
                    "index": place * self.n + rank,
                    "text": echo + choice.text,
                    "logprobs": self._logprobs(choice.logprobs, completion if self.echoes is not None else None),
                    "finish_reason": finish(choice.finish_reason),
                })  # fmt: skip
        return self._frame(choices) | {"usage": usage([completion.usage for completion in done])}

    def chunk(self, delta: CompletionDelta) -> dict[str, Any]:
        """A piece of it."""
        index = delta.prompt * self.n + delta.index
        text = delta.text
        if index not in self._begun:
            self._begun.add(index)
            text = (self.echoes[delta.prompt] if self.echoes is not None else "") + text
        return self._frame([{
            "index": index, "text": text, "logprobs": self._logprobs(delta.logprobs or None, None),
            "finish_reason": finish(delta.finish_reason),
        }])  # fmt: skip

    def last(self, found: Sequence[Usage]) -> dict[str, Any]:
        """The chunk that carries usage alone."""
        return self._frame([]) | {"usage": usage(found)}

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
                "choices": choices}  # fmt: skip

    def _logprobs(self, found: Sequence[TokenLogprobs] | None, echoed: Completion | None) -> dict[str, Any] | None:
        if not self.wants_logprobs:
            return None
        rows: list[tuple[int, TokenLogprobs | None]] = []
        if echoed is not None and echoed.prompt_logprobs is not None:
            rows += zip(echoed.prompt_token_ids, echoed.prompt_logprobs, strict=True)
        rows += [(one.token_id, one) for one in found or ()]
        texts = [self._text(token) for token, _ in rows]
        offsets = [sum(map(len, texts[:place])) for place in range(len(texts))]
        return {
            "tokens": texts,
            "token_logprobs": [None if one is None else one.logprob for _, one in rows],
            "top_logprobs": [None if one is None else {self._text(t): p for t, p in one.top} for _, one in rows],
            "text_offset": offsets,
        }

    def _text(self, token: int) -> str:
        return self.spell(token).decode("utf-8", "replace")


def _best(choices: Sequence[Choice], count: int) -> Sequence[Choice]:
    """The ``count`` choices with the highest log-probability per token, in order of likelihood."""
    if len(choices) <= count:
        return choices

    def score(choice: Choice) -> float:
        found = choice.logprobs or ()
        return sum(one.logprob for one in found) / max(1, len(found))

    return sorted(choices, key=score, reverse=True)[:count]
