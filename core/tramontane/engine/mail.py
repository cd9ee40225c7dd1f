# SPDX-License-Identifier: Apache-2.0
"""Who gets which deltas: one sink per request, until its last choice has ended.

One step's deltas reach each event loop in one call, however many requests it serves. A sink that fails loses its
request and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from attrs import define, field

from tramontane.engine.sinks import Sink
from tramontane.errors import RequestError
from tramontane.requests import Delta, EngineRequest, FinishReason

log = logging.getLogger(__name__)


@define(eq=False)
class _Box:
    """Where one request's deltas go."""

    sink: Sink
    open: set[int]
    """The choices that have not ended."""


@define(eq=False)
class Mailroom:
    """Hands deltas to the sinks of their requests. Any thread may call it; one at a time delivers."""

    lost: Callable[[str], None]
    """Told, in the delivering thread, of a request whose receiver is gone."""
    _boxes: dict[str, _Box] = field(factory=dict, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def expect(self, request: EngineRequest, sink: Sink) -> None:
        """From now on the deltas of this request go to ``sink``.

        Raises:
            RequestError: A request of that id is being served.
        """
        with self._lock:
            if request.id in self._boxes:
                raise RequestError(f"a request with id {request.id!r} is being served already")
            self._boxes[request.id] = _Box(sink, set(range(request.sampling.n)))

    def forget(self, request_id: str) -> None:
        """Drop what may still come for a request. Unknown ids are no error."""
        with self._lock:
            self._boxes.pop(request_id, None)

    def deliver(self, deltas: list[Delta]) -> None:
        """Hand one step's deltas to their sinks, one call per event loop."""
        batches: dict[str, list[Delta]] = {}
        for delta in deltas:
            batches.setdefault(delta.request_id, []).append(delta)
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Sink, list[Delta]]]] = {}
        for request_id, batch in batches.items():
            box = self._boxes.get(request_id)
            if box is None:
                continue
            self._note_ends(box, batch)
            if box.sink.loop is not None:
                loops.setdefault(box.sink.loop, []).append((box.sink, batch))
            else:
                self._put(box.sink, batch)
        for loop, mail in loops.items():
            self._post(loop, mail)

    def end_all(self, reason: FinishReason, error: str | None = None, code: str | None = None) -> None:
        """End every request: nothing more will come."""
        with self._lock:
            left = {request_id: sorted(box.open) for request_id, box in self._boxes.items()}
        self.deliver([
            Delta(request_id=request_id, index=index, finish_reason=reason, error=error, error_code=code)
            for request_id, choices in left.items()
            for index in choices
        ])  # fmt: skip

    def _note_ends(self, box: _Box, batch: list[Delta]) -> None:
        for delta in batch:
            if delta.finish_reason is not None:
                box.open.discard(delta.index)
                if delta.output is not None:  # a task has one answer, whatever its number of choices
                    box.open.clear()
        if not box.open:
            self.forget(batch[0].request_id)

    def _put(self, sink: Sink, batch: list[Delta]) -> None:
        try:
            sink.put(batch)
        except Exception:
            log.exception("the receiver of request %s failed; the request ends", batch[0].request_id)
            self.lost(batch[0].request_id)

    def _post(self, loop: asyncio.AbstractEventLoop, mail: list[tuple[Sink, list[Delta]]]) -> None:
        try:
            loop.call_soon_threadsafe(_put_all, mail)
        except RuntimeError:  # the loop is closed, and with it all who listened
            for _, batch in mail:
                self.lost(batch[0].request_id)


def _put_all(mail: list[tuple[Sink, list[Delta]]]) -> None:
    """Runs in the event loop."""
    for sink, batch in mail:
        try:
            sink.put(batch)
        except Exception:
            log.exception("the receiver of request %s failed", batch[0].request_id)
