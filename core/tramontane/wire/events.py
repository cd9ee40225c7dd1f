# SPDX-License-Identifier: Apache-2.0
"""Server-sent events: framing, the first delta of a stream, and an ASGI answer with a pulse while nothing happens.

Framing: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar

from attrs import define, field

from tramontane.api.results import CompletionDelta
from tramontane.api.streams import AsyncCompletionStream

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PULSE_S = 10.0
"""Seconds of silence after which a stream shows that it lives: proxies cut those that say nothing."""
STALLED_S = 300.0
"""Seconds for which a client may read nothing before it is given up."""
_HEADERS = {
    b"content-type": b"text/event-stream; charset=utf-8",
    b"cache-control": b"no-cache",
    b"x-accel-buffering": b"no",
}
COMMENT = b": waiting\n\n"
"""A frame that clients skip."""
DONE = b"data: [DONE]\n\n"


def frame(data: bytes, event: str | None = None) -> bytes:
    """One event. ``data`` must hold no newline, as JSON without indentation does not."""
    named = b"" if event is None else b"event: " + event.encode() + b"\n"
    return named + b"data: " + data + b"\n\n"


async def opened(stream: AsyncCompletionStream) -> AsyncGenerator[CompletionDelta]:
    """The deltas of a stream whose first one is there.

    A request that the engine refuses fails here, before an answer has begun, and so can be answered with a status.
    Whoever leaves the iterator early ends the stream's requests.

    Raises:
        TramontaneError: The request is refused, or failed at once.
    """
    first = await anext(stream, None)

    async def deltas() -> AsyncGenerator[CompletionDelta]:
        try:
            if first is not None:
                yield first
                async for delta in stream:
                    yield delta
        finally:
            await stream.aclose()

    return deltas()


@define(eq=False)
class EventStream:
    """An ASGI answer that sends frames as they come.

    One task sends, so a frame costs no more than its writing; this one listens for the client's leaving and sends a
    pulse where nothing was sent for a while. However it ends, ``frames`` is closed: that frees what feeds it.
    """

    frames: AsyncGenerator[bytes]
    headers: Mapping[bytes, bytes] = field(factory=dict)
    pulse: bytes = COMMENT
    pulse_s: float = PULSE_S
    stalled_s: float = STALLED_S
    _last: float = field(factory=time.monotonic, init=False)
    _writing: bool = field(default=False, init=False)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await self._watch(sending, leaving, send)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self.frames.aclose()

    async def _watch(self, sending: asyncio.Future[None], leaving: asyncio.Future[None], send: Send) -> None:
        while True:
            done, _ = await asyncio.wait({sending, leaving}, timeout=self.pulse_s, return_when="FIRST_COMPLETED")
            if sending in done:
                sending.result()
            if done:
                return
            silent = time.monotonic() - self._last
            if self._writing and silent >= self.stalled_s:
                return
            if not self._writing and silent >= self.pulse_s / 2:
                await self._send(send, self.pulse)

    async def _send_all(self, send: Send) -> None:
        """The head goes out with the first frame where that is there, and the end with the last: a write that wakes a
        client costs more than what is written."""
        headers = [*(_HEADERS | dict(self.headers)).items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for one in self.frames:
            await self._send(send, one)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, body: bytes) -> None:
        self._writing = True
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._writing = False
        self._last = time.monotonic()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Awaitable[T]) -> T | None:
    """Await something for as long as a client waits for it; ``None`` if it left, and the work is cancelled.

    The request's body must have been read: from here on ``receive`` tells of nothing but the client's leaving.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when="FIRST_COMPLETED")
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
