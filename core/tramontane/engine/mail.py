# SPDX-License-Identifier: Apache-2.0
"""Who gets which deltas: one sink per request, until its last choice has ended.

One step's deltas reach each event loop in at most one call, however many requests it serves, and no oftener than
:mod:`tramontane.engine.posts` lets them. A sink that fails loses its request and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from attrs import define, field

from tramontane.engine.posts import Letter, LoopPost
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
    begun: bool = False
    """Whether anything has come for it."""

    def note(self, batch: list[Delta]) -> bool:
        """Look at what comes for it; whether somebody waits for that: for a beginning, or for an end."""
        urgent, self.begun = not self.begun, True
        for delta in batch:
            if delta.finish_reason is not None:
                urgent = True
                self.open.discard(delta.index)
                if delta.output is not None:  # a task has one answer, whatever its number of choices
                    self.open.clear()
        return urgent


@define(eq=False)
class Mailroom:
    """Hands deltas to the sinks of their requests. Any thread may call it; one at a time delivers."""

    lost: Callable[[str], None]
    """Told, in the delivering thread, of a request whose receiver is gone."""
    interval: float = 0.0
    """As of :class:`~tramontane.engine.posts.LoopPost`; sinks without a loop get every step's."""
    _posts: dict[asyncio.AbstractEventLoop, LoopPost] = field(factory=dict, init=False)
    _boxes: dict[str, _Box] = field(factory=dict, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def expect(self, requests: Sequence[EngineRequest], sink: Sink) -> None:
        """From now on the deltas of these requests go to ``sink``.

        Raises:
            RequestError: A request of one's id is being served; none is expected then.
        """
        boxes = {request.id: _Box(sink, set(range(request.sampling.n))) for request in requests}
        with self._lock:
            known = next((one for one in boxes if one in self._boxes), None)
            if known is not None:
                raise RequestError(f"a request with id {known!r} is being served already")
            self._boxes |= boxes

    def forget(self, request_id: str) -> None:
        """Drop what may still come for a request. Unknown ids are no error."""
        with self._lock:
            self._boxes.pop(request_id, None)

    def deliver(self, deltas: list[Delta]) -> None:
        """Hand one step's deltas to their sinks, one call per event loop."""
        batches: dict[str, list[Delta]] = {}
        for delta in deltas:
            batches.setdefault(delta.request_id, []).append(delta)
        loops: dict[asyncio.AbstractEventLoop, list[Letter]] = {}
        for request_id, batch in batches.items():
            box = self._boxes.get(request_id)
            if box is None:
                continue
            urgent = box.note(batch)
            if not box.open:
                self.forget(request_id)
            if box.sink.loop is not None:
                loops.setdefault(box.sink.loop, []).append(Letter(box.sink, batch, urgent))
            else:
                self._put(box.sink, batch)
        for loop, letters in loops.items():
            self._post(loop, letters)

    def end_all(self, reason: FinishReason, error: str | None = None, code: str | None = None) -> None:
        """End every request: nothing more will come."""
        with self._lock:
            left = {request_id: sorted(box.open) for request_id, box in self._boxes.items()}
        self.deliver([
            Delta(request_id=request_id, index=index, finish_reason=reason, error=error, error_code=code)
            for request_id, choices in left.items()
            for index in choices
        ])  # fmt: skip

    def _put(self, sink: Sink, batch: list[Delta]) -> None:
        try:
            sink.put(batch)
        except Exception:
            log.exception("the receiver of request %s failed; the request ends", batch[0].request_id)
            self.lost(batch[0].request_id)

    def _post(self, loop: asyncio.AbstractEventLoop, letters: list[Letter]) -> None:
        try:
            self._post_of(loop).send(letters)
        except RuntimeError:  # the loop is closed, and with it all who listened
            for letter in letters:
                self.lost(letter.deltas[0].request_id)

    def _post_of(self, loop: asyncio.AbstractEventLoop) -> LoopPost:
        with self._lock:
            found = self._posts.get(loop)
            if found is None:
                self._posts = {one: post for one, post in self._posts.items() if not one.is_closed()}
                found = self._posts[loop] = LoopPost(loop, self.interval)
            return found
