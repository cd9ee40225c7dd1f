# SPDX-License-Identifier: Apache-2.0
"""What an engine's process tells of its steps: what is urgent at once, the rest together, so often and no oftener.

A thread of its own writes, so that a step waits neither for the pipe nor for JSON; the other side wakes as rarely.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from attrs import define, field

from tramontane.engine.posts import pause
from tramontane.engine.sinks import merge
from tramontane.requests import Delta

log = logging.getLogger(__name__)


@define(eq=False)
class Outbox:
    """Holds deltas until they go out."""

    send: Callable[[list[Delta]], None]
    """Called in the writing thread, with one delta per choice. If it fails, the process ends: who waits for a delta
    that cannot be told would wait for ever, but is told of a death."""
    interval: float = 0.0
    """Least seconds between two messages of what is not urgent, see :func:`pause`; 0 tells every step."""
    _begun: set[str] = field(factory=set, init=False)
    """Requests of which something was told and more will come."""
    _urgent: list[Delta] = field(factory=list, init=False)
    _held: dict[str, list[Delta]] = field(factory=dict, init=False)
    _due: float = field(default=0.0, init=False)
    """``time.monotonic()`` from which on what is held may go out."""
    _changed: threading.Condition = field(factory=threading.Condition, init=False)

    def start(self) -> None:
        """Begin to write."""
        threading.Thread(target=self._run, name="tramontane-pipe-write", daemon=True).start()

    def put(self, deltas: list[Delta]) -> None:
        """Take what a step brought, or what a request is refused with."""
        with self._changed:
            idle = not (self._urgent or self._held)
            for delta in deltas:
                self._sort(delta)
            if self._urgent or (idle and self._held):
                self._changed.notify()

    def _sort(self, delta: Delta) -> None:
        request_id = delta.request_id
        if delta.finish_reason is not None:
            self._begun.discard(request_id)  # with more choices the next of them counts as a beginning again
        elif request_id in self._begun:
            self._held.setdefault(request_id, []).append(delta)
            return
        else:
            self._begun.add(request_id)
        self._urgent += [*self._held.pop(request_id, ()), delta]

    def _run(self) -> None:
        try:
            while True:
                self.send(merge(self._next()))
        except Exception:
            log.exception("what a step brought cannot be told")
            os._exit(1)

    def _next(self) -> list[Delta]:
        """Wait for something that may go out."""
        with self._changed:
            while not self._urgent:
                left = self._due - time.monotonic()
                if self._held and left <= 0:
                    break
                self._changed.wait(left if self._held else None)
            found, self._urgent = self._urgent, []
            now = time.monotonic()
            if self._held and now >= self._due:
                found += [delta for deltas in self._held.values() for delta in deltas]
                self._due = now + pause(self.interval, len(self._held))
                self._held = {}
            return found
