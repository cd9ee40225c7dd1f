# SPDX-License-Identifier: Apache-2.0
"""Who gets in: Host and Origin checks against DNS rebinding, API keys, rate and concurrency limits, body size.

One ASGI middleware in front of every frontend, so that no route can forget a check. No path is matched but the few that
are open, so no spelling of a path (``//v1/models``) is a way around it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from attrs import define, field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tramontane.wire.scope import path_below_root, tell
from tramontane_frontend_http.answers import refuse
from tramontane_frontend_http.settings import ServerSettings

OPEN_PATHS = frozenset({"/health"})
"""Paths that need no key: load balancers ask them."""
MAX_CLIENTS = 10_000
"""Clients whose rate is remembered."""


@define(eq=False)
class _Bucket:
    """A token bucket: one request refills every ``60 / per_minute`` seconds."""

    level: float
    at: float


@define(eq=False)
class _Passage:
    """One request on its way to a frontend."""

    scope: Scope
    outer_receive: Receive
    outer_send: Send
    settings: ServerSettings
    clock: asyncio.Timeout | None = None
    refused: bool = False
    _started: bool = False
    _seen: int = 0
    _complete: bool = False

    async def receive(self) -> Message:
        """A piece of the body, unless it is one too many or too late."""
        try:
            async with asyncio.timeout(None if self._complete else self.settings.body_timeout):
                message = await self.outer_receive()
        except TimeoutError:
            await self.refuse(408, "timeout", "the body took too long to arrive")
            return {"type": "http.disconnect"}
        self._complete = not message.get("more_body", False)
        self._seen += len(message.get("body", b""))
        if self._seen > self.settings.max_body_bytes:
            await self.refuse(413, "body_too_large", f"the body is larger than {self.settings.max_body_bytes} bytes")
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """A piece of the answer, unless the request was refused meanwhile."""
        if not self.refused:
            if not self._started and self.clock is not None:
                self.clock.reschedule(None)  # only the beginning of an answer is awaited
            self._started = True
            await self.outer_send(message)

    async def refuse(self, status: int, code: str, message: str) -> None:
        """Answer in the frontend's place, if it has not begun."""
        if not self._started and not self.refused:
            self.refused = True
            headers = {"Connection": "close"} if status in (408, 413) else None
            await refuse(self.scope, self.outer_receive, self.outer_send, status, code, message, headers)


@define(eq=False)
class Gate:
    """Middleware: checks a request, then hands it on."""

    app: ASGIApp
    settings: ServerSettings
    keyless: frozenset[str] = frozenset()
    """Exact paths of files that frontends show to everybody."""
    waiting: Callable[[], int] = lambda: 0
    """How many requests wait for their turn at the models."""
    open_requests: int = field(default=0, init=False)
    draining: bool = field(default=False, init=False)
    _buckets: OrderedDict[str, _Bucket] = field(factory=OrderedDict, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no frontend speaks WebSocket
        headers = Headers(scope=scope)
        fault = self._fault(scope, headers)
        if fault is not None:
            status, code, message, extra = fault
            await refuse(scope, receive, send, status, code, message, extra)
            return
        tell(scope, admin=not self.settings.admin_keys or _is_one_of(_key(headers), self.settings.admin_keys))
        if self.settings.separate_keys and self.settings.api_keys:
            tell(scope, tenant=hashlib.sha256(_key(headers).encode()).digest())
        self.open_requests += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self.open_requests -= 1

    def _fault(self, scope: Scope, headers: Headers) -> tuple[int, str, str, dict[str, str]] | None:
        settings, path = self.settings, path_below_root(scope)
        open_to_all = path in OPEN_PATHS or (path in self.keyless and scope["method"] in ("GET", "HEAD"))
        if len(headers.getlist("host")) > 1:  # a proxy may have looked at the other one
            return 400, "ambiguous_host", "the request names two hosts", {}
        if not self._host_is_served(headers.get("host", "")):
            return 403, "host_not_allowed", "this server does not answer to that host name", {}
        origin = headers.get("origin")
        if origin is not None and not self._origin_may(origin, headers.get("host", "")):
            return 403, "origin_not_allowed", "this web page may not call the server", {}
        if scope["method"] == "OPTIONS" and origin is not None:
            return None  # a browser's preflight carries no key; it reaches nothing but CORS
        if settings.api_keys and not open_to_all and not self._has_key(headers):
            return 401, "invalid_api_key", "a valid API key is needed", {"WWW-Authenticate": "Bearer"}
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > settings.max_body_bytes:
            return 413, "body_too_large", f"the body is larger than {settings.max_body_bytes} bytes", {}
        if self.draining:  # /health says so too: who asks it sends no more requests here
            return 503, "shutting_down", "the server is shutting down", {}
        if path in OPEN_PATHS:
            return None
        if self.open_requests >= settings.max_concurrent:
            return 429, "too_many_requests", "too many requests are open; try again shortly", {"Retry-After": "1"}
        if settings.max_queue is not None and scope["method"] == "POST" and self.waiting() >= settings.max_queue:
            return 429, "queue_full", "too many requests wait for the model; try again shortly", {"Retry-After": "1"}
        wait = 0.0 if open_to_all else self._wait(self._client(scope, headers))
        if wait > 0:
            return 429, "rate_limit_exceeded", "too many requests per minute", {"Retry-After": str(int(wait) + 1)}
        return None

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on. If its body grows too large, or it or its answer takes too long, it is refused here; its
        frontend sees a client that left."""
        passage = _Passage(scope, receive, send, self.settings)
        try:
            async with asyncio.timeout(self.settings.request_timeout) as passage.clock:
                await self.app(scope, passage.receive, passage.send)
        except Exception as error:
            if isinstance(error, TimeoutError) and passage.clock is not None and passage.clock.expired():
                await passage.refuse(504, "timeout", "the answer took too long to begin")
            if not passage.refused:
                raise

    def _host_is_served(self, header: str) -> bool:
        served = self.settings.served_hosts
        return served is None or _name_of(header) in served

    def _origin_may(self, origin: str, host: str) -> bool:
        allowed = self.settings.cors_origins
        return "*" in allowed or origin in allowed or urlsplit(origin).netloc == host

    def _has_key(self, headers: Headers) -> bool:
        return _is_one_of(_key(headers), (*self.settings.api_keys, *self.settings.admin_keys))

    def _client(self, scope: Scope, headers: Headers) -> str:
        if self.settings.api_keys:
            return _key(headers)
        client = scope.get("client")
        return client[0] if client else ""

    def _wait(self, client: str) -> float:
        """Seconds until the client may come again; 0 lets it in and counts it."""
        rate = self.settings.requests_per_minute
        if rate is None:
            return 0.0
        now = time.monotonic()
        bucket = self._buckets.pop(client, None) or _Bucket(float(rate), now)
        bucket.level = min(float(rate), bucket.level + (now - bucket.at) * rate / 60)
        bucket.at = now
        self._buckets[client] = bucket
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if bucket.level < 1:
            return (1 - bucket.level) * 60 / rate
        bucket.level -= 1
        return 0.0


def _key(headers: Headers) -> str:
    """The API key that a request carries."""
    given = headers.get("authorization", "")
    return (given[7:] if given[:7].lower() == "bearer " else headers.get("x-api-key", "")).strip()


def _is_one_of(key: str, known: Sequence[str]) -> bool:
    """Every key is compared, in constant time, so that the answer's time tells nothing about any of them."""
    found = [hmac.compare_digest(key.encode(), one.encode()) for one in known]
    return any(found)


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
