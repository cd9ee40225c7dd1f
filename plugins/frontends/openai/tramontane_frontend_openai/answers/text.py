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
from tramontane_frontend_openai.answers.common import Spell, UsageMeanwhile, finish, usage

PromptLogprobs = Sequence[TokenLogprobs | None]
Row = tuple[int, TokenLogprobs | None]
"""A token, and what is known of it: nothing of a prompt's first."""


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
    meanwhile: UsageMeanwhile | None = None
    """Told with every chunk."""
    prompts: Sequence[Sequence[int]] = ()
    """The prompts' tokens, for a stream that repeats them."""
    id: str = field(factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(factory=lambda: int(time.time()))
    _begun: set[int] = field(factory=set, init=False)
    _spelled: dict[int, int] = field(factory=dict, init=False)
    """Characters of the tokens that were told of each choice, so far."""
    _asked: dict[int, PromptLogprobs] = field(factory=dict, init=False)
    """The log-probabilities of the prompts."""

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
                    "logprobs": self._logprobs([*self._echoed(completion), *_rows(logprobs or ())]),
                    "finish_reason": "length" if self.scores_only else finish(choice.finish_reason),
                })  # fmt: skip
        found = [completion.usage for completion in done]
        if self.scores_only:
            found = [evolve(one, completion_tokens=0) for one in found]
        return self._frame(choices) | {"usage": usage(found)}

    def chunk(self, delta: CompletionDelta) -> dict[str, Any]:
        """A piece of it. Offsets of tokens go on from the piece before."""
        index, text, rows = delta.prompt * self.n + delta.index, delta.text, _rows(delta.logprobs)
        if delta.prompt_logprobs is not None:
            self._asked[delta.prompt] = delta.prompt_logprobs
        if index not in self._begun and self.echoes is not None:
            text = self.echoes[delta.prompt] + text
            if delta.prompt in self._asked:
                rows = [*zip(self.prompts[delta.prompt], self._asked[delta.prompt], strict=True), *rows]
        self._begun.add(index)
        used = {} if self.meanwhile is None else {"usage": self.meanwhile.after(delta)}
        begins = self._spelled.get(index, 0)
        logprobs = self._logprobs(rows, begins) if rows else None
        self._spelled[index] = begins + sum(len(self._text(token)) for token, _ in rows)
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish(delta.finish_reason)}
        return self._frame([choice]) | used

    def last(self, found: Sequence[Usage]) -> dict[str, Any]:
        """The chunk that carries usage alone."""
        return self._frame([]) | {"usage": usage(found)}

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
                "choices": choices}  # fmt: skip

    def _echoed(self, done: Completion) -> Sequence[Row]:
        """The prompt's tokens, where it is repeated."""
        if self.echoes is None or done.prompt_logprobs is None:
            return ()
        return list(zip(done.prompt_token_ids, done.prompt_logprobs, strict=True))

    def _logprobs(self, rows: Sequence[Row], begins: int = 0) -> dict[str, Any] | None:
        if not self.wants_logprobs:
            return None
        texts = [self._text(token) for token, _ in rows]
        return {
            "tokens": texts,
            "token_logprobs": [None if one is None else one.logprob for _, one in rows],
            "top_logprobs": [None if one is None else {self._text(t): p for t, p in one.top} for _, one in rows],
            "text_offset": [*accumulate(map(len, texts), initial=begins)][:-1],
        }

    def _text(self, token: int) -> str:
        return self.spell(token).decode("utf-8", "replace")


def _rows(found: Sequence[TokenLogprobs]) -> list[Row]:
    return [(one.token_id, one) for one in found]


def _best(choices: Sequence[Choice], count: int) -> Sequence[Choice]:
    """The ``count`` choices with the highest log-probability per token, in order of likelihood."""
    if len(choices) <= count:
        return choices

    def score(choice: Choice) -> float:
        found = choice.logprobs or ()
        return sum(one.logprob for one in found) / max(1, len(found))

    return sorted(choices, key=score, reverse=True)[:count]
