# SPDX-License-Identifier: Apache-2.0
"""A model whose engine is in a process of its own: texts here, token ids and records over a pipe.

If that process ends unasked, whatever ran ends with :class:`EngineDiedError`, and so does whatever is asked from then
on; nothing here waits for a process that is gone. Starting another one is the owner's decision.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tramontane.api.settings import load_options
from tramontane.child.adapters import ChildAdapters
from tramontane.child.codec import (
    DELTAS,
    pack,
    pack_settings,
    unpack_deltas,
    unpack_info,
    unpack_stats,
)
from tramontane.child.frames import Frame
from tramontane.child.process import ChildProcess
from tramontane.engine.intake import check_request
from tramontane.engine.mail import Mailroom
from tramontane.engine.stats import EngineStats
from tramontane.errors import EngineClosedError, EngineDiedError, GrammarError, PlanError, PluginError
from tramontane.records import EngineInfo
from tramontane.requests import FinishReason

if TYPE_CHECKING:
    from tramontane.build import ModelPlan
    from tramontane.engine.sinks import Sink
    from tramontane.load import LoadOptions
    from tramontane.load.text import TextSide
    from tramontane.plugins import Plugins
    from tramontane.progress import Progress
    from tramontane.requests import EngineRequest

log = logging.getLogger(__name__)


class ChildModel:
    """Implements :class:`tramontane.api.running.Running`; made by :meth:`start`."""

    text: TextSide
    info: EngineInfo
    vocab_size: int
    stream_interval: float = 0.0  # the other side holds together what comes fast

    def __init__(self) -> None:
        self._owner: Callable[[EngineDiedError], None] | None = None
        self._mail = Mailroom(self.abort)  # the other side says how often
        self._stats: EngineStats | None = None
        self._process = ChildProcess(self._take, self._died)
        self.adapters = ChildAdapters(self._process)

    @classmethod
    def start(
        cls,
        reference: str,
        settings: Mapping[str, Any],
        plugins: Plugins,
        progress: Progress | None = None,
        *,
        name: str,
        died: Callable[[EngineDiedError], None] | None = None,
    ) -> ChildModel:
        """Start a process and load a model in it.

        Args:
            reference: What to load.
            settings: As for :class:`tramontane.LLM`, which says what is raised too.
            plugins: The late ones among them are loaded there too.
            progress: Told how loading goes.
            name: What the model is called.
            died: Told, in a thread of this model's, that the process has ended unasked after it had loaded the model.

        Raises:
            EngineDiedError: It ended before.
        """
        options, late = load_options(settings), _late(plugins)
        model = cls()
        try:
            model.text = _text_side(reference, options, plugins, progress)  # while the process starts
            given = {"reference": reference, "settings": pack_settings(settings), "name": name, "path": sys.path}
            answer = model._process.ask("load", {**given, **late}, progress)
        except BaseException:
            model.close()
            raise
        model.info, model.vocab_size = unpack_info(answer["info"]), answer["vocab_size"]
        model._stats = unpack_stats(answer["stats"])
        model.adapters.note(answer["adapters"])
        model._owner = died
        if model.dead is not None:  # after it had answered, and before anybody would have been told
            raise model.dead
        log.info("the engine of %s is process %d", name, model._process.pid)
        return model

    @property
    def plan(self) -> ModelPlan:
        """It is where the weights are.

        Raises:
            PlanError: Always.
        """
        raise PlanError(
            f"the plan of {self.info.model} is in the process of its engine",
            hint="tramontane inspect prints it; or load the model into this process",
        )

    @property
    def pid(self) -> int:
        """The number of the engine's process."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether requests are refused."""
        return self._process.closed

    @property
    def dead(self) -> EngineDiedError | None:
        """Why the process has ended unasked, if it did."""
        return self._process.dead

    def submit(self, requests: Sequence[EngineRequest], sink: Sink) -> None:
        """Queue requests; their deltas go to ``sink``.

        Raises:
            RequestError: One of them can never run, or its id is being served; none is queued.
            EngineClosedError: The engine was closed.
            EngineDiedError: Its process has ended.
        """
        for request in requests:
            check_request(request, self.vocab_size, self.info.max_model_len)
            if request.sampling.constraint is not None and self.text.tokenizer is None:
                raise GrammarError("constrained output needs a tokenizer, and this model has none")
        if self._process.closed and self.dead is None:
            raise EngineClosedError("the engine is closed and takes no requests")
        self._mail.expect(requests, sink)
        if self.dead is not None:  # looked at last: who dies later ends what is expected
            for request in requests:
                self._mail.forget(request.id)
            raise self.dead
        for request in requests:
            self._process.send("add", pack(request))

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request, or one of its choices; its sink gets a last delta. Unknown ids are no error."""
        self._process.send("abort", [request_id, index])

    def stats(self) -> EngineStats:
        """How the engine is doing, as it last told: at most a tenth of a second ago, or a step."""
        if self._stats is None:
            raise EngineClosedError("the engine has not started")
        return self._stats

    def requantize(
        self, settings: Mapping[str, Any], *, from_memory: bool = False, progress: Progress | None = None
    ) -> None:
        """Bring the weights into other types; see :meth:`tramontane.LLM.requantize`."""
        load_options(settings)
        given = {"settings": pack_settings(settings), "from_memory": from_memory}
        self.info = unpack_info(self._process.ask("requantize", given, progress))

    def close(self) -> None:
        """End the process, and what still runs with it."""
        self._process.close()
        self._mail.end_all(FinishReason.CANCELED)

    # --- in the reading thread ----------------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        if frame.kind == DELTAS:
            self._mail.deliver(unpack_deltas(frame))
        elif frame.kind == "stats":
            self._stats = unpack_stats(frame.body)

    def _died(self, error: EngineDiedError) -> None:
        self._mail.end_all(FinishReason.ERROR, error.message, error.code)
        if self._owner is not None:
            log.error("%s: %s", self.info.model, error.message)
            self._owner(error)


def _text_side(reference: str, options: LoadOptions, plugins: Plugins, progress: Progress | None) -> TextSide:
    """The part of a model that stays in this process: no weight is read."""
    from tramontane.load.find import open_reference
    from tramontane.load.foreign import translated
    from tramontane.load.text import text_side

    checkpoint = open_reference(reference, options, plugins, progress)
    try:
        return text_side(translated(checkpoint, options, plugins), options, plugins)
    finally:
        checkpoint.close()


def _late(plugins: Plugins) -> dict[str, list[str]]:
    """The plugins that another process does not find installed: names of modules, and files.

    Raises:
        PluginError: One is an object that cannot be named.
    """
    found: dict[str, list[str]] = {"modules": [], "files": []}
    for loaded in plugins.loaded:
        if loaded.id.distribution is not None:
            continue
        if loaded.id.name.endswith(".py"):
            found["files"].append(loaded.id.name)
        elif loaded.id.name in sys.modules:
            found["modules"].append(loaded.id.name)
        else:
            raise PluginError(
                f"the plugin {loaded.id.label} is no module, so the process of an engine cannot load it",
                hint="load the model into this process (serve --in-process)",
            )
    return found
