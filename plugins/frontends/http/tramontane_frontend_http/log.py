# SPDX-License-Identifier: Apache-2.0
"""Request ids and the access log: one JSON object per request on standard error, without bodies, keys or queries."""

from __future__ import annotations

import logging
import re
import time
import uuid

import orjson
from attrs import define
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tramontane.wire.scope import tell

_log = logging.getLogger("tramontane.access")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@define(eq=False)
class AccessLog:
    """Middleware: gives every request an id, echoes it, and logs what became of it."""

    app: ASGIApp
    enabled: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        tell(scope, request_id=request_id)
        started, status, sent = time.monotonic(), 499, 0  # 499: the client left before an answer began

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except BaseException:
            status = 500 if status == 499 else status
            raise
        finally:
            if self.enabled:
                self._write(scope, request_id, status, sent, time.monotonic() - started)

    @staticmethod
    def _write(scope: Scope, request_id: str, status: int, sent: int, seconds: float) -> None:
        client = scope.get("client")
        entry = {
            "at": time.time(), "id": request_id, "method": scope["method"], "path": scope["path"], "status": status,
            "bytes": sent, "ms": round(seconds * 1000, 1), "client": client[0] if client else None,
        }  # fmt: skip
        _log.info(orjson.dumps(entry).decode())
