# SPDX-License-Identifier: Apache-2.0
"""The process of an engine as the asking side holds it: started, asked, ended; its death is noticed and told.

Nothing is written to the pipe by whoever asks: a thread does it, so that a process that does not read holds up nobody.
What an event loop tells in turns that follow each other goes together: each message wakes the process, and an engine
that has heard of one request of many begins a step for it, with the server's core, while the others are on their way.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from tramontane.child.codec import TOLD, unpack_error, unpack_event
from tramontane.child.frames import Channel, Frame
from tramontane.errors import EngineDiedError, EngineError
from tramontane.progress import Progress, silent

log = logging.getLogger(__name__)

BURST_S = 0.01
"""Seconds that what a loop tells waits at most for more, while each of its turns brings some."""
CLOSE_S = 10.0
"""Seconds that the process may take to end once its pipe is closed; then it is killed."""
_START = """import sys
sys.path.insert(0, {root!r})
from tramontane.child.turns import take_turns
take_turns()  # before numpy is imported, which starts threads
from tramontane.child.main import main
main({level})
"""

_open: WeakSet[ChildProcess] = WeakSet()


class ChildProcess:
    """A process that obeys over a pipe.

    Args:
        take: Gets every frame that is no answer to a call, in the reading thread.
        died: Told, in the reading thread, when the process has ended unasked; calls that wait have failed by then.
    """

    def __init__(self, take: Callable[[Frame], None], died: Callable[[EngineDiedError], None]) -> None:
        self._take, self._died = take, died
        self._numbers = itertools.count()
        self._calls: dict[int, tuple[Future[Any], Progress]] = {}
        self._lock = threading.Lock()
        self._told: deque[tuple[str, Any]] = deque()
        self._turn: asyncio.AbstractEventLoop | None = None
        """Whose turns end before what was told goes out."""
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Has the writing thread look at what was told, for the last time where it is ``False``."""
        self._closed = False
        self._dead: EngineDiedError | None = None
        root, level = str(Path(__file__).parents[2]), logging.getLogger("tramontane").getEffectiveLevel()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(root=root, level=level)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        if self._process.stdin is None or self._process.stdout is None:
            raise EngineError("the engine's process has no pipes")
        self._channel = Channel(self._process.stdout, self._process.stdin)
        _open.add(self)
        self._reader = threading.Thread(target=self._read, name="tramontane-pipe-read", daemon=True)
        self._reader.start()
        threading.Thread(target=self._write, name="tramontane-pipe-write", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether it was told to end."""
        return self._closed

    @property
    def dead(self) -> EngineDiedError | None:
        """Why it ended unasked, if it did."""
        return self._dead

    def send(self, kind: str, body: Any) -> None:
        """Tell it something, in an event loop after a turn that told nothing. It may be gone: then nothing happens.

        Takes no lock, since a stream that is forgotten ends its requests wherever it is collected.
        """
        self._told.append((kind, body))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._send_told()
            return
        if self._turn is None:
            self._turn = loop
            loop.call_soon(self._end_turn, loop, 0, loop.time() + BURST_S)
        elif self._turn is not loop:
            self._send_told()

    def _end_turn(self, loop: asyncio.AbstractEventLoop, before: int, until: float) -> None:
        told = len(self._told)
        if told > before and loop.time() < until:
            loop.call_soon(self._end_turn, loop, told, until)
        else:
            self._send_told()

    def _send_told(self) -> None:
        self._turn = None
        self._wake.put(True)

    def ask(self, name: str, body: Any, progress: Progress | None = None) -> Any:
        """Call something in the process and wait for the answer.

        Raises:
            TramontaneError: What the call raised there.
            EngineDiedError: The process has ended, before or meanwhile.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._dead is not None:
                raise self._dead
            number = next(self._numbers)
            self._calls[number] = (future, progress or silent)
        self.send("call", [number, name, body])
        return future.result()

    def close(self) -> None:
        """End the process and wait for it. May be called again, from any thread."""
        with self._lock:
            self._closed = True
        self._wake.put(False)
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not threading.current_thread():
            self._reader.join()

    # --- the threads --------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        more = True
        with suppress(OSError):  # it is gone; the reading thread finds out
            while more:
                more = self._wake.get()
                if told := [self._told.popleft() for _ in range(len(self._told))]:
                    self._channel.send(Frame(TOLD, told))
        with suppress(OSError):
            self._channel.writer.close()

    def _read(self) -> None:
        reason = None
        try:
            for frame in self._channel:
                self._obey(frame)
        except Exception as error:
            log.exception("the pipe of an engine's process cannot be read")
            reason = f"its answers cannot be read ({type(error).__name__})"
            self._process.kill()
        code = self._process.wait()
        self._channel.reader.close()
        self._wake.put(False)
        self._note_end(EngineDiedError(f"the engine's process ended by itself: {reason or _cause(code)}"))

    def _obey(self, frame: Frame) -> None:
        if frame.kind == "progress":
            number, event = frame.body
            self._calls[number][1](unpack_event(event))
        elif frame.kind in ("done", "failed"):
            number, answer = frame.body
            with self._lock:
                future, _ = self._calls.pop(number)
            if frame.kind == "done":
                future.set_result(answer)
            else:
                future.set_exception(unpack_error(answer))
        elif frame.kind == "log":
            name, level, message = frame.body
            logging.getLogger(name).log(level, "%s", message)
        else:
            self._take(frame)

    def _note_end(self, error: EngineDiedError) -> None:
        with self._lock:
            self._dead = error
            waiting, asked = list(self._calls.values()), self._closed
            self._calls.clear()
        for future, _ in waiting:
            future.set_exception(error)
        if not asked:
            self._died(error)


def _cause(code: int) -> str:
    """Why a process ended, for people."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"signal {name}" + (", which the system sends where memory is short" if name == "SIGKILL" else "")


@atexit.register
def _close_all() -> None:
    """A process whose pipe is closed ends by itself; waiting for it leaves nothing behind."""
    for process in list(_open):
        process.close()
