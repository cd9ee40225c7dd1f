# SPDX-License-Identifier: Apache-2.0
"""Listening: bind first, load the model, answer, drain when asked to stop.

The port is bound before anything is loaded, so that a port in use is a message and not a surprise after minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import uvicorn

from tramontane.child.turns import yield_to_engines
from tramontane.errors import ConfigError, TramontaneError
from tramontane.host import Host
from tramontane_frontend_http.app import Application, make_app
from tramontane_frontend_http.protocol import hurried
from tramontane_frontend_http.settings import ServerSettings

_log = logging.getLogger(__name__)
_POLL_S = 0.05
_GOODBYE_S = 1.0
"""Seconds that connections may take to be closed when all is said."""


def bind(settings: ServerSettings) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: The port is in use, may not be used, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {settings.port} is in use", hint="choose another with --port, or --port 0 for any that is free"
            ) from None
        if error.errno == errno.EACCES:
            raise ConfigError(f"listening on {where} is not permitted", hint="ports below 1024 need rights") from None
        raise ConfigError(
            f"cannot listen on {where}: {error.strerror}", hint="is that this machine's address?"
        ) from None
    return listening


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop: uvloop's, but on Windows, where there is none."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: we drain first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    host: Host, settings: ServerSettings, ready: Callable[[str, Application], None], preload: Sequence[str] = ()
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second signal ends at once.

    Args:
        host: The models; the first is loaded before ``ready`` is called.
        settings: How to listen.
        ready: Told the base URL once requests are answered.
        preload: Names of further models to load before that; the others are loaded when they are asked for.

    Raises:
        ConfigError: The port cannot be had.
        TramontaneError: The model cannot be loaded.
    """
    listening = bind(settings)
    if host.apart:
        yield_to_engines()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_run(*_server(host, settings), listening, host, settings, ready, preload))
    finally:
        listening.close()
        host.close()


def _server(host: Host, settings: ServerSettings) -> tuple[_Server, Application]:
    app = make_app(host, settings)
    config = uvicorn.Config(
        app, http=hurried(settings.header_timeout), ws="none", log_config=None, access_log=False, lifespan="off",
        server_header=False,
        ssl_certfile=settings.tls_certificate, ssl_keyfile=settings.tls_key, timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )  # fmt: skip
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the TLS certificate or key cannot be used: {error}") from None
    return _Server(config), app


async def _run(
    server: _Server, app: Application, listening: socket.socket, host: Host, settings: ServerSettings,
    ready: Callable[[str, Application], None], preload: Sequence[str],
) -> None:  # fmt: skip
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            server.force_exit = True
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows has no handlers on loops; Ctrl-C raises there
            loop.add_signal_handler(name, asked)
    running = asyncio.create_task(server.serve([listening]))
    loading = asyncio.create_task(_load(host, preload))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({loading, stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            ready(_url(listening, settings), app)
        await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        await _drain(app, server, settings.drain_seconds)
    except TramontaneError:
        server.should_exit = True
        raise
    finally:
        await _close(server, running, settings.drain_seconds)
        stopping.cancel()


async def _load(host: Host, preload: Sequence[str]) -> None:
    for name in (None, *preload):
        await host.acquire(name)


async def _drain(app: Application, server: _Server, seconds: float) -> None:
    """Let open answers end, for a while."""
    app.drain()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    if app.open_requests:
        _log.warning("draining: %d requests are open, %.0f s to go", app.open_requests, seconds)
    while app.open_requests and loop.time() < until and not server.force_exit:
        await asyncio.sleep(_POLL_S)


async def _close(server: _Server, running: asyncio.Task[None], seconds: float) -> None:
    """End all connections, those with an answer on its way once it is sent. A client that does not say goodbye, as
    TLS has it, is not waited for: nothing is on its way to it."""
    server.should_exit = True
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    await asyncio.wait({running}, timeout=_GOODBYE_S)
    while not running.done() and loop.time() < until and _unsent(server):
        await asyncio.wait({running}, timeout=_POLL_S)
    server.force_exit = True
    await asyncio.wait({running}, timeout=_GOODBYE_S)


def _unsent(server: _Server) -> bool:
    """Whether bytes wait for a client to read others."""
    protocols: Iterable[Any] = server.server_state.connections
    return any(one.transport.get_write_buffer_size() for one in protocols)


def _url(listening: socket.socket, settings: ServerSettings) -> str:
    port = listening.getsockname()[1]
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_certificate else 'http'}://{name}:{port}"
