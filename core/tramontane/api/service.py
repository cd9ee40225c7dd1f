# SPDX-License-Identifier: Apache-2.0
"""A loaded model and its engine in a thread: what ``LLM`` and ``AsyncLLM`` are two faces of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from attrs import define, field

from tramontane.api.adapters import Adapters
from tramontane.api.answers import Answers
from tramontane.api.collect import RequestOutput
from tramontane.api.request_maker import RequestMaker
from tramontane.api.settings import load_options
from tramontane.grammar.compiler import GrammarCompiler
from tramontane.grammar.vocabulary import Vocabulary
from tramontane.records import EngineInfo, RequestSummary
from tramontane.schemes import Dense

if TYPE_CHECKING:
    from tramontane.build import ModelPlan
    from tramontane.engine import EngineStats, EngineThread
    from tramontane.engine.sinks import Sink
    from tramontane.load import LoadedModel
    from tramontane.plugins import Observers, Plugins
    from tramontane.progress import Progress


@define(eq=False)
class Service:
    """One running model. Every method may be called from any thread."""

    model: LoadedModel
    observers: Observers
    name: str
    """What the model is called in messages and to observers."""
    engine: EngineThread = field(init=False)
    grammars: GrammarCompiler | None = field(init=False)
    adapters: Adapters = field(init=False)
    maker: RequestMaker = field(init=False)
    info: EngineInfo = field(init=False)
    _exchanging: Lock = field(factory=Lock, init=False, repr=False)
    """One exchange of weights at a time."""

    def __attrs_post_init__(self) -> None:
        from tramontane.engine import EngineCore, EngineThread

        self.grammars = _grammars(self.model)
        self.engine = EngineThread(EngineCore(self.model.runner, self.model.engine, self.grammars))
        self.adapters = Adapters(self.model, self.engine)
        ended = partial(_tell, self.observers, self.name)
        self.maker = RequestMaker.of(self.name, self.model, self.engine.max_len, self.engine.abort, ended)
        self.info = _info(self.name, self.model, self.engine.max_len)
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
        return cls(model, plugins.observers, name or reference)

    def submit(self, answers: Answers, sink: Sink) -> None:
        """Hand a call's requests to the engine; their deltas go to ``sink``.

        Raises:
            RequestError: The engine can never run one of them; the others are ended.
            EngineClosedError: The engine is closed.
        """
        try:
            for output in answers.outputs:
                self.engine.submit(output.request, sink)
        except BaseException:
            self.forget(answers)
            raise

    def forget(self, answers: Answers) -> None:
        """Nobody reads these answers any more: end what still runs, so that its cache blocks are free."""
        for request_id in answers.open_ids:
            self.engine.abort(request_id)

    def requantize(
        self, settings: Mapping[str, Any], *, from_memory: bool = False, progress: Progress | None = None
    ) -> None:
        """Bring the weights into other types between two steps; see :meth:`tramontane.LLM.requantize`."""
        from tramontane.load import exchange_weights, plan_exchange

        with self._exchanging:
            exchange = plan_exchange(self.model, load_options(settings), from_memory=from_memory, progress=progress)
            change = partial(exchange_weights, self.model, exchange, progress)
            try:
                self.engine.call(lambda core: core.exchange(change)).result()
            finally:
                self.info = _info(self.name, self.model, self.engine.max_len)

    def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""
        return self.engine.stats()

    def close(self) -> None:
        """Stop the engine; calls that wait end with ``EngineClosedError``. Closing twice is fine."""
        if not self.engine.closed:
            self.engine.close()
            if self.grammars is not None:
                self.grammars.close()
            self.model.close()
            self.observers.engine_stopped(self.info)

    def __del__(self) -> None:
        """A model that nobody holds any more, by a face or by a running call, is stopped."""
        if hasattr(self, "engine"):
            self.close()


def _grammars(model: LoadedModel) -> GrammarCompiler | None:
    """What compiles the grammars of a model's outputs; ``None`` without a tokenizer."""
    tokenizer, size = model.tokenizer, model.runner.vocab_size
    return GrammarCompiler(lambda: Vocabulary.of(tokenizer, size)) if tokenizer is not None else None


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


def _info(name: str, model: LoadedModel, max_len: int) -> EngineInfo:
    return EngineInfo(
        model=name,
        architecture=model.architecture.name,
        backend=model.backend.name,
        device=str(model.backend.device),
        dtype=str(model.blueprint.dtype).removeprefix("torch."),
        quant=_quant(model.plan),
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
