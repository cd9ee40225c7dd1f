# SPDX-License-Identifier: Apache-2.0
"""Where deltas go: one sink per request, for a waiting thread or for an event loop.

A sink never blocks the engine and never loses a token. A client that reads slowly finds its deltas merged into fewer,
longer ones: what a sink holds is bounded by the request's own tokens and ``MOST_DELTAS`` records (or two per choice).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol

from attrs import evolve

from tramontane.requests import Delta

#: Unread deltas of one sink before they are merged.
MOST_DELTAS = 64


class Sink(Protocol):
    """Takes the deltas of one request."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop in whose thread :meth:`put` must be called; ``None``: any thread."""
        ...

    def put(self, deltas: list[Delta]) -> None:
        """Take one step's deltas; must not block."""
        ...


def merge(deltas: Iterable[Delta]) -> list[Delta]:
    """Join the deltas of each choice into one, in the order in which choices first appear."""
    joined: dict[tuple[str, int], list[Delta]] = {}
    for delta in deltas:
        joined.setdefault((delta.request_id, delta.index), []).append(delta)
    return [_join(parts) for parts in joined.values()]


def _join(parts: list[Delta]) -> Delta:
    if len(parts) == 1:
        return parts[0]
    last = parts[-1]
    return evolve(
        last,
        token_ids=tuple(token for part in parts for token in part.token_ids),
        logprobs=tuple(one for part in parts for one in part.logprobs),
        cached_tokens=sum(part.cached_tokens for part in parts),
        prompt_logprobs=next((part.prompt_logprobs for part in parts if part.prompt_logprobs is not None), None),
    )


class _Buffer:
    """Unread deltas of one request, and how many of its choices still run."""

    def __init__(self, choices: int) -> None:
        self.open = choices
        self._most = max(MOST_DELTAS, 2 * choices)
        self._deltas: list[Delta] = []

    def put(self, deltas: list[Delta]) -> None:
        self._deltas += deltas
        self.open -= sum(delta.finish_reason is not None for delta in deltas)
        if len(self._deltas) > self._most:
            self._deltas = merge(self._deltas)

    def take(self) -> list[Delta]:
        taken, self._deltas = self._deltas, []
        return taken

    def __len__(self) -> int:
        return len(self._deltas)


class QueueSink:
    """A sink for a thread that waits. Iterating ends when all choices have ended.

    Args:
        choices: The request's ``n``.
    """

    loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, choices: int = 1) -> None:
        self._buffer = _Buffer(choices)
        self._changed = threading.Condition()

    def put(self, deltas: list[Delta]) -> None:
        """Called by the engine."""
        with self._changed:
            self._buffer.put(deltas)
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> list[Delta]:
        """All unread deltas; waits for the first. Empty once all choices have ended and everything was read.

        Args:
            timeout: Most seconds to wait.

        Raises:
            TimeoutError: Nothing came in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._buffer and self._buffer.open > 0:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no token within {timeout} s")
                self._changed.wait(left)
            return self._buffer.take()

    def __iter__(self) -> Iterator[Delta]:
        while deltas := self.get():
            yield from deltas


class AsyncSink:
    """A sink for a coroutine. Must be made in a running event loop; iterating ends when all choices have ended.

    Args:
        choices: The request's ``n``.
    """

    def __init__(self, choices: int = 1) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._buffer = _Buffer(choices)
        self._changed = asyncio.Event()

    def put(self, deltas: list[Delta]) -> None:
        """Called in the event loop's thread."""
        self._buffer.put(deltas)
        self._changed.set()

    async def get(self) -> list[Delta]:
        """All unread deltas; waits for the first. Empty once all choices have ended and everything was read."""
        while not self._buffer and self._buffer.open > 0:
            self._changed.clear()
            await self._changed.wait()
        return self._buffer.take()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while deltas := await self.get():
            for delta in deltas:
                yield delta
