# SPDX-License-Identifier: Apache-2.0
"""Puts one request's deltas together: its choices, its log-probabilities, its times. No engine and no thread in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define

from tramontane.api.choice import ChoiceOutput
from tramontane.api.reading import Reading
from tramontane.api.results import Completion, CompletionDelta, Usage
from tramontane.requests import Delta, EngineRequest, FinishReason, TokenLogprobs
from tramontane.tokenizer import Tokenizer


@define(eq=False)
class RequestOutput:
    """The answer to one request while it grows."""

    request: EngineRequest
    prompt: int
    """Position of the prompt in the caller's list."""
    start: float
    """``time.monotonic()`` when the caller asked."""
    choices: Sequence[ChoiceOutput]
    task_output: object | None = None
    """What a task other than ``GENERATE`` answers with."""
    _cached: int = 0
    _first_at: float | None = None
    _first_tokens: int = 0
    _end: float = 0.0
    _prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None

    @classmethod
    def begin(
        cls,
        request: EngineRequest,
        tokenizer: Tokenizer | None,
        *,
        prompt: int,
        start: float,
        reading: Reading | None = None,
    ) -> RequestOutput:
        """An answer of which nothing is known yet; without a tokenizer it will have no text."""
        choices = [ChoiceOutput.begin(request, index, tokenizer, reading) for index in range(request.sampling.n)]
        return cls(request, prompt, start, choices)

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.finish_reason is not None for choice in self.choices)

    def has_ended(self, index: int) -> bool:
        """Whether a choice takes nothing more: the engine may not know yet that a stop string ended it."""
        return self.choices[index].finish_reason is not None

    def feed(self, delta: Delta, at: float) -> list[CompletionDelta]:
        """Take in what a step added to a choice that has not ended; nothing comes where there is nothing to show.

        Args:
            delta: One of this request's.
            at: ``time.monotonic()`` when the engine delivered it.
        """
        choice = self.choices[delta.index]
        self._note(delta, at)
        pieces = choice.push(delta)
        if not (pieces[0].shown or pieces[0].tokens or choice.finish_reason):
            return []
        made, begin = [], 0
        for piece in pieces:
            end, last = begin + piece.tokens, piece is pieces[-1]
            made.append(CompletionDelta(
                prompt=self.prompt,
                index=delta.index,
                text=piece.shown.text,
                reasoning=piece.shown.reasoning,
                tool_calls=piece.shown.calls,
                token_ids=delta.token_ids[begin:end],
                logprobs=delta.logprobs[begin:end],
                finish_reason=choice.finish_reason if last else None,
                completion=self.completion() if last and self.finished else None,
                at=at,
                reasoning_tokens=piece.thought,
                prompt_logprobs=delta.prompt_logprobs if piece is pieces[0] else None,
            ))  # fmt: skip
            begin = end
        return made

    def cancel(self, at: float) -> Iterator[CompletionDelta]:
        """End what has not ended, with reason ``CANCELED``."""
        for choice in (one for one in self.choices if one.finish_reason is None):
            end = Delta(request_id=self.request.id, index=choice.index, finish_reason=FinishReason.CANCELED)
            yield from self.feed(end, at)

    def completion(self) -> Completion:
        """The answer as far as it is known."""
        first_at = self._first_at if self._first_at is not None else max(self._end, self.start)
        return Completion(
            prompt_token_ids=self.request.prompt_token_ids,
            choices=tuple(choice.result() for choice in self.choices),
            usage=Usage.measured(
                prompt=len(self.request.prompt_token_ids),
                completion=sum(len(choice.token_ids) for choice in self.choices),
                first=self._first_tokens,
                cached=self._cached,
                start=self.start,
                first_at=first_at,
                end=max(self._end, first_at),
            ),
            prompt_logprobs=self._prompt_logprobs,
        )

    def _note(self, delta: Delta, at: float) -> None:
        """Keep the facts that concern the request and not the choice."""
        self._end = at
        self._cached = max(self._cached, delta.cached_tokens)
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = delta.prompt_logprobs
        if delta.output is not None:
            self.task_output = delta.output
        if delta.token_ids and self._first_at in (None, at):
            self._first_at = at
            self._first_tokens += len(delta.token_ids)
