# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP for connections that send the head of a request in time and within bounds; uvicorn itself waits for
ever, and llhttp (https://github.com/nodejs/llhttp), which parses here, keeps a head of any length."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 64 * 1024
"""Bytes of a head, of what follows a chunked body, or of the line before a chunk."""


def hurried(seconds: float) -> type[asyncio.Protocol]:
    """The protocol with a limit of its own."""
    return type("HurriedProtocol", (HurriedProtocol,), {"header_timeout": seconds})


class HurriedProtocol(HttpToolsProtocol):
    """Closes a connection whose client does not come to the point."""

    header_timeout = 15.0
    _hurry: asyncio.TimerHandle | None = None
    _pending = 0
    """Bytes that came since the parser last made something of any."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_hurrying()
        elif self._hurry is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_hurrying()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._hurry = self.loop.call_later(self.header_timeout, self._too_late)

    def _stop_hurrying(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def _too_late(self) -> None:
        self._hurry = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
