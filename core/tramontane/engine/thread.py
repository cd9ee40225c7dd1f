# SPDX-License-Identifier: Apache-2.0
"""An engine core in a thread of its own, and the thread-safe way in and out.

Everything that touches the core happens in that thread, between steps. No exception ends the loop: a receiver that
fails loses its request, a step that fails ends its requests, a fault in the bookkeeping ends all requests and begins
anew.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar
from weakref import WeakSet

from tramontane.engine.core import EngineCore
from tramontane.engine.mail import Mailroom
from tramontane.engine.outputs import refusal
from tramontane.engine.sinks import Sink
from tramontane.engine.stats import EngineStats
from tramontane.errors import EngineClosedError, TramontaneError
from tramontane.requests import Delta, EngineRequest

log = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Seconds between two offers of the interpreter lock. With the interpreter's default of 5 ms, one busy Python thread
#: makes every step wait that long.
SWITCH_INTERVAL = 1e-4
#: Seconds that interpreter exit waits for a step to end.
EXIT_PATIENCE = 10.0

_open: WeakSet[EngineThread] = WeakSet()


class EngineThread:
    """Runs an engine core in a background thread until closed.

    Args:
        core: The engine; nobody else may use it from now on.
        name: The thread's name.
        deliver: Gets the deltas of every step, in the engine's thread, empty ones included; by default they go to the
            sinks of their requests.
    """

    def __init__(
        self,
        core: EngineCore,
        name: str = "tramontane-engine",
        deliver: Callable[[list[Delta]], None] | None = None,
    ) -> None:
        self._core = core
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._mail = Mailroom(core.abort, core.config.stream_interval)
        self._deliver = deliver or self._mail.deliver
        self._closed = False
        self._drain = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        _open.add(self)
        self._thread.start()

    # --- called from any thread ---------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether requests are refused."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether it has something to do, or will when its thread looks."""
        return self._core.has_work or bool(self._commands)

    @property
    def max_len(self) -> int:
        """Most tokens of a sequence, by the model and by the cache."""
        return self._core.max_len

    def submit(self, requests: Sequence[EngineRequest], sink: Sink) -> None:
        """Queue requests, which one step begins together if it can; their deltas go to ``sink``.

        Raises:
            RequestError: One of them can never run, or its id is being served; none is queued.
            EngineClosedError: The engine was closed.
        """
        for request in requests:
            self._core.check(request)
        with self._lock:
            self._refuse_if_closed()
            self._mail.expect(requests, sink)
            self._commands.append(lambda: self._add(requests))
        self._wake.set()

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Queue requests for whose deltas no sink is named: ``deliver`` of the constructor gets them, and those of the
        requests that can never run.

        Raises:
            EngineClosedError: The engine was closed.
        """
        with self._lock:
            self._refuse_if_closed()
            self._commands.append(lambda: self._add(requests))
        self._wake.set()

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request, or one of its choices; its sink gets a last delta. Unknown ids are no error."""
        self._commands.append(lambda: self._core.abort(request_id, index))
        self._wake.set()

    def call(self, function: Callable[[EngineCore], Result]) -> Future[Result]:
        """Run a function on the core between two steps.

        Raises:
            EngineClosedError: The engine was closed.
        """
        future: Future[Result] = Future()

        def command() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(self._core))
                except Exception as error:
                    future.set_exception(error)

        with self._lock:
            self._refuse_if_closed()
            self._commands.append(command)
        self._wake.set()
        return future

    def stats(self) -> EngineStats:
        """How the engine is doing, as of about now."""
        return self._core.stats()

    def close(self, drain: bool = False, timeout: float | None = None) -> None:
        """Refuse new requests, end the thread and wait for it. May be called again.

        Args:
            drain: Whether requests that are being served are served to their end; else they are canceled.
            timeout: Most seconds to wait for the thread.
        """
        with self._lock:
            self._drain = drain
            self._closed = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise EngineClosedError("the engine is closed and takes no requests")

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        core = self._core
        while True:
            self._obey()
            if self._closed and not self._drain:
                core.abort_all()
            if core.has_work:
                self._deliver(self._step())
                continue
            with self._lock:
                if self._closed and not self._commands:
                    return
            self._wake.wait()
            self._wake.clear()

    def _obey(self) -> None:
        while self._commands:
            command = self._commands.popleft()
            try:
                command()
            except Exception:
                log.exception("a command to the engine failed")

    def _add(self, requests: Sequence[EngineRequest]) -> None:
        for request in requests:
            try:
                self._core.add(request)
            except Exception as error:
                if not isinstance(error, TramontaneError):
                    log.exception("request %s was not taken", request.id)
                self._deliver(refusal(request, error))

    def _step(self) -> list[Delta]:
        try:
            return self._core.next_deltas()
        except BaseException as error:  # a plugin's SystemExit must not end the thread silently
            return self._core.recover(error)


@atexit.register
def _close_all() -> None:
    """Threads that outlive the interpreter crash in native code: end them first."""
    for engine in list(_open):
        engine.close(timeout=EXIT_PATIENCE)
