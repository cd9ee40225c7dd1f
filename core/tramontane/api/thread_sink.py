# SPDX-License-Identifier: Apache-2.0
"""Deltas on their way to a thread that waits for them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from tramontane.requests import Delta

_POLL_S = 0.2 if sys.platform == "win32" else None
"""On Windows a waiting main thread sees Ctrl-C only between waits."""


class ThreadSink:
    """Holds deltas until the thread that owns the stream asks for them.

    With a small model a step takes a fraction of a millisecond, and a reader that was woken for each would hold the
    interpreter just when the engine needs it again. So words that come faster go together, as in an event loop
    (:mod:`tramontane.engine.posts`), and it is the reader who keeps the time: the engine looks at no clock for it.

    Args:
        interval: Most seconds that deltas wait; the first ones and ends do not. 0 wakes the reader for each.
    """

    loop = None

    def __init__(self, interval: float = 0.0) -> None:
        self._interval = interval if _POLL_S is None else min(interval, _POLL_S)
        self._posts: list[tuple[Sequence[Delta], float]] = []
        self._begun = False
        self._woken = False
        self._wanted = True
        """Whether the next deltas are to wake the reader, whatever they are."""
        self._changed = threading.Condition()

    def put(self, deltas: list[Delta]) -> None:
        """Called by the engine thread."""
        with self._changed:
            self._posts.append((deltas, time.monotonic()))
            if any(delta.finish_reason is not None for delta in deltas):
                self._woken = True
            if self._wanted or self._woken:
                self._changed.notify()

    def wake(self) -> None:
        """Let :meth:`wait` return. The condition's lock is reentrant, so a signal handler may call this."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def wait(self) -> list[tuple[Sequence[Delta], float]]:
        """Wait for deltas or for :meth:`wake`; all there are, with the times of their delivery."""
        with self._changed:
            if self._begun and self._interval and not self._woken:
                self._wanted = False
                self._changed.wait(self._interval)
                self._wanted = True
            while not self._posts and not self._woken:
                self._changed.wait(_POLL_S)
            posts, self._posts = self._posts, []
            self._begun, self._woken = self._begun or bool(posts), False
            return posts
