# SPDX-License-Identifier: Apache-2.0
"""From a model to a lowered program: record twice, unify, rewrite, lower.

The recorded batches are synthetic and write to the null block only, so capturing changes nothing that a sequence owns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.backends.base import Backend, Runnable
from tramontane.batch import Ctx, GroupCtx, HostRows
from tramontane.errors import PlanError
from tramontane.ops import BoundOp, Op, Runtime
from tramontane.tape.ir import Tape
from tramontane.tape.record import Recorder
from tramontane.tape.rules import Rule, apply_rules
from tramontane.tape.symbols import Extent, unify

Body = Callable[[Ctx], Tensor]
"""What is captured: a step's batch -> the hidden states that go through the head."""

#: Sizes of the two recordings: primes, and no two numbers of one recording equal.
_EXTENTS = (Extent(tokens=11, outputs=5), Extent(tokens=23, outputs=7))
_ROWS = (2, 3)


def record(
    body: Body, runtime: Runtime, block_tokens: Sequence[int], *, states: bool = False, columns: int = 0
) -> Tape:
    """The symbolic tape of ``body``; ``block_tokens`` per cache group.

    Raises:
        CaptureRefused: The body cannot be replayed; the message says why.
    """
    tapes = []
    for extent, rows in zip(_EXTENTS, _ROWS, strict=True):
        ctx = synthetic_batch(extent, rows, block_tokens, runtime.device, states=states, columns=columns)
        ctx.positions_KT.zero_()  # tables may be shorter than these batches
        with Recorder(runtime, ctx) as recorder:
            result = body(ctx)
        tapes.append(recorder.finish(result))
    return unify(tapes[0], tapes[1], *_EXTENTS)


def capture(
    body: Body,
    runtime: Runtime,
    backend: Backend,
    block_tokens: Sequence[int],
    *,
    max_tokens: int,
    max_outputs: int,
    candidates: Callable[[Op], Sequence[tuple[str, Any]]],
    states: bool = False,
    columns: int = 0,
) -> tuple[Tape, Runnable]:
    """Record, rewrite and lower ``body``.

    Args:
        body: What to capture.
        runtime: The runtime that the model's ops share.
        backend: Brings rules and lowers.
        block_tokens: Tokens per block of each cache group.
        max_tokens: Largest T of a step.
        max_outputs: Largest L of a step.
        candidates: Kernels for an op, for binding fused ones.
        states: The model keeps recurrent states.
        columns: Those of the mix, where tokens use adapters.
    """
    tape = record(body, runtime, block_tokens, states=states, columns=columns)
    apply_rules(tape, _fuser(candidates), _rules(backend))
    return tape, backend.lower(tape, max_tokens, max_outputs)


def _rules(backend: Backend) -> Sequence[Rule]:
    return backend.rules


def _fuser(candidates: Callable[[Op], Sequence[tuple[str, Any]]]) -> Any:
    def fuse(op: Op, weights: Sequence[Any], like: BoundOp) -> BoundOp | None:
        made = BoundOp(op, tuple(weights), like.runtime, path=like.path)
        better = [(name, make) for name, make in candidates(op) if name != "reference"]
        try:
            made.bind(better)
        except PlanError:
            return None  # no kernel takes the fused op, so the sequence stays: that is not a fault
        return made

    return fuse


def synthetic_batch(
    extent: Extent,
    rows: int,
    block_tokens: Sequence[int],
    device: torch.device,
    *,
    states: bool = False,
    columns: int = 0,
) -> Ctx:
    """A batch of ``rows`` fresh sequences that own nothing but the null block."""
    tokens = extent.tokens
    starts = [round(i * tokens / rows) for i in range(rows + 1)]
    lengths = [b - a for a, b in itertools.pairwise(starts)]
    blocks = [max(-(-n // size) for n in lengths) for size in block_tokens]
    positions = torch.cat([torch.arange(n) for n in lengths]).view(1, -1)
    groups = [
        GroupCtx(
            table_RB=torch.zeros(rows, width, dtype=torch.int32, device=device),
            slot_T=(positions[0] % size).to(device),
        )
        for size, width in zip(block_tokens, blocks, strict=True)
    ]
    return Ctx(
        ids_T=torch.zeros(tokens, dtype=torch.int64, device=device),
        positions_KT=positions.to(device),
        seq_of_T=torch.repeat_interleave(torch.arange(rows), torch.tensor(lengths)).to(torch.int32).to(device),
        q_start=torch.tensor(starts, dtype=torch.int32, device=device),
        kv_len_R=torch.tensor(lengths, dtype=torch.int32, device=device),
        out_rows_L=torch.arange(extent.outputs, device=device),
        groups=groups,
        state_slot_R=torch.zeros(rows, dtype=torch.int64, device=device) if states else None,
        state_fresh_R=torch.ones(rows, dtype=torch.bool, device=device) if states else None,
        mix_TA=torch.zeros(tokens, columns, device=device) if columns else None,
        host=HostRows(starts, lengths, [[[0] * width for _ in range(rows)] for width in blocks], []),
    )
