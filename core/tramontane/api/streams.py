# SPDX-License-Identifier: Apache-2.0
"""Streams of deltas: one that a thread iterates over, one for ``async for``. Leaving either ends its requests.

The engine never waits for a reader: it drops what it has into a sink and goes on. What it dropped is turned into text
by the reader's own thread or loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tramontane.api.answers import Answers
from tramontane.api.results import Completion, CompletionDelta
from tramontane.api.thread_sink import ThreadSink
from tramontane.errors import RequestError
from tramontane.requests import Delta

if TYPE_CHECKING:
    from tramontane.api.service import Service

MOST_A_TURN = 16
"""Brief prompts, a tenth of a millisecond each, that an event loop encodes between two looks at its sockets."""


class _LoopSink:
    """Lets the answers take in deltas as they arrive in the event loop."""

    def __init__(self, answers: Answers) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self.answers = answers
        self.changed = asyncio.Event()

    def put(self, deltas: list[Delta]) -> None:
        """Called in the event loop."""
        now = time.monotonic()
        for delta in deltas:
            self.answers.take(delta, now)
        self.changed.set()


class Turns:
    """Preparations in the event loop itself: a few in each of its turns, so that it stays free for other streams; the
    others are made beside it, which takes longer and holds up nobody."""

    _taken = 0

    def take(self) -> bool:
        """Whether one more may be made here and now."""
        if self._taken == 0:
            asyncio.get_running_loop().call_soon(self._next)
        if self._taken == MOST_A_TURN:
            return False
        self._taken += 1
        return True

    def _next(self) -> None:
        self._taken = 0


class CompletionStream:
    """The deltas of one call, for a thread to iterate over. It runs from the moment it is made.

    Leaving it early (``close``, the end of a ``with`` block, or forgetting it) ends its requests.
    """

    def __init__(self, service: Service, answers: Answers) -> None:
        self._service = service
        self._answers = answers
        self._sink = ThreadSink(service.running.stream_interval)
        self._cancelled = False
        service.submit(answers, self._sink)

    def __iter__(self) -> Iterator[CompletionDelta]:
        return self

    def __next__(self) -> CompletionDelta:
        answers = self._answers
        while not answers.pieces:
            if answers.error is not None:
                self._service.forget(answers)
                raise answers.error
            if answers.finished:
                raise StopIteration
            posts = self._sink.wait()
            if self._cancelled:
                self._service.forget(answers)
                answers.cancel(time.monotonic())
            for deltas, at in posts:
                for delta in deltas:
                    answers.take(delta, at)
        return answers.pieces.popleft()

    def cancel(self) -> None:
        """End the requests; the stream ends with deltas whose reason is ``CANCELED``. Any thread or signal handler."""
        self._cancelled = True
        self._sink.wake()

    def completions(self) -> list[Completion]:
        """Read the rest and return the whole answers, in the order of the prompts.

        Raises:
            EngineError: A step failed.
            EngineClosedError: The engine was shut down.
        """
        for _ in self:
            pass
        return self._answers.completions()

    def completion(self) -> Completion:
        """Like :meth:`completions`, for a call with one prompt."""
        return only(self.completions())

    def close(self) -> None:
        """End the requests if they still run; nothing more comes out."""
        self._service.forget(self._answers)
        self._answers.cancel(time.monotonic())
        self._answers.pieces.clear()

    def __enter__(self) -> CompletionStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._service.forget(self._answers)


class AsyncCompletionStream:
    """The deltas of one call, for ``async for``; ``await`` it instead for the whole answer.

    Its requests begin with the first ``await``. Cancelling the task that reads it, ``aclose`` or forgetting it ends
    them.

    Args:
        service: Runs the requests.
        prepare: Makes them.
        single: Whether the call had one prompt, and no list.
        brief: Whether ``prepare`` takes so little time that it need not be done beside the event loop.
    """

    def __init__(self, service: Service, prepare: Callable[[], Answers], single: bool, *, brief: bool = False) -> None:
        self._service = service
        self._prepare = prepare
        self._single = single
        self._brief = brief
        self._sink: _LoopSink | None = None

    def __aiter__(self) -> AsyncIterator[CompletionDelta]:
        return self

    async def __anext__(self) -> CompletionDelta:
        if self._sink is None:
            self._sink = await self._begin()
        answers, changed = self._sink.answers, self._sink.changed
        while not answers.pieces:
            if answers.error is not None:
                self._service.forget(answers)
                raise answers.error
            if answers.finished:
                raise StopAsyncIteration
            changed.clear()
            try:
                await changed.wait()
            except BaseException:
                await self.aclose()
                raise
        return answers.pieces.popleft()

    @property
    def prompt_token_ids(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of each prompt, in the caller's order; empty before the first ``await``."""
        if self._sink is None:
            return ()
        return tuple(output.request.prompt_token_ids for output in self._sink.answers.outputs)

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        """How many tokens each prompt has."""
        return tuple(map(len, self.prompt_token_ids))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._whole().__await__()

    async def aclose(self) -> None:
        """End the requests if they still run; nothing more comes out."""
        if self._sink is not None:
            answers = self._sink.answers
            self._service.forget(answers)
            answers.cancel(time.monotonic())
            answers.pieces.clear()
            self._sink.changed.set()

    async def completions(self) -> list[Completion]:
        """Read the rest and return the whole answers, in the order of the prompts; errors as for ``LLM``."""
        async for _ in self:
            pass
        return self._sink.answers.completions() if self._sink is not None else []

    async def task_outputs(self) -> list[object]:
        """Wait for what a task other than generating answers with, in the order of the prompts."""
        async for _ in self:
            pass
        return self._sink.answers.task_outputs() if self._sink is not None else []

    async def _whole(self) -> Completion | list[Completion]:
        completions = await self.completions()
        return only(completions) if self._single else completions

    async def _begin(self) -> _LoopSink:
        """Encode the prompts and submit them."""
        turns = self._service.turns
        here = self._brief and turns is not None and turns.take()
        sink = _LoopSink(self._prepare() if here else await asyncio.to_thread(self._prepare))
        self._service.submit(sink.answers, sink)
        return sink

    async def __aenter__(self) -> AsyncCompletionStream:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._sink is not None:
            self._service.forget(self._sink.answers)


def only(completions: Sequence[Completion]) -> Completion:
    """The one answer of a call with one prompt.

    Raises:
        RequestError: The call had several prompts.
    """
    if len(completions) != 1:
        raise RequestError(f"the call had {len(completions)} prompts", hint="use completions()")
    return completions[0]
