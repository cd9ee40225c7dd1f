# SPDX-License-Identifier: Apache-2.0
"""The model runner: executes the steps that the scheduler plans.

It builds the batch, runs the body (embedding to the last hidden states; captured, or eagerly), applies the head in
slices, samples, and collects what tasks asked for. It never decides which tokens run.

Legend: T tokens, L logit rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from attrs import define, field
from torch import Tensor

from tramontane.adapters import AdapterTable
from tramontane.backends.base import Runnable
from tramontane.batch import Ctx
from tramontane.cache.spec import CacheLayout
from tramontane.engine.runner import StepResult
from tramontane.errors import RequestError
from tramontane.grammar.matching import Matching
from tramontane.ops import BoundOp
from tramontane.prepare import BatchBuffers
from tramontane.requests import EngineRequest, Task, TokenLogprobs
from tramontane.sampler import Sampler
from tramontane.sequence import Row, StepPlan
from tramontane.sequence import Sequence as Running
from tramontane.states import StateStore

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


@define
class Done:
    """A step that is already done: on a host device ``launch`` computes before it returns."""

    step: StepResult

    def result(self) -> StepResult:
        """The result."""
        return self.step


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
    matching: Matching = field(init=False)
    _salt: bytes = field(factory=lambda: os.urandom(16), init=False, repr=False)
    _previous: Tensor | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.matching = Matching(self.vocab_size)

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
    def launch(self, plan: StepPlan) -> Done:
        """Run one step."""
        ctx = self.buffers.build(plan, self._previous)
        if self.states is not None:
            self.states.copy(plan.state_loads)
        hidden_LD = self.hidden(ctx)
        if self.states is not None:
            self.states.copy(plan.state_saves)
        return Done(self._finish(plan, hidden_LD))

    def hidden(self, ctx: Ctx) -> Tensor:
        """The hidden states that go through the head: [L, D]. Valid until the next call."""
        program = self.program if ctx.mix_TA is None else self.adapted
        return self.body(ctx) if program is None else program.run(ctx)[0]

    def body(self, ctx: Ctx) -> Tensor:
        """What is captured."""
        return run_body(self.model, self.take, ctx)

    def _finish(self, plan: StepPlan, hidden_LD: Tensor) -> StepResult:
        result = StepResult([])
        if plan.samples < plan.outputs:
            for index, row, span in _spans(plan.rows):
                if row.all_outputs:
                    self._collect(result, index, row, hidden_LD[span])
        if plan.samples:
            picked = hidden_LD if plan.samples == plan.outputs else hidden_LD[plan.sampled_outputs()]
            self._sample(plan, picked, result)
        return result

    def _sample(self, plan: StepPlan, hidden_LD: Tensor, result: StepResult) -> None:
        rows = [row for row in plan.rows if row.samples]
        logits_LV = self.model.head(hidden_LD)
        slots = [row.seq.slot for row in rows]
        positions = [row.start + row.count for row in rows]
        held = bool(self.matching)  # without a constrained sequence nothing is looked up row by row
        if held:
            for slot, ids in self.matching.undrawn(slots, positions).items():
                self.sampler.extend(slot, ids)
        masks, certain = self.matching.masks(slots, positions) if held else ({}, {})
        sampled = self.sampler.sample(logits_LV, slots, positions, masks, certain)
        self._previous = sampled.tokens
        result.token_ids = sampled.tokens.tolist()
        result.logprobs = sampled.logprobs
        result.faults = {row: str(fault) for row, fault in sampled.faults.items()}
        if held:
            taken = self.matching.take(slots, positions, result.token_ids)
            result.forced, result.ended = taken.forced, taken.ended
            result.faults |= taken.faults

    def _collect(self, result: StepResult, index: int, row: Row, hidden_LD: Tensor) -> None:
        """What logits, embedding and prompt-log-probability requests want of one row."""
        task = row.seq.request.task
        if task is Task.EMBED:
            if row.start + row.count >= row.seq.prompt_len:
                result.outputs[index] = hidden_LD[-1].float().cpu().numpy().copy()
        elif task is Task.LOGITS:
            pieces = [self.model.head(part).float().cpu().numpy().copy() for part in hidden_LD.split(HEAD_ROWS)]
            result.outputs[index] = np.concatenate(pieces)
        elif row.targets:
            result.prompt_logprobs[index] = self._prompt_logprobs(row, hidden_LD)

    def _prompt_logprobs(self, row: Row, hidden_LD: Tensor) -> list[TokenLogprobs]:
        targets = row.targets
        found: list[TokenLogprobs] = []
        top = row.seq.request.sampling.prompt_logprobs or 0
        for start in range(0, len(targets), HEAD_ROWS):
            part = targets[start : start + HEAD_ROWS]
            logits_LV = self.model.head(hidden_LD[start : start + len(part)])
            found += self.sampler.prompt_logprobs(logits_LV, part, top)
        return found


def _spans(rows: Sequence[Row]) -> Iterator[tuple[int, Row, slice]]:
    """Each row with its range among the L outputs."""
    end = 0
    for index, row in enumerate(rows):
        start, end = end, end + (row.count if row.all_outputs else int(row.samples))
        yield index, row, slice(start, end)
