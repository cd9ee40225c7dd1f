# SPDX-License-Identifier: Apache-2.0
"""Puts one request's deltas together: its choices, its log-probabilities, its times. No engine and no thread in it."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define

from tramontane.api.results import Choice, Completion, CompletionDelta, Usage
from tramontane.requests import Delta, EngineRequest, FinishReason, TokenLogprobs
from tramontane.text import OutputText
from tramontane.tokenizer import Tokenizer


@define(eq=False)
class RequestOutput:
    """The answer to one request while it grows."""

    request: EngineRequest
    prompt: int
    """Position of the prompt in the caller's list."""
    start: float
    """``time.monotonic()`` when the caller asked."""
    _choices: list[OutputText]
    task_output: object | None = None
    """What a task other than ``GENERATE`` answers with."""
    _cached: int = 0
    _first_at: float | None = None
    _first_tokens: int = 0
    _end: float = 0.0
    _prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None

    @classmethod
    def begin(cls, request: EngineRequest, tokenizer: Tokenizer, *, prompt: int, start: float) -> RequestOutput:
        """An answer of which nothing is known yet."""
        params = request.sampling
        choices = [OutputText(tokenizer, request.prompt_token_ids, params) for _ in range(params.n)]
        return cls(request, prompt, start, choices)

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.finish_reason is not None for choice in self._choices)

    def feed(self, delta: Delta, at: float) -> tuple[CompletionDelta | None, bool]:
        """Take in what a step added.

        Args:
            delta: One of this request's.
            at: ``time.monotonic()`` when the engine delivered it.

        Returns:
            What to show (``None``: nothing yet), and whether a stop string ended the choice, so that the engine must be
            told. Such a choice takes nothing more, whatever the engine still sends.
        """
        choice = self._choices[delta.index]
        if choice.finish_reason is not None:
            return None, False
        self._note(delta, at)
        added = choice.push(delta)
        if not (added.text or added.token_ids or added.finish_reason):
            return None, added.abort
        piece = CompletionDelta(
            prompt=self.prompt,
            index=delta.index,
            text=added.text,
            token_ids=tuple(added.token_ids),
            logprobs=tuple(added.logprobs),
            finish_reason=added.finish_reason,
            completion=self.completion() if self.finished else None,
            at=at,
        )
        return piece, added.abort

    def cancel(self, at: float) -> Iterator[CompletionDelta]:
        """End what has not ended, with reason ``CANCELED``."""
        for index, choice in enumerate(self._choices):
            if choice.finish_reason is None:
                end = Delta(request_id=self.request.id, index=index, finish_reason=FinishReason.CANCELED)
                piece, _ = self.feed(end, at)
                if piece is not None:
                    yield piece

    def completion(self) -> Completion:
        """The answer as far as it is known; a choice that goes on counts as cancelled."""
        first_at = self._first_at if self._first_at is not None else max(self._end, self.start)
        return Completion(
            prompt_token_ids=self.request.prompt_token_ids,
            choices=tuple(self._choice(index) for index in range(len(self._choices))),
            usage=Usage.measured(
                prompt=len(self.request.prompt_token_ids),
                completion=sum(len(choice.token_ids) for choice in self._choices),
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

    def _choice(self, index: int) -> Choice:
        choice = self._choices[index]
        return Choice(
            index=index,
            text=choice.text,
            token_ids=tuple(choice.token_ids),
            finish_reason=choice.finish_reason or FinishReason.CANCELED,
            logprobs=tuple(choice.logprobs) if self.request.sampling.logprobs is not None else None,
        )
