# SPDX-License-Identifier: Apache-2.0
"""Building the batch of a decoding step from its record, to time and to hold against the host's. Legend: R rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from tramontane.batch import Ctx
from tramontane.cache.manager import CacheManager
from tramontane.cache.spec import CacheLayout, CacheSpec, plan_layout
from tramontane.prepare import BatchBuffers
from tramontane.requests import EngineRequest
from tramontane.sequence import Row, Sequence, StepPlan
from tramontane_backend_cuda.bench.cases import BLOCK, HALF, Bench, Case


def step_inputs(bench: Bench, rows: int, keys: int, longest: int) -> Iterator[Case]:
    """Rows that decode at ``keys`` tokens, of up to ``longest``."""
    fill = bench.backend.fill()
    if fill is None:
        return
    layout = plan_layout({"layer": CacheSpec(kv_heads=8, head_dim=128, dtype=HALF)}, BLOCK)
    plan = _plan(layout, rows, keys, longest)
    given: list[tuple[Any, ...]] = []

    def noted(*what: Any) -> None:
        given.append(what)
        fill(*what)

    previous_L = torch.arange(7, 7 + rows, device=bench.backend.device)
    batches = [
        BatchBuffers(
            layout, max_tokens=rows, max_rows=rows, max_outputs=rows, max_model_len=longest,
            device=bench.backend.device, mirror=True, fill=how,
        )
        for how in (noted, None)
    ]  # fmt: skip
    ours, theirs = (one.build(plan, previous_L, steady=True) for one in batches)
    width = -(-longest // BLOCK)
    yield Case(
        f"inputs R={rows} keys={keys} of {longest}",
        [partial(fill, *given[0])],
        rows * (4.0 * width + 4.0 * -(-keys // BLOCK) + 100.0),
        0.0,
        lambda: 0.0 if _equal(ours, theirs, -(-keys // BLOCK)) else 1.0,
    )


def _plan(layout: CacheLayout, rows: int, keys: int, longest: int) -> StepPlan:
    cache = CacheManager(layout, rows * -(-keys // BLOCK) + 1, max_seqs=rows, max_tokens=longest, prefix_cache=False)
    made = []
    for index in range(rows):
        tokens = [1] * (keys - 1)
        holding = cache.open(tokens)
        cache.admit(holding, cache.no_hit)
        cache.allocate(holding, keys)
        seq = Sequence(
            request=EngineRequest(id=str(index), prompt_token_ids=(1,)), index=0, tokens=tokens, prompt_len=1,
            limit=longest, stop_ids=frozenset(), order=(0, 0.0, 0, 0), cache=holding,
        )  # fmt: skip
        made.append(Row(seq, keys - 1, 1, samples=True, source=index))
    return StepPlan(0, made, rows, rows, rows, 0, cache.tables)


def _equal(ours: Ctx, theirs: Ctx, blocks: int) -> bool:
    """Whether a model reads the same of both."""
    names = ("ids_T", "positions_KT", "seq_of_T", "q_start", "kv_len_R", "out_rows_L", "counts")
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in names]
    for one, other in zip(ours.groups, theirs.groups, strict=True):
        pairs += [(one.slot_T, other.slot_T), (one.table_RB[:, :blocks], other.table_RB[:, :blocks])]
    return all(torch.equal(one, other) for one, other in pairs)
