# SPDX-License-Identifier: Apache-2.0
"""The process of an engine: loads one model when it is told to, runs its steps, and ends when its pipe is closed.

It reads from standard input and writes to what was its standard output; whatever prints there writes to standard error
instead. Ctrl-C and SIGTERM are for the process that asks: it decides when this one ends.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import define, field

from tramontane.child.codec import TOLD, pack, pack_deltas, pack_error, unpack_request
from tramontane.child.frames import Channel, Frame
from tramontane.child.outbox import Outbox
from tramontane.engine.outputs import refusal
from tramontane.errors import EngineClosedError, EngineError, TramontaneError
from tramontane.progress import ProgressEvent
from tramontane.requests import Delta, EngineRequest

if TYPE_CHECKING:
    from tramontane.api.running import LocalModel

log = logging.getLogger(__name__)
STATS_EVERY_S = 0.1
"""While it works, the engine tells how it is doing this often; and whenever it has nothing more to do."""


@define(eq=False)
class Child:
    """What the other side asks, and what it is told. One thread obeys calls, another reads, the engine has a third."""

    channel: Channel
    model: LocalModel | None = None
    _outbox: Outbox = field(init=False)
    _calls: queue.SimpleQueue[tuple[int, str, Any]] = field(factory=queue.SimpleQueue, init=False)
    _told: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._outbox = Outbox(lambda deltas: self._write(pack_deltas(deltas)))

    def run(self) -> NoReturn:
        """Obey until the pipe is closed, which ends the process at once."""
        self._outbox.start()
        threading.Thread(target=self._read, name="tramontane-pipe", daemon=True).start()
        while True:
            number, name, given = self._calls.get()
            try:
                answer = self._call(number, name, given)
            except Exception as error:
                if not isinstance(error, TramontaneError):
                    log.exception("%s failed", name)
                self._send("failed", [number, pack_error(error)])
            else:
                self._send("done", [number, answer])

    # --- calls, in the main thread ------------------------------------------------------------------------------------

    def _call(self, number: int, name: str, given: Any) -> Any:
        def progress(event: ProgressEvent) -> None:
            self._send("progress", [number, pack(event)])

        if name == "load":
            self.model = _load(given, progress, self._deliver)
            self._outbox.interval = self.model.model.engine.stream_interval
            return {
                "info": pack(self.model.info),
                "vocab_size": self.model.vocab_size,
                "stats": pack(self.model.stats()),
                "adapters": self._adapters(self.model),
            }
        if self.model is None:
            raise EngineError(f"{name}: no model is loaded")
        if name == "requantize":
            self.model.requantize(given["settings"], from_memory=given["from_memory"], progress=progress)
            return pack(self.model.info)
        if name == "load_adapter":
            self.model.adapters.load(given["name"], given["reference"], progress=progress)
            return self._adapters(self.model)
        if name == "unload_adapter":
            self.model.adapters.unload(given["name"])
            return self._adapters(self.model)
        raise EngineError(f"there is no call {name!r}")

    @staticmethod
    def _adapters(model: LocalModel) -> list[Any]:
        return [pack(one) for one in model.adapters.loaded()]

    # --- the pipe -----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            for frame in self.channel:
                if frame.kind != TOLD:
                    raise EngineError(f"a message of the kind {frame.kind!r} is none of ours")
                for kind, told in groupby(frame.body, itemgetter(0)):
                    self._take(kind, [body for _, body in told])
        except Exception:
            log.exception("what the server sends cannot be read")
            os._exit(1)
        os._exit(0)  # nobody is left to be told anything

    def _take(self, kind: str, told: list[Any]) -> None:
        if kind == "call":
            for body in told:
                self._calls.put(tuple(body))
        elif self.model is None:
            raise EngineError(f"{kind}: no model is loaded")
        elif kind == "add":
            self._add(self.model, [unpack_request(body) for body in told])
        elif kind == "abort":
            for body in told:
                self.model.abort(*body)

    def _add(self, model: LocalModel, requests: list[EngineRequest]) -> None:
        try:
            model.engine.add(requests)
        except EngineClosedError as error:
            self._deliver([delta for request in requests for delta in refusal(request, error)])

    def _deliver(self, deltas: list[Delta]) -> None:
        """Runs in the engine's thread, after every step."""
        if deltas:
            self._outbox.put(deltas)
        if self.model is not None:
            now = time.monotonic()
            if now - self._told >= STATS_EVERY_S or not self.model.engine.busy:
                self._told = now
                self._send("stats", pack(self.model.stats()))

    def _send(self, kind: str, body: Any) -> None:
        self._write(Frame(kind, body))

    def _write(self, frame: Frame) -> None:
        with suppress(OSError):  # the other side is gone, which ends this one too
            self.channel.send(frame)


def _load(given: Mapping[str, Any], progress: Any, deliver: Any) -> LocalModel:
    """Load the plugins and the model that the other side has named."""
    from tramontane.api.running import LocalModel
    from tramontane.api.settings import load_options
    from tramontane.load import load_model
    from tramontane.plugins import installed

    sys.path += [path for path in given["path"] if path not in sys.path]
    modules = [import_module(name) for name in given["modules"]]
    plugins = installed().extended(modules, given["files"])
    model = load_model(given["reference"], load_options(given["settings"]), plugins=plugins, progress=progress)
    return LocalModel(model, given["name"], deliver)


class _Forward(logging.Handler):
    """Sends what is logged to the other side, whose log it belongs to."""

    def __init__(self, child: Child) -> None:
        super().__init__()
        self.child = child
        self.setFormatter(logging.Formatter("%(message)s"))  # a traceback follows the message

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self.child._send("log", [record.name, record.levelno, self.format(record)])


def main(level: int) -> NoReturn:
    """Run the process.

    Args:
        level: The package's level of logging on the other side.
    """
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    faulthandler.enable()
    out = os.dup(1)
    os.dup2(2, 1)
    child = Child(Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(out, "wb")))
    logging.getLogger().addHandler(_Forward(child))
    logging.getLogger("tramontane").setLevel(level)
    child.run()
