# SPDX-License-Identifier: Apache-2.0
"""A running model and who is told of it: what ``LLM`` and ``AsyncLLM`` are two faces of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from tramontane.api.answers import Answers
from tramontane.api.collect import RequestOutput
from tramontane.api.request_maker import RequestMaker
from tramontane.api.running import LocalModel, Running
from tramontane.api.settings import load_options
from tramontane.api.streams import Turns
from tramontane.records import EngineInfo, RequestSummary

if TYPE_CHECKING:
    from tramontane.engine import EngineStats
    from tramontane.engine.sinks import Sink
    from tramontane.errors import TramontaneError
    from tramontane.plugins import Observers, Plugins
    from tramontane.progress import Progress


@define(eq=False)
class Service:
    """One running model. Every method may be called from any thread."""

    running: Running
    observers: Observers
    turns: Turns | None = None
    """Where event loops need not wait for the interpreter, since the engine has another."""
    maker: RequestMaker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.maker = RequestMaker.of(self.running, partial(_tell, self.observers, self.info.model))
        self.observers.engine_started(self.info)

    @classmethod
    def load(
        cls,
        reference: str,
        settings: Mapping[str, Any],
        plugins: Plugins,
        progress: Progress | None = None,
        name: str | None = None,
    ) -> Service:
        """Load a model and start its engine; see :class:`tramontane.LLM` for the settings and what is raised."""
        from tramontane.load import load_model

        model = load_model(reference, load_options(settings), plugins=plugins, progress=progress)
        return cls(LocalModel(model, name or reference), plugins.observers)

    @classmethod
    def apart(
        cls,
        reference: str,
        settings: Mapping[str, Any],
        plugins: Plugins,
        progress: Progress | None = None,
        name: str | None = None,
        died: Callable[[TramontaneError], None] | None = None,
    ) -> Service:
        """As :meth:`load`, with the engine in a process of its own.

        Args:
            died: Told, in a thread of its own, when that process has ended unasked.

        Raises:
            EngineDiedError: The process ended while it loaded the model.
        """
        from tramontane.child.model import ChildModel

        running = ChildModel.start(reference, settings, plugins, progress, name=name or reference, died=died)
        return cls(running, plugins.observers, Turns())

    @property
    def info(self) -> EngineInfo:
        """What observers and people are told of the engine."""
        return self.running.info

    def submit(self, answers: Answers, sink: Sink) -> None:
        """Hand a call's requests to the engine; their deltas go to ``sink``.

        Raises:
            RequestError: The engine can never run one of them; then it runs none.
            EngineClosedError: The engine is closed.
            EngineDiedError: The engine's process has ended.
        """
        try:
            self.running.submit([output.request for output in answers.outputs], sink)
        except BaseException:
            self.forget(answers)
            raise

    def forget(self, answers: Answers) -> None:
        """Nobody reads these answers any more: end what still runs, so that its cache blocks are free."""
        for request_id in answers.open_ids:
            self.running.abort(request_id)

    def requantize(
        self, settings: Mapping[str, Any], *, from_memory: bool = False, progress: Progress | None = None
    ) -> None:
        """Bring the weights into other types between two steps; see :meth:`tramontane.LLM.requantize`."""
        self.running.requantize(settings, from_memory=from_memory, progress=progress)

    def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""
        return self.running.stats()

    def close(self) -> None:
        """Stop the engine; calls that wait end with ``EngineClosedError``. Closing twice is fine."""
        if not self.running.closed:
            self.running.close()
            self.observers.engine_stopped(self.info)

    def __del__(self) -> None:
        """A model that nobody holds any more, by a face or by a running call, is stopped."""
        if hasattr(self, "running"):
            self.close()


def _tell(observers: Observers, name: str, output: RequestOutput) -> None:
    """Tell observers of a request that has ended. It knows no service: one that nobody holds must be able to go."""
    completion = output.completion()
    observers.request_finished(
        RequestSummary(
            model=name,
            request_id=output.request.id,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.usage.prompt_tokens,
            completion_tokens=completion.usage.completion_tokens,
            cached_tokens=completion.usage.cached_tokens,
            ttft_s=completion.usage.ttft_s,
            total_s=completion.usage.total_s,
        )
    )
