# SPDX-License-Identifier: Apache-2.0
"""The one application: every ASGI frontend of the catalogs behind one gate.

``make_app(host)`` is public: mount the result in any ASGI application, or give it to any ASGI server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial

from attrs import define
from prometheus_client.registry import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tramontane.host import Host
from tramontane.records import FrontendSpec, resolve
from tramontane_frontend_http import documents, management, operations
from tramontane_frontend_http.answers import refuse
from tramontane_frontend_http.gate import Gate
from tramontane_frontend_http.log import AccessLog
from tramontane_frontend_http.metrics import Traffic
from tramontane_frontend_http.mounts import Mounts
from tramontane_frontend_http.settings import ServerSettings

_log = logging.getLogger(__name__)


@define(eq=False)
class Application:
    """The ASGI application, and what its owner may ask of it."""

    outermost: ASGIApp
    gate: Gate
    mounted: tuple[str, ...]
    """Names of the frontends that are mounted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.outermost(scope, receive, send)

    def drain(self) -> None:
        """Take no further requests; those that are open go on."""
        self.gate.draining = True

    @property
    def open_requests(self) -> int:
        """Requests that are being answered."""
        return self.gate.open_requests


def make_app(host: Host, settings: ServerSettings | None = None) -> Application:
    """All web frontends of the host's plugins as one application.

    Args:
        host: The models to serve.
        settings: Whom to let in and how much to take on; by default a loopback server's.
    """
    chosen = settings or ServerSettings()
    specs = [spec for spec in host.plugins.catalogs.frontends if spec.app is not None and spec.mount is not None]
    apps = [_frontend(spec, host) for spec in specs]
    mounted = Mounts(
        [((spec.mount or "").rstrip("/"), app) for spec, app in zip(specs, apps, strict=True)],
        {path: app for spec, app in zip(specs, apps, strict=True) for path in spec.also},
    )
    described = documents.document(specs, keyed=bool(chosen.api_keys), metrics=chosen.metrics)
    registry = CollectorRegistry()
    own = [*operations.routes(host, registry, metrics=chosen.metrics), *documents.routes(described)]
    own += management.routes(host, chosen.adapter_folders)
    inner: ASGIApp = Starlette(routes=[*own, Mount("", mounted)])
    if chosen.cors_origins:
        inner = CORSMiddleware(
            inner, allow_origins=list(chosen.cors_origins), allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"], expose_headers=["x-request-id"],
        )  # fmt: skip
    gate = Gate(_Guarded(inner), chosen, frozenset(_keyless(specs)), partial(_waiting, host))
    counted = Traffic(gate, registry, described["paths"]) if chosen.metrics else gate
    return Application(AccessLog(counted, chosen.access_log), gate, tuple(spec.name for spec in specs))


def _waiting(host: Host) -> int:
    return sum(int(reading["waiting"]) for reading in host.metrics().values())


def _keyless(specs: Iterable[FrontendSpec]) -> Iterator[str]:
    """What frontends show to everybody, by its path on the port."""
    for spec in specs:
        if spec.keyless is not None:
            yield from ((spec.mount or "").rstrip("/") + path for path in resolve(spec.keyless, spec)())


def _frontend(spec: FrontendSpec, host: Host) -> ASGIApp:
    made: ASGIApp = resolve(spec.app or "", spec)(host)
    return made


@define(eq=False)
class _Guarded:
    """Whatever a frontend failed to catch becomes a 500 that tells nothing of the inside; the log has the rest."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            if started or scope["type"] != "http":
                raise
            _log.exception("a request failed")
            await refuse(scope, receive, send, 500, "internal_error", "the server failed; its log says why")
