# SPDX-License-Identifier: Apache-2.0
"""The model runner: executes the steps that the scheduler plans.

It builds the batch, runs the body (embedding to the last hidden states; captured, or eagerly), applies the head in
slices, samples, and collects what tasks asked for. It never decides which tokens run. Where several workers share the
model it is the first one's, and tells the others of each step.

Legend: T tokens, L logit rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from attrs import define, field
from torch import Tensor

from tramontane.adapters import AdapterTable
from tramontane.backends.base import Padding, Replays, Runnable
from tramontane.batch import Ctx
from tramontane.cache.spec import CacheLayout
from tramontane.distributed.share import Share
from tramontane.engine.runner import StepResult
from tramontane.errors import RequestError
from tramontane.grammar.matching import Matching
from tramontane.ops import BoundOp
from tramontane.prepare import BatchBuffers
from tramontane.requests import EngineRequest, Task, TokenLogprobs
from tramontane.ring import Outbox
from tramontane.sampler import Sampler
from tramontane.sampler.result import Coming
from tramontane.sampler.steady import SteadyDraw
from tramontane.sequence import NO_ADAPTER, Row, StepPlan
from tramontane.sequence import Sequence as Running
from tramontane.states import StateStore

if TYPE_CHECKING:
    from tramontane.distributed.team import Team

HEAD_ROWS = 64
"""Rows of logits made at a time where more than samples are wanted: bounds memory at 128k-word vocabularies."""


class Model(Protocol):
    """What an architecture's ``model`` is: token ids to hidden states to logits, in three separable pieces."""

    def embed(self, ctx: Ctx) -> Tensor:
        """Input embeddings [T, D]."""
        ...

    def forward(self, x_TD: Tensor, ctx: Ctx) -> Tensor:
        """Hidden states [T, D] after the final norm."""
        ...

    def head(self, h_LD: Tensor) -> Tensor:
        """Logits, float32 [L, V]."""
        ...


def run_body(model: Model, take: BoundOp, ctx: Ctx) -> Tensor:
    """From token ids to the hidden states that go through the head, with adapters where the batch has a mix of them."""
    runtime = take.runtime
    runtime.adapting = None if ctx.mix_TA is None else ctx
    try:
        h_TD = model.forward(model.embed(ctx), ctx)
        h_LD: Tensor = take(h_TD, ctx.out_rows_L, ctx=ctx)
        return h_LD
    finally:
        runtime.adapting = None


@define(eq=False)
class Flight:
    """A launched step; its draws may still be on their way."""

    matching: Matching
    step: StepResult
    coming: Coming | None = None
    held: tuple[list[int], list[int]] | None = None
    """Slots and positions of the draws, where grammars have to be told of them."""

    def result(self) -> StepResult:
        """Wait for the step and read it."""
        self.settle()
        return self.step

    def settle(self) -> None:
        """Read the draws, once, and let grammars go on from them."""
        if self.coming is None:
            return
        coming, self.coming = self.coming, None
        sampled, step = coming.wait(), self.step
        step.token_ids = sampled.tokens.tolist()
        step.logprobs = sampled.logprobs
        step.faults = {row: str(fault) for row, fault in sampled.faults.items()}
        if self.held is not None:
            taken = self.matching.take(*self.held, step.token_ids)
            step.forced, step.ended = taken.forced, taken.ended
            step.faults |= taken.faults


