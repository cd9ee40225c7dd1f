# SPDX-License-Identifier: Apache-2.0
"""Deltas on their way into one event loop: what is urgent goes at once, the rest together, so often and no oftener.

A reader sees no difference between words that come every 3 ms and every 16; the loop that writes them to a hundred
sockets does: what a token costs it is mostly the waking and the write.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence

from attrs import define, field

from tramontane.engine.sinks import Sink, merge
from tramontane.requests import Delta

log = logging.getLogger(__name__)

STREAM_S = 0.002
"""Seconds of waiting for each stream that is told: an event costs a server about 0.14 ms of its processor."""
MOST_S = 0.05
"""Longest waiting by the number of streams: people see no difference yet."""


def pause(interval: float, streams: int) -> float:
    """Seconds until what is not urgent is told again, after so many streams were told: with many of them at a time
    telling would otherwise take a core, and on few cores what it takes the engine loses.

    Args:
        interval: As it is configured; 0 does not wait, whatever the number of streams.
        streams: How many were told.
    """
    return max(interval, min(STREAM_S * streams, MOST_S)) if interval else 0.0


@define
class Letter:
    """What one step brought for one request."""

    sink: Sink
    deltas: list[Delta]
    urgent: bool
    """Whether somebody waits for it: a first token, an end."""


@define(eq=False)
class LoopPost:
    """Brings letters into an event loop. Any thread may call :meth:`send`."""

    loop: asyncio.AbstractEventLoop
    interval: float
    """Least seconds between two deliveries of what is not urgent, see :func:`pause`; 0 delivers every step."""
    _urgent: list[tuple[Sink, list[Delta]]] = field(factory=list, init=False)
    _held: dict[int, tuple[Sink, list[Delta]]] = field(factory=dict, init=False)
    """By the identity of the sink."""
    _called: bool = field(default=False, init=False)
    """Whether the loop was asked to look, and has not yet."""
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    """Runs until the next delivery is due; set and looked at by the loop, and read by who sends."""
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def send(self, letters: Sequence[Letter]) -> None:
        """Take letters; they reach their sinks in the loop's thread, in order.

        Raises:
            RuntimeError: The loop is closed: nobody is there.
        """
        if self.loop.is_closed():
            raise RuntimeError("the event loop is closed")
        with self._lock:
            for letter in letters:
                self._sort(letter)
            if self._called or not (self._urgent or (self._held and self._timer is None)):
                return
            self._called = True
        self.loop.call_soon_threadsafe(self._look)

    def _sort(self, letter: Letter) -> None:
        sink, deltas = letter.sink, letter.deltas
        before = self._held.get(id(sink))
        if letter.urgent:
            if before is not None:
                del self._held[id(sink)]
                deltas = [*before[1], *deltas]
            self._urgent.append((sink, deltas))
        elif before is not None:
            before[1].extend(deltas)
        else:
            self._held[id(sink)] = (sink, deltas)

    # --- in the event loop --------------------------------------------------------------------------------------------

    def _look(self) -> None:
        with self._lock:
            self._called = False
            urgent, self._urgent = self._urgent, []
            due = self._take_due()
        _put_all(urgent)
        _put_all(due)

    def _ring(self) -> None:
        self._timer = None
        self._look()

    def _take_due(self) -> Iterable[tuple[Sink, list[Delta]]]:
        """What is held, unless its time has not come; then time begins to run again."""
        if self._timer is not None or not self._held:
            return ()
        due, self._held = self._held, {}
        if self.interval > 0:
            self._timer = self.loop.call_later(pause(self.interval, len(due)), self._ring)
        return due.values()


def _put_all(mail: Iterable[tuple[Sink, list[Delta]]]) -> None:
    for sink, deltas in mail:
        try:
            sink.put(merge(deltas) if len(deltas) > 1 else deltas)
        except Exception:
            log.exception("the receiver of request %s failed", deltas[0].request_id)
