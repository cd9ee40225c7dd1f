# SPDX-License-Identifier: Apache-2.0
"""A runner without a model that cannot be fooled: its next token depends on everything a real model would read.

Each token leaves one number in the pages of the cache, a hash of the token, its position and every number it can see
through the block tables. A table that points to the wrong page, a page given away too early, a prefix shared wrongly or
a token computed twice or never thus gives other tokens than :func:`expected`, which knows neither pages nor batches.

It keeps what a device would: a queue of steps that runs behind the host when ``behind`` is set, and the sampled ids
that a step launched ahead takes its input from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from attrs import define, evolve, field
from numpy.typing import NDArray

from tramontane.batch import Ctx
from tramontane.cache.spec import CacheLayout
from tramontane.engine.runner import StepResult
from tramontane.prepare import BatchBuffers
from tramontane.requests import EngineRequest, Task, TokenLogprobs
from tramontane.sequence import Row, Sequence, StepPlan

Numbers = NDArray[np.uint64]

_A, _B, _C, _ALL = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1
_WEIGHTS = (np.arange(1 << 16, dtype=np.uint64) + np.uint64(1)) * np.uint64(_B) | np.uint64(1)


def _mix(*parts: int) -> int:
    """A 64-bit hash of a few numbers."""
    state = _A
    for part in parts:
        state = (state ^ part) * _B & _ALL
        state = (state ^ state >> 29) * _C & _ALL
    return state ^ state >> 29


def _seen(group: int, values: Numbers) -> int:
    """What a query takes from the values it sees, oldest first."""
    return int((values * _WEIGHTS[group : group + len(values)]).sum(dtype=np.uint64))


def choose(value: int, vocab_size: int, index: int = 0, banned: Iterable[int] = ()) -> int:
    """The token "sampled" from a value by choice ``index`` of a request."""
    token, banned = _mix(value, index) % vocab_size, set(banned)
    while token in banned:
        token = (token + 1) % vocab_size
    return token


class History:
    """One sequence, computed alone from its tokens: the numbers a right cache would hold."""

    def __init__(self, layout: CacheLayout) -> None:
        self._layout = layout
        self._values = np.zeros(64, np.uint64)
        self._count = 0
        self._state = 0

    def value(self, tokens: list[int]) -> int:
        """The number of the last of ``tokens``; they must continue the tokens of earlier calls."""
        if len(tokens) > len(self._values):
            self._values.resize(2 * len(tokens), refcheck=False)
        for position in range(self._count, len(tokens)):
            parts = [
                _seen(index, self._values[min(group.first_needed(position), position) : position])
                for index, group in enumerate(self._layout.groups)
            ]
            if self._layout.state_layers:
                self._state = _mix(self._state, tokens[position])
                parts.append(self._state)
            self._values[position] = _mix(tokens[position], position, *parts)
        self._count = max(self._count, len(tokens))
        return int(self._values[len(tokens) - 1])


def expected(layout: CacheLayout, vocab_size: int, request: EngineRequest, max_len: int, index: int = 0) -> list[int]:
    """The output of a request, as it must be in any company.

    Args:
        layout: The mock's cache groups.
        vocab_size: The mock's vocabulary.
        request: What is asked.
        max_len: Most tokens of a sequence.
        index: Which of the choices.
    """
    sampling, history = request.sampling, History(layout)
    tokens, length = list(request.prompt_token_ids), len(request.prompt_token_ids)
    most = max_len if sampling.max_tokens is None else min(max_len, length + sampling.max_tokens)
    stop_ids = frozenset((*(() if sampling.ignore_eos else request.eos_token_ids), *sampling.stop_token_ids))
    while len(tokens) < most:
        banned = stop_ids if len(tokens) - length < sampling.min_tokens else frozenset()
        tokens.append(choose(history.value(tokens), vocab_size, index, banned))
        if tokens[-1] in stop_ids:
            break
    return tokens[length:]


@define(eq=False)
class MockPending:
    """A launched step of the mock."""

    runner: MockRunner
    plan: StepPlan
    outcome: StepResult | Exception | None = None

    def result(self) -> StepResult:
        """Let the device catch up with this step, and read it."""
        while self.outcome is None:
            self.runner.run_next()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@define(eq=False)
class MockRunner:
    """Implements :class:`tramontane.engine.runner.Runner`.

    Args:
        cache_layout: The cache groups to pretend to have.
        num_blocks: Pages, the null page included.
        max_model_len: Most tokens of a sequence.
        vocab_size: Ids are below this.
        behind: Run steps as late as possible: when they are read. Otherwise when they are launched.
        pad: Pad steps to a multiple of this many tokens.
        fail: Is asked with every plan; an exception it returns is the step's outcome.
        max_tokens: Most tokens of a step.
        max_rows: Most rows of a step.
        state_slots: Slots of recurrent state.
    """

    cache_layout: CacheLayout
    num_blocks: int
    max_model_len: int = 512
    vocab_size: int = 1000
    behind: bool = False
    pad: int = 1
    fail: Callable[[StepPlan], Exception | None] = field(default=lambda plan: None)
    max_tokens: int = 2048
    max_rows: int = 64
    state_slots: int = 256
    active: dict[int, Sequence] = field(factory=dict, init=False)
    """Slot -> the sequence that has it."""
    launched: int = field(default=0, init=False)
    computed_tokens: int = field(default=0, init=False)
    buffers: BatchBuffers = field(init=False)
    pages: Numbers = field(init=False)
    states: Numbers = field(init=False)
    sampled: torch.Tensor = field(factory=lambda: torch.zeros(0, dtype=torch.int64), init=False)
    _queue: list[tuple[MockPending, Ctx]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.buffers = BatchBuffers(
            self.cache_layout,
            max_tokens=self.max_tokens + self.pad,
            max_rows=self.max_rows,
            max_outputs=self.max_tokens,
            max_model_len=self.max_model_len,
        )
        # What was never written is not zero: reading it must show.
        noise = np.random.default_rng(0)
        width = max((group.block_tokens for group in self.cache_layout.groups), default=1)
        self.pages = noise.integers(0, 2**63, (self.num_blocks, width), dtype=np.uint64)
        self.states = noise.integers(0, 2**63, self.state_slots, dtype=np.uint64)

    def started(self, sequence: Sequence) -> None:
        """Take note of a sequence's slot."""
        if sequence.slot in self.active or sequence.in_flight:
            raise AssertionError(f"slot {sequence.slot} is taken, or {sequence.in_flight} steps in flight use it")
        self.active[sequence.slot] = sequence

    def check(self, request: EngineRequest) -> None:
        """Everything can be served."""

    def dropped(self, sequence: Sequence) -> None:
        """Forget a sequence's slot."""
        if self.active.pop(sequence.slot, None) is not sequence or sequence.in_flight:
            raise AssertionError(f"slot {sequence.slot} was not this sequence's, or a step in flight uses it")

    def launch(self, plan: StepPlan) -> MockPending:
        """Build the batch; run it now, or when it is read."""
        if any(self.active.get(row.seq.slot) is not row.seq for row in plan.rows):
            raise AssertionError("the plan has a row of a sequence that was not started")
        self.launched += 1
        self.computed_tokens += plan.tokens
        pending = MockPending(self, plan)
        padded = -(-plan.tokens // self.pad) * self.pad
        ctx = self.buffers.build(plan, None if self.behind else self.sampled, pad_tokens=padded)
        self._queue.append((pending, _copy(ctx)))
        if not self.behind:
            self.run_next()
        return pending

    def run_next(self) -> None:
        """Run the oldest step that waits."""
        pending, ctx = self._queue.pop(0)
        pending.outcome = self.fail(pending.plan) or self._run(pending.plan, ctx)

    def _run(self, plan: StepPlan, ctx: Ctx) -> StepResult:
        if self.behind:
            for row, end in zip(plan.rows, ctx.q_start[1:].tolist(), strict=False):
                if row.source >= 0:
                    ctx.ids_T[end - 1] = self.sampled[row.source]
        for source, target in plan.state_loads:
            self.states[target] = self.states[source]
        result = StepResult([])
        for index, row in enumerate(plan.rows):
            self._run_row(index, row, ctx, result)
        for source, target in plan.state_saves:
            self.states[target] = self.states[source]
        if plan.samples:
            self.sampled = torch.tensor(result.token_ids)
        return result

    def _run_row(self, index: int, row: Row, ctx: Ctx, result: StepResult) -> None:
        start, end = int(ctx.q_start[index]), int(ctx.q_start[index + 1])
        values = [self._token(index, token, ctx) for token in range(start, end)]
        seq, request = row.seq, row.seq.request
        if row.samples:
            made = row.start + row.count - seq.prompt_len
            banned = seq.stop_ids if made < request.sampling.min_tokens else ()
            token = choose(values[-1], self.vocab_size, seq.index, banned)
            if request.sampling.logprobs is not None:
                result.logprobs[len(result.token_ids)] = logprob(values[-1], token)
            result.token_ids.append(token)
        if row.all_outputs and request.task is Task.LOGITS:
            result.outputs[index] = np.array([logits(value, self.vocab_size) for value in values])
        elif row.all_outputs and request.task is Task.EMBED:
            result.outputs[index] = logits(values[-1], 4)
        elif row.all_outputs:
            result.prompt_logprobs[index] = [logprob(v, t) for v, t in zip(values, row.targets, strict=False)]

    def _token(self, row: int, token: int, ctx: Ctx) -> int:
        """Compute one token: read what it sees through the row's tables, write where its slot says."""
        position, identity = int(ctx.positions_KT[0, token]), int(ctx.ids_T[token])
        if int(ctx.seq_of_T[token]) != row or position >= int(ctx.kv_len_R[row]):
            raise AssertionError(f"token {token} of row {row} is misplaced")
        parts = []
        for index, group in enumerate(self.cache_layout.groups):
            pages = ctx.groups[index].table_RB[row].numpy()
            seen = np.arange(min(group.first_needed(position), position), position)
            where = pages[seen // group.block_tokens]
            lists = ctx.host.tables[index][row] if ctx.host else pages.tolist()
            if [lists[place] for place in (seen // group.block_tokens).tolist()] != where.tolist():
                raise AssertionError("the host's block lists changed under a step in flight")
            parts.append(_seen(index, self.pages[where, seen % group.block_tokens]))
        if ctx.state_slot_R is not None and ctx.state_fresh_R is not None:
            slot = int(ctx.state_slot_R[row])
            fresh = bool(ctx.state_fresh_R[row]) and token == int(ctx.q_start[row])
            self.states[slot] = _mix(0 if fresh else int(self.states[slot]), identity)
            parts.append(int(self.states[slot]))
        value = _mix(identity, position, *parts)
        for group, ctx_group in zip(self.cache_layout.groups, ctx.groups, strict=True):
            page, offset = divmod(int(ctx_group.slot_T[token]), group.block_tokens)
            self.pages[page, offset] = value
        return value


def logits(value: int, size: int) -> NDArray[np.float32]:
    """The mock's output for a token."""
    return np.array([_mix(value, i) % 1000 for i in range(size)], np.float32)


def logprob(value: int, token: int) -> TokenLogprobs:
    """The mock's log-probability of a token."""
    return TokenLogprobs(token_id=token, logprob=-(_mix(value, token) % 1000) / 100, rank=1)


def _copy(ctx: Ctx) -> Ctx:
    """What a copy to a device keeps of a batch; the host's lists stay the live ones."""
    groups = [evolve(group, table_RB=group.table_RB.clone(), slot_T=group.slot_T.clone()) for group in ctx.groups]
    tensors = {
        name: value.clone()
        for name in ("ids_T", "positions_KT", "seq_of_T", "q_start", "kv_len_R", "state_slot_R", "state_fresh_R")
        if (value := getattr(ctx, name)) is not None
    }
    return evolve(ctx, groups=groups, **tensors)
