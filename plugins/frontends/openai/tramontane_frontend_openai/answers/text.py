# SPDX-License-Identifier: Apache-2.0
"""Legacy completions: one object, or chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from attrs import define, evolve, field

from tramontane.api.results import Choice, Completion, CompletionDelta, Usage
from tramontane.requests import TokenLogprobs
from tramontane_frontend_openai.answers.common import Spell, finish, usage


@define(kw_only=True)
class TextShape:
    """Legacy completions of one request: choices of all prompts are numbered through."""

    model: str
    spell: Spell
    n: int
    echoes: Sequence[str] | None = None
    """The prompts' texts, if they are to be repeated."""
    wants_logprobs: bool = False
    scores_only: bool = False
    """Leave out what was sampled: only the prompt was asked about."""
    id: str = field(factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(factory=lambda: int(time.time()))
    _begun: set[int] = field(factory=set, init=False)

    def whole(self, done: Sequence[Completion]) -> dict[str, Any]:
        """The answer as one object. Of more choices than were asked for (``best_of``) the likeliest are kept."""
        choices = []
        for place, completion in enumerate(done):
            for rank, choice in enumerate(_best(completion.choices, self.n)):
                echo = "" if self.echoes is None else self.echoes[place]
                logprobs = None if self.scores_only else choice.logprobs
                choices.append({
                    "index": place * self.n + rank,
                    "text": echo if self.scores_only else echo + choice.text,
                    "logprobs": self._logprobs(logprobs, completion if self.echoes is not None else None),
                    "finish_reason": "length" if self.scores_only else finish(choice.finish_reason),
                })  # fmt: skip
        found = [completion.usage for completion in done]
        if self.scores_only:
            found = [evolve(one, completion_tokens=0) for one in found]
        return self._frame(choices) | {"usage": usage(found)}

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
        offsets = [0, *accumulate(map(len, texts))][:-1]
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
