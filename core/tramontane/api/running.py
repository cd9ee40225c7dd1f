# SPDX-License-Identifier: Apache-2.0
"""A model that runs, wherever its engine does: what the API needs of it, and the one whose engine is in this process.

The text side (tokenizer, template, answers' format) is always here; :mod:`tramontane.child` has the model whose engine
is in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field

from tramontane.api.adapters import Adapters, LocalAdapters
from tramontane.api.settings import load_options
from tramontane.grammar.compiler import GrammarCompiler
from tramontane.grammar.vocabulary import Vocabulary
from tramontane.records import EngineInfo
from tramontane.schemes import Dense

if TYPE_CHECKING:
    from tramontane.build import ModelPlan
    from tramontane.engine import EngineStats, EngineThread
    from tramontane.engine.sinks import Sink
    from tramontane.errors import TramontaneError
    from tramontane.load import LoadedModel
    from tramontane.load.text import TextSide
    from tramontane.progress import Progress
    from tramontane.requests import Delta, EngineRequest


class Running(Protocol):
    """A model and its engine. Every method may be called from any thread."""

    @property
    def text(self) -> TextSide:
        """Tokenizer, template and the like."""
        ...

    @property
    def info(self) -> EngineInfo:
        """What observers and people are told."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        ...

    @property
    def plan(self) -> ModelPlan:
        """What is loaded, and how.

        Raises:
            PlanError: The model is in another process.
        """
        ...

    @property
    def closed(self) -> bool:
        """Whether requests are refused."""
        ...

    @property
    def dead(self) -> TramontaneError | None:
        """Why the engine has ended by itself, if it did."""
        ...

    @property
    def stream_interval(self) -> float:
        """Seconds in which a thread that reads is woken at most once, but for first tokens and ends; 0 where deltas are
        held together before they come here."""
        ...

    @property
    def adapters(self) -> Adapters:
        """What requests may choose; others can be loaded."""
        ...

    def submit(self, requests: Sequence[EngineRequest], sink: Sink) -> None:
        """As :meth:`tramontane.engine.EngineThread.submit`."""
        ...

    def abort(self, request_id: str, index: int | None = None) -> None:
        """As :meth:`tramontane.engine.EngineThread.abort`."""
        ...

    def stats(self) -> EngineStats:
        """How the engine is doing."""
        ...

    def requantize(self, settings: Mapping[str, Any], *, from_memory: bool, progress: Progress | None) -> None:
        """As :meth:`tramontane.LLM.requantize`."""
        ...

    def close(self) -> None:
        """Stop the engine and let go of the model."""
        ...


@define(eq=False)
class LocalModel:
    """A loaded model, its grammars and its engine in a thread of this process.

    Args:
        model: What was loaded; closed with this.
        name: What it is called in messages and to observers.
        deliver: As of :class:`tramontane.engine.EngineThread`.
    """

    model: LoadedModel
    name: str
    deliver: Callable[[list[Delta]], None] | None = None
    engine: EngineThread = field(init=False)
    adapters: Adapters = field(init=False)
    info: EngineInfo = field(init=False)
    _grammars: GrammarCompiler | None = field(init=False)
    _exchanging: Lock = field(factory=Lock, init=False, repr=False)
    """One exchange of weights at a time."""

    def __attrs_post_init__(self) -> None:
        from tramontane.engine import EngineCore, EngineThread

        self._grammars = _grammars(self.model)
        core = EngineCore(self.model.runner, self.model.engine, self._grammars)
        self.engine = EngineThread(core, deliver=self.deliver)
        self.adapters = LocalAdapters(self.model, self.engine)
        self.info = _info(self.name, self.model, self.engine.max_len)

    @property
    def text(self) -> TextSide:
        """As :attr:`Running.text`."""
        return self.model.text

    @property
    def stream_interval(self) -> float:
        """As :attr:`Running.stream_interval`."""
        return self.model.engine.stream_interval

    @property
    def vocab_size(self) -> int:
        """As :attr:`Running.vocab_size`."""
        return self.model.runner.vocab_size

    @property
    def plan(self) -> ModelPlan:
        """What is loaded, how it is stored, where it lives."""
        return self.model.plan

    @property
    def closed(self) -> bool:
        """As :attr:`Running.closed`."""
        return self.engine.closed

    @property
    def dead(self) -> TramontaneError | None:
        """Nothing but this process ends it."""
        return None

    def submit(self, requests: Sequence[EngineRequest], sink: Sink) -> None:
        """As :meth:`Running.submit`."""
        self.engine.submit(requests, sink)

    def abort(self, request_id: str, index: int | None = None) -> None:
        """As :meth:`Running.abort`."""
        self.engine.abort(request_id, index)

    def stats(self) -> EngineStats:
        """As :meth:`Running.stats`."""
        return self.engine.stats()

    def requantize(
        self, settings: Mapping[str, Any], *, from_memory: bool = False, progress: Progress | None = None
    ) -> None:
        """As :meth:`Running.requantize`."""
        from tramontane.load import exchange_weights, plan_exchange

        with self._exchanging:
            exchange = plan_exchange(self.model, load_options(settings), from_memory=from_memory, progress=progress)
            change = partial(exchange_weights, self.model, exchange, progress)
            try:
                self.engine.call(lambda core: core.exchange(change)).result()
            finally:
                self.info = _info(self.name, self.model, self.engine.max_len)

    def close(self) -> None:
        """As :meth:`Running.close`."""
        self.engine.close()
        if self._grammars is not None:
            self._grammars.close()
        self.model.close()


def _grammars(model: LoadedModel) -> GrammarCompiler | None:
    """What compiles the grammars of a model's outputs; ``None`` without a tokenizer."""
    tokenizer, size = model.text.tokenizer, model.runner.vocab_size
    return GrammarCompiler(lambda: Vocabulary.of(tokenizer, size)) if tokenizer is not None else None


def _info(name: str, model: LoadedModel, max_len: int) -> EngineInfo:
    return EngineInfo(
        model=name,
        architecture=model.architecture.name,
        backend=model.backend.name,
        device=str(model.backend.device),
        dtype=str(model.blueprint.dtype).removeprefix("torch."),
        quant=_quant(model.plan),
        capture=model.capture_note,
        max_model_len=max_len,
        load_s=model.seconds,
    )


def _quant(plan: ModelPlan) -> str | None:
    """The names of the schemes that quantize weights, the one that holds most bytes first."""
    held: Counter[str] = Counter()
    for part in (part for weight in plan.weights for part in weight.parts):
        if not isinstance(part.scheme, Dense):
            held[part.scheme.name] += part.nbytes
    return " ".join(name for name, _ in held.most_common()) or None
