# SPDX-License-Identifier: Apache-2.0
"""One sequence on its way through the engine, and the plan of one step. State and records, no policy."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from tramontane.cache.manager import Holding
from tramontane.requests import EngineRequest, Task

if TYPE_CHECKING:
    from tramontane.grammar.compiler import Compiled


NO_ADAPTER = -1
"""Column of a sequence that uses none."""


class Status(IntEnum):
    """Where a sequence is. A sequence that left may still have a row in a step in flight."""

    HELD = 0
    """A further choice of a request: waits until the first one has computed the prompt, to share its blocks."""
    WAITING = 1
    RUNNING = 2
    PREEMPTED = 3
    """Gave up its blocks; waits again as soon as no step in flight touches them."""
    FINISHED = 4


@define(eq=False, kw_only=True)
class Sequence:
    """One choice of one request."""

    request: EngineRequest
    index: int
    """Which of the request's ``n`` choices."""
    tokens: list[int]
    """Prompt and output as far as the host has read them."""
    prompt_len: int
    limit: int
    """Most tokens, prompt included; the last of them is never computed."""
    stop_ids: frozenset[int]
    order: tuple[int, float, int, int]
    """Rank: priority (higher first), arrival, admission order, index."""
    cache: Holding
    """Its blocks; shares ``tokens``."""
    wants_all: bool = False
    """Every prompt token's output is wanted (logits, embeddings, prompt log-probabilities): no prefix hit then."""
    status: Status = Status.WAITING
    computed: int = 0
    """Tokens launched: their keys and values are in the cache once the steps in flight are done."""
    pending: int = 0
    """Sampled tokens that the host has not read: at most 1 when a step is planned."""
    source: int = -1
    """Sample index of the pending token in the step before the one that is planned."""
    in_flight: int = 0
    """Launched steps, not retired, that have a row of this sequence."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache when it was first admitted."""
    preemptions: int = 0
    collected: list[Any] = field(factory=list)
    """Outputs of a task, or prompt log-probabilities, gathered over chunks."""
    held: list[Sequence] = field(factory=list)
    """The request's further choices, while they wait for this one to compute the prompt."""
    answered: bool = False
    """A delta was sent."""
    grammar: Compiled | None = None
    """What the output must match."""
    adapter: int = NO_ADAPTER
    """Column of its adapter in the mix of batches."""

    @property
    def slot(self) -> int:
        """Row in per-sequence storage (tables, sampler state, recurrent state - 1); -1 while it holds none."""
        return self.cache.slot

    @property
    def generates(self) -> bool:
        """Whether tokens are to be sampled."""
        return self.request.task is Task.GENERATE


@define(eq=False)
class Row:
    """One sequence's share of a step: tokens ``start`` to ``start + count`` of ``seq``."""

    seq: Sequence
    start: int
    count: int
    samples: bool
    """The last token's output is sampled from."""
    all_outputs: bool = False
    """Every token's output is wanted, not the last one's only."""
    source: int = -1
    """If not negative, the row's last token is unknown on the host: sample ``source`` of the previous step."""

    @property
    def targets(self) -> list[int]:
        """The prompt tokens that follow the row's tokens (one fewer where the row ends the prompt)."""
        seq = self.seq
        return seq.tokens[self.start + 1 : min(self.start + self.count + 1, seq.prompt_len)]


@define(eq=False)
class StepPlan:
    """What one step computes. Decoding rows come first, then prompt chunks."""

    serial: int
    rows: list[Row]
    tokens: int
    """T: tokens of all rows."""
    samples: int
    """Rows that sample."""
    outputs: int
    """L: tokens whose hidden state goes through the head. Row by row, in the order of ``rows``."""
    prompt_tokens: int
    """Tokens of rows that are still reading their prompt (or recomputing)."""
    tables: list[NDArray[np.int32]]
    """Per cache group the persistent block table [slot, block]; row ``seq.slot`` belongs to ``seq``."""
    state_loads: list[tuple[int, int]] = field(factory=list)
    """(from, to) state slots copied before the forward pass: prefix hits of recurrent layers."""
    state_saves: list[tuple[int, int]] = field(factory=list)
    """(from, to) state slots copied after the forward pass: snapshots at block boundaries."""

    def sampled_outputs(self) -> list[int]:
        """For each sampling row, which of the L outputs is sampled from."""
        places, end = [], 0
        for row in self.rows:
            end += row.count if row.all_outputs else int(row.samples)
            if row.samples:
                places.append(end - 1)
        return places
