# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers against their definition, token by token, by Triton's interpreter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import close, draw, kernel_of, run
from torch import Tensor

from tramontane.batch import Ctx, HostRows
from tramontane.ops import CausalConv, GatedDelta, Op, reads_host
from tramontane_backend_cuda import recurrent

SLOTS, CHANNELS = 7, 150
CONV = CausalConv(4, "silu")
DELTA = GatedDelta(key_heads=1, value_heads=2, key_dim=8, value_dim=12)
BATCHES = {
    "one token each": ([1, 1, 1], [3, 1, 5], [False, True, False]),
    "mixed": ([1, 19, 2, 1], [4, 6, 1, 2], [False, False, False, True]),
    "a prompt, and rows without tokens": ([5, 0, 0], [2, 0, 0], [True, True, True]),
}


def batch(lengths: Sequence[int], slots: Sequence[int], fresh: Sequence[bool], *, host: bool = False) -> Ctx:
    """Rows of so many tokens in so many slots."""
    starts, none = [0, *itertools.accumulate(lengths)], torch.zeros(0, dtype=torch.int64)
    return Ctx(
        none, none, none, torch.tensor(starts, dtype=torch.int32), torch.tensor(lengths, dtype=torch.int32), none, [],
        torch.tensor(slots), torch.tensor(fresh), host=HostRows(starts, list(lengths), []) if host else None,
    )  # fmt: skip


def weights(op: Op, dtype: torch.dtype) -> list[Any]:
    """States full of numbers, and vectors."""
    vector = lambda *shape, seed: SimpleNamespace(tensor=draw(*shape, dtype=dtype, seed=seed) * 0.5)  # noqa: E731
    if isinstance(op, CausalConv):
        return [
            SimpleNamespace(states=(draw(SLOTS, CHANNELS, op.width - 1, dtype=dtype),)),
            vector(CHANNELS, 4, seed=2),
        ]
    state = draw(SLOTS, DELTA.value_heads, DELTA.key_dim, DELTA.value_dim)
    return [SimpleNamespace(states=(state,)), *(vector(DELTA.value_heads, seed=seed) for seed in (2, 3))]


def given(op: Op, tokens: int, dtype: torch.dtype) -> list[Tensor]:
    """Views of a wider tensor, as a fused projection gives them."""
    keys, values, heads = DELTA.key_heads * DELTA.key_dim, DELTA.value_heads * DELTA.value_dim, DELTA.value_heads
    widths = [CHANNELS] if isinstance(op, CausalConv) else [keys, keys, values, heads, heads]
    return list(draw(tokens, sum(widths), dtype=dtype, seed=4).split(widths, dim=1))


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("op", [CONV, DELTA], ids=["causal_conv", "gated_delta"])
def test_rows_follow_the_definition(op: Op, rows: tuple[list[int], list[int], list[bool]]) -> None:
    for dtype in (torch.float32, torch.bfloat16) if len(rows[0]) == 3 else (torch.float32,):
        ctx, inputs = batch(*rows), given(op, sum(rows[0]) + 2, dtype)
        slow, fast = weights(op, dtype), weights(op, dtype)
        (wanted,) = op.reference(ctx, slow, *inputs)
        (ours,) = run(op, fast, *inputs, ctx=ctx)
        close(ours, wanted, None if dtype is torch.float32 else 4e-2)  # the interpreter cuts bits off
        assert not ours[-2:].any(), "tokens of no row give zeros"
        used = [slot for count, slot in zip(*rows[:2], strict=True) if count]
        close(fast[0].states[0][used], slow[0].states[0][used], 2e-5)
        untouched = [slot for slot in range(SLOTS) if slot not in used]
        assert torch.equal(fast[0].states[0][untouched], weights(op, dtype)[0].states[0][untouched])


@pytest.mark.parametrize("op", [CONV, DELTA], ids=["causal_conv", "gated_delta"])
def test_long_rows_that_the_host_knows_go_through_chunks(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(op, weights(op, torch.float32))
    assert not reads_host(kernel), "steps can be recorded"
    monkeypatch.setattr(recurrent, "LONG", 9)
    rows = ([9, 1], [1, 2], [True, False])
    inputs = given(op, 10, torch.float32)
    whole = run(op, weights(op, torch.float32), *inputs, ctx=batch(*rows, host=True))[0]
    close(whole, run(op, weights(op, torch.float32), *inputs, ctx=batch(*rows))[0])