@define(eq=False)
class ModelRunner:
    """Runs one model on one device. Implements :class:`tramontane.engine.runner.Runner`."""

    model: Model
    take: BoundOp
    buffers: BatchBuffers
    sampler: Sampler
    cache_layout: CacheLayout
    num_blocks: int
    max_model_len: int
    vocab_size: int
    eos_ids: frozenset[int] = frozenset()
    states: StateStore | None = None
    program: Runnable | None = None
    """The captured body; ``None`` runs the model's own code."""
    adapters: AdapterTable | None = None
    adapted: Runnable | None = None
    """The captured body of batches whose tokens use adapters."""
    share: Share = field(factory=Share)
    team: Team | None = None
    """The other workers, where this is the first of several."""
    replays: Replays | None = None
    """Records and replays padded steps, where the device gains by it."""
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Around each step: the current device is the runner's."""
    matching: Matching = field(init=False)
    outbox: Outbox = field(init=False)
    _salt: bytes = field(factory=lambda: os.urandom(16), init=False, repr=False)
    _previous: Tensor | None = field(default=None, init=False, repr=False)
    _last: Flight | None = field(default=None, init=False, repr=False)
    _draws: SteadyDraw | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.matching = Matching(self.vocab_size)
        self.outbox = Outbox(self.sampler.device)

    @property
    def draws(self) -> SteadyDraw:
        """Draws at fixed addresses; made when the first step is padded."""
        if self._draws is None:
            padding = Padding((), 0) if self.replays is None else self.replays.padding
            self._draws = SteadyDraw(
                padding.rows + 1, self.vocab_size, self.sampler.device, self.sampler.draw, padding.any_draw
            )
        return self._draws

    def check(self, request: EngineRequest) -> None:
        """Refuse a request whose adapter is not loaded.

        Raises:
            RequestError: It is not.
        """
        if request.adapter is None:
            return
        if self.adapters is None:
            raise RequestError(f"this model has no adapters, and the request uses {request.adapter.name!r}")
        self.adapters.check(request.adapter)

    def started(self, sequence: Running) -> None:
        """Set up the state of sampler and grammar for a sequence."""
        if sequence.generates:
            request = sequence.request
            self.sampler.start(
                sequence.slot, sequence.tokens[: sequence.prompt_len], request.sampling,
                seed=self._seed(request), index=sequence.index,
                output_ids=sequence.tokens[sequence.prompt_len :], eos_ids=request.eos_token_ids,
            )  # fmt: skip
            if sequence.grammar is not None:
                self.matching.start(sequence.slot, sequence.grammar, sequence)

    def _seed(self, request: EngineRequest) -> int:
        """The request's seed, or one of its own that is the same whenever the request begins again."""
        if request.sampling.seed is not None:
            return request.sampling.seed
        digest = hashlib.blake2b(request.id.encode(), key=self._salt, digest_size=8).digest()
        return int.from_bytes(digest, "little")

    def dropped(self, sequence: Running) -> None:
        """Forget a sequence."""
        if sequence.generates:
            self.sampler.drop(sequence.slot)
            self.matching.drop(sequence.slot)

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> Flight:
        """Start one step; on the host it is done when this returns."""
        with self.guard():
            padded = None if self.replays is None else self._padded(plan)
            flight = self._launch(plan) if padded is None else self._launch_padded(plan, padded)
            if self.outbox.immediate:
                flight.settle()
            else:
                self._last = flight
        return flight

    def _launch(self, plan: StepPlan) -> Flight:
        """By the program, or by the model's own code."""
        ctx = self.buffers.build(plan, self._previous)
        with self._together():
            self._announce(plan, ctx)
            hidden_LD = self.forward(ctx, plan.state_loads, plan.state_saves)
        result = StepResult([])
        if plan.samples < plan.outputs:
            for index, row, span in _spans(plan.rows):
                if row.all_outputs:
                    self._collect(result, index, row, hidden_LD, span)
        if not plan.samples:
            return Flight(self.matching, result)
        picked = None if plan.samples == plan.outputs else plan.sampled_outputs()
        return self._sample(plan, self._head(hidden_LD, picked), result)

    def _padded(self, plan: StepPlan) -> tuple[int, int, int] | None:
        """Sizes to pad a step to that may be replayed; ``None`` for steps that want more than samples, or adapters."""
        if self.replays is None or plan.samples != plan.outputs:
            return None
        if any(row.seq.adapter != NO_ADAPTER for row in plan.rows):
            return None
        return self.replays.padding.of(plan.tokens, plan.outputs)

    def _launch_padded(self, plan: StepPlan, size: tuple[int, int, int]) -> Flight:
        """Padded to one of few sizes, so that the step before of that size can be replayed; with its draws, where they
        need nothing of the host."""
        tokens, rows, outputs = size
        ctx = self.buffers.build(
            plan, self._previous, pad_tokens=tokens, pad_rows=rows, pad_outputs=outputs, steady=True
        )
        sampling = [row for row in plan.rows if row.samples]
        keys = [row.seq.slot for row in sampling]
        steady = self.sampler.steady(keys) if keys and not self.matching else None
        with self._together():
            self._announce(plan, ctx)
            if steady is None:
                hidden_LD = self.forward(ctx, plan.state_loads, plan.state_saves)
        if steady is None:
            if not keys:
                return Flight(self.matching, StepResult([]))
            return self._sample(plan, self._head(hidden_LD)[: plan.samples], StepResult([]))
        recipe = self.draws.load(steady, [row.start + row.count for row in sampling])

        def work() -> tuple[Tensor, ...]:
            return self.draws.draw(self.model.head(self.hidden(ctx)), recipe)

        with self._together():
            if self.team is not None:
                self.team.tell({"head": None})
            tokens_L, peak_L = self._replayed((tokens, recipe), work, plan.state_loads, plan.state_saves)
        # Copies: the next replay writes the same memory, perhaps before these have arrived on the host.
        sampled = self.sampler.took(steady, tokens_L[: plan.samples].clone(), peak_L[: plan.samples].clone())
        self._previous = sampled.tokens
        return Flight(self.matching, StepResult([]), sampled.send(self.outbox))

    def _replayed(
        self,
        key: Hashable,
        work: Callable[[], tuple[Tensor, ...]],
        loads: Sequence[tuple[int, int]],
        saves: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, ...]:
        """Work between the copies of recurrent states, recorded and replayed where that can be."""
        if self.states is not None:
            self.states.copy(loads)
        results = work() if self.replays is None else self.replays.run(key, work)
        if self.states is not None:
            self.states.copy(saves)
        return results

    def forward(self, ctx: Ctx, loads: Sequence[tuple[int, int]], saves: Sequence[tuple[int, int]]) -> Tensor:
        """The hidden states of a step, between the copies of recurrent states that it asks for."""
        if ctx.host is None:
            return self._replayed(ctx.tokens, lambda: (self.hidden(ctx),), loads, saves)[0]
        if self.states is not None:
            self.states.copy(loads)
        hidden_LD = self.hidden(ctx)
        if self.states is not None:
            self.states.copy(saves)
        return hidden_LD

    def _announce(self, plan: StepPlan, ctx: Ctx) -> None:
        """Let the other workers run the same step."""
        if self.team is not None:
            order = {"step": self.buffers.extents(ctx), "loads": plan.state_loads, "saves": plan.state_saves}
            self.team.tell(order)
            self.buffers.send(self.share.group, ctx)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Around what all workers do: where it fails, they are no longer at the same place."""
        try:
            yield
        except Exception as error:
            if self.team is not None:
                self.team.lose(f"an earlier step failed between the workers: {error}")
            raise

    def _head(self, hidden_LD: Tensor, rows: list[int] | None = None) -> Tensor:
        """Logits of some hidden states, or of all."""
        with self._together():
            if self.team is not None:
                self.team.tell({"head": rows})
            return self.model.head(hidden_LD if rows is None else hidden_LD[rows])

    def hidden(self, ctx: Ctx) -> Tensor:
        """The hidden states that go through the head: [L, D]. Valid until the next call."""
        program = self.program if ctx.mix_TA is None else self.adapted
        return self.body(ctx) if program is None else program.run(ctx)[0]

    def body(self, ctx: Ctx) -> Tensor:
        """What is captured."""
        return run_body(self.model, self.take, ctx)

    def _sample(self, plan: StepPlan, logits_LV: Tensor, result: StepResult) -> Flight:
        rows = [row for row in plan.rows if row.samples]
        slots = [row.seq.slot for row in rows]
        positions = [row.start + row.count for row in rows]
        held = bool(self.matching)  # without a constrained sequence nothing is looked up row by row
        if held:
            if self._last is not None:
                self._last.settle()  # what a grammar allows next depends on what was drawn last
            for slot, ids in self.matching.undrawn(slots, positions).items():
                self.sampler.extend(slot, ids)
        masks, certain = self.matching.masks(slots, positions) if held else ({}, {})
        sampled = self.sampler.sample(logits_LV, slots, positions, masks, certain)
        self._previous = sampled.tokens
        return Flight(self.matching, result, sampled.send(self.outbox), (slots, positions) if held else None)

    def _collect(self, result: StepResult, index: int, row: Row, hidden_LD: Tensor, span: range) -> None:
        """What logits, embedding and prompt-log-probability requests want of one row, whose outputs are ``span``."""
        task = row.seq.request.task
        if task is Task.EMBED:
            if row.start + row.count >= row.seq.prompt_len:
                result.outputs[index] = hidden_LD[span[-1]].float().cpu().numpy().copy()
        elif task is Task.LOGITS:
            parts = (span[start : start + HEAD_ROWS] for start in range(0, len(span), HEAD_ROWS))
            pieces = [self._head(hidden_LD, list(part)).float().cpu().numpy().copy() for part in parts]
            result.outputs[index] = np.concatenate(pieces)
        elif row.targets:
            result.prompt_logprobs[index] = self._prompt_logprobs(row, hidden_LD, span)

    def _prompt_logprobs(self, row: Row, hidden_LD: Tensor, span: range) -> list[TokenLogprobs]:
        targets = row.targets
        found: list[TokenLogprobs] = []
        top = row.seq.request.sampling.prompt_logprobs or 0
        for start in range(0, len(targets), HEAD_ROWS):
            part = targets[start : start + HEAD_ROWS]
            logits_LV = self._head(hidden_LD, list(span[start : start + len(part)]))
            found += self.sampler.prompt_logprobs(logits_LV, part, top)
        return found


def _spans(rows: Sequence[Row]) -> Iterator[tuple[int, Row, range]]:
    """Each row with its range among the L outputs."""
    end = 0
    for index, row in enumerate(rows):
        start, end = end, end + (row.count if row.all_outputs else int(row.samples))
        yield index, row, range(start, end)
