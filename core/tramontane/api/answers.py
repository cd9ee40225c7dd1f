# SPDX-License-Identifier: Apache-2.0
"""The answers to one call: its requests' outputs, and the pieces of them that the caller has not taken yet.

One thread (or event loop) owns an ``Answers`` and alone calls it; :mod:`tramontane.api.streams` sees to that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, evolve, field

from tramontane.api.collect import RequestOutput
from tramontane.api.results import Completion, CompletionDelta
from tramontane.chat.parsing import Parsed
from tramontane.errors import (
    EngineClosedError,
    EngineDiedError,
    EngineError,
    GrammarError,
    PromptTooLongError,
    RequestError,
    TramontaneError,
)
from tramontane.requests import Delta, FinishReason

MOST_PIECES = 64
"""Pieces that wait for a slow reader before they are joined; what waits is bounded by the answers themselves."""


_BY_CODE = {kind.code: kind for kind in (RequestError, PromptTooLongError, GrammarError, EngineDiedError)}
"""What an engine can say of a request that it does not serve; everything else is a failed step."""


@define(eq=False)
class Answers:
    """Collects the outputs of the requests of one call."""

    outputs: Sequence[RequestOutput]
    """In the order of the caller's prompts."""
    abort: Callable[[str, int], None]
    """Tells the engine that a choice (request id, index) has ended: it cannot know of stop strings."""
    ended: Callable[[RequestOutput], None]
    """Told of each output that has ended."""
    pieces: deque[CompletionDelta] = field(factory=deque)
    error: TramontaneError | None = None
    """Why the call failed; nothing is collected from then on."""
    _open: dict[str, RequestOutput] = field(init=False)
    _most: int = field(default=MOST_PIECES, init=False)

    def __attrs_post_init__(self) -> None:
        self._open = {output.request.id: output for output in self.outputs}

    @property
    def open_ids(self) -> tuple[str, ...]:
        """The requests that have not ended."""
        return tuple(self._open)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be collected."""
        return self.error is not None or not self._open

    def take(self, delta: Delta, at: float) -> None:
        """Take in a delta that was delivered at ``time.monotonic()`` = ``at``."""
        output = self._open.get(delta.request_id)
        if self.error is not None or output is None or output.has_ended(delta.index):
            return
        self.error = _failure(delta)
        if self.error is not None:
            return
        self._add(output.feed(delta, at))
        if output.has_ended(delta.index) and delta.finish_reason is None:
            self.abort(delta.request_id, delta.index)
        if output.finished:
            del self._open[delta.request_id]
            self.ended(output)

    def cancel(self, at: float) -> None:
        """End what has not ended."""
        for output in self._open.values():
            self.pieces.extend(output.cancel(at))
            self.ended(output)
        self._open.clear()

    def completions(self) -> list[Completion]:
        """The whole answers, in the order of the prompts."""
        return [output.completion() for output in self.outputs]

    def task_outputs(self) -> list[object]:
        """What a task other than generating answered with, in the order of the prompts."""
        return [output.task_output for output in self.outputs]

    def _add(self, pieces: list[CompletionDelta]) -> None:
        self.pieces.extend(pieces)
        if len(self.pieces) > self._most:
            self.pieces = _joined(self.pieces)
            self._most = max(MOST_PIECES, 2 * len(self.pieces))  # some cannot be joined


def _failure(delta: Delta) -> TramontaneError | None:
    """Why a delta ends the whole call. A choice that has not ended here is cancelled by a closing engine alone."""
    if delta.error is not None:
        return _BY_CODE.get(delta.error_code or "", EngineError)(delta.error)
    if delta.finish_reason is FinishReason.CANCELED:
        return EngineClosedError("the engine was closed while this request ran")
    return None


def _joined(pieces: Sequence[CompletionDelta]) -> deque[CompletionDelta]:
    """As few pieces as tell the same: one per choice, in the order in which the choices last appeared, unless its
    text, reasoning and calls alternate."""
    latest: dict[tuple[int, int], list[CompletionDelta]] = {}
    for piece in pieces:
        key = (piece.prompt, piece.index)
        before = latest.pop(key, [])
        if before and _shown(before[-1]).goes_with(_shown(piece)):
            piece = _two_as_one(before.pop(), piece)
        latest[key] = [*before, piece]
    return deque(piece for found in latest.values() for piece in found)


def _two_as_one(before: CompletionDelta, after: CompletionDelta) -> CompletionDelta:
    shown = _shown(before) + _shown(after)
    return evolve(
        after,
        text=shown.text,
        reasoning=shown.reasoning,
        tool_calls=shown.calls,
        token_ids=before.token_ids + after.token_ids,
        logprobs=before.logprobs + after.logprobs,
        reasoning_tokens=before.reasoning_tokens + after.reasoning_tokens,
        prompt_logprobs=before.prompt_logprobs,  # none but a first piece has them
    )


def _shown(piece: CompletionDelta) -> Parsed:
    return Parsed(piece.text, piece.reasoning, piece.tool_calls)
