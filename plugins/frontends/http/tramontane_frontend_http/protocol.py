# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP for connections that send the head of a request in time; uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def hurried(seconds: float) -> type[asyncio.Protocol]:
    """The protocol with a limit of its own."""
    return type("HurriedProtocol", (HurriedProtocol,), {"header_timeout": seconds})


class HurriedProtocol(H11Protocol):
    """Closes a connection whose client does not come to the point."""

    header_timeout = 15.0
    _hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_hurrying()
        elif self._hurry is None:
            self._expect_head()

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
