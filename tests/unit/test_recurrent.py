# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: what the rules say, and the torch kernels, single tokens together and long rows in chunks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from attrs import define, field
from torch import Tensor

from tramontane.backends.torch.recurrent import CHUNK, causal_conv, gated_delta
from tramontane.batch import Ctx, HostRows
from tramontane.errors import PlanError
from tramontane.ops import CausalConv, GatedDelta, Op

SLOTS = 9
CONV = CausalConv(4, "silu")
DELTA = GatedDelta(key_heads=2, value_heads=4, key_dim=8, value_dim=5)
CHANNELS = 6


@define
class Vector:
    tensor: Tensor


@define
class States:
    states: tuple[Tensor, ...] = field()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(lengths: Sequence[int], slots: Sequence[int], fresh: Sequence[bool]) -> Ctx:
    """Rows of so many tokens in so many slots."""
    starts = [0, *itertools.accumulate(lengths)]
    none = torch.zeros(0, dtype=torch.int64)
    return Ctx(
        ids_T=none,
        positions_KT=none,
        seq_of_T=none,
        q_start=torch.tensor(starts, dtype=torch.int32),
        kv_len_R=torch.tensor(lengths, dtype=torch.int32),
        out_rows_L=none,
        groups=[],
        state_slot_R=torch.tensor(slots),
        state_fresh_R=torch.tensor(fresh),
        host=HostRows(starts, list(lengths), []),
    )


def weights(op: Op) -> list[Vector | States]:
    """Fresh states full of noise, and weights."""
    if isinstance(op, CausalConv):
        return [States((normal(SLOTS, CHANNELS, op.width - 1, seed=1),)), Vector(normal(CHANNELS, op.width, seed=2))]
    state = normal(SLOTS, DELTA.value_heads, DELTA.key_dim, DELTA.value_dim, seed=1)
    return [States((state,)), *(Vector(normal(DELTA.value_heads, seed=seed) * 0.5) for seed in (2, 3))]


def inputs(op: Op, tokens: int) -> tuple[Tensor, ...]:
    if isinstance(op, CausalConv):
        return (normal(tokens, CHANNELS, seed=4),)
    keys, values = DELTA.key_heads * DELTA.key_dim, DELTA.value_heads * DELTA.value_dim
    widths = (keys, keys, values, DELTA.value_heads, DELTA.value_heads)
    return tuple(normal(tokens, width, seed=10 + i) for i, width in enumerate(widths))


def run(op: Op, held: list[Vector | States], ctx: Ctx, given: Sequence[Tensor]) -> Tensor:
    """The torch kernel's output."""
    kernel = (causal_conv if isinstance(op, CausalConv) else gated_delta)(op, held)
    assert not isinstance(kernel, str)
    ((shape, dtype),) = op.outputs(held, *given)
    out = torch.full(shape, float("nan"), dtype=dtype)
    kernel(ctx, given, (out,))
    return out


BATCHES = {
    "one_token_each": ([1, 1, 1], [3, 1, 5], [False, True, False]),
    "a_prompt": ([7], [2], [True]),
    "a_prompt_goes_on": ([7], [2], [False]),
    "mixed": ([1, 9, 1, 2], [4, 6, 8, 1], [False, False, True, True]),
    "over_chunks": ([2 * CHUNK + 5, 1, CHUNK], [1, 2, 3], [False, False, True]),
}


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("op", [CONV, DELTA], ids=["causal_conv", "gated_delta"])
def test_the_torch_kernels_follow_the_definition(op: Op, rows: tuple[list[int], list[int], list[bool]]) -> None:
    ctx, given = batch(*rows), inputs(op, sum(rows[0]))
    slow, fast = weights(op), weights(op)
    (wanted,) = op.reference(ctx, slow, *given)
    assert torch.allclose(run(op, fast, ctx, given), wanted, atol=2e-5)
    assert torch.allclose(fast[0].states[0], slow[0].states[0], atol=2e-5)
    untouched = [slot for slot in range(SLOTS) if slot not in rows[1]]
    assert torch.equal(fast[0].states[0][untouched], weights(op)[0].states[0][untouched])


@pytest.mark.parametrize("op", [CONV, DELTA], ids=["causal_conv", "gated_delta"])
def test_padding_tokens_give_zeros(op: Op) -> None:
    ctx, given = batch([1, 3], [1, 2], [True, False]), inputs(op, 6)
    assert not run(op, weights(op), ctx, given)[4:].any()


@pytest.mark.parametrize("op", [CONV, DELTA], ids=["causal_conv", "gated_delta"])
def test_a_prompt_in_pieces_gives_what_it_gives_whole(op: Op) -> None:
    given = inputs(op, 10)
    whole = run(op, weights(op), batch([10], [1], [True]), given)
    held, made = weights(op), []
    for first, last in ((0, 4), (4, 5), (5, 10)):
        part = [one[first:last] for one in given]
        made.append(run(op, held, batch([last - first], [1], [first == 0]), part))
    assert torch.allclose(torch.cat(made), whole, atol=1e-5)


def test_the_convolution_looks_back_and_never_ahead() -> None:
    op, held = CausalConv(3, "relu"), [States((torch.zeros(2, 1, 2),)), Vector(torch.tensor([[1.0, 10.0, 100.0]]))]
    x_TC = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    (found,) = op.reference(batch([4], [1], [True]), held, x_TC)
    assert found.flatten().tolist() == [100.0, 210.0, 321.0, 432.0]
    assert held[0].states[0][1].tolist() == [[3.0, 4.0]]


def test_the_delta_rule_overwrites_what_a_key_held() -> None:
    """With all kept and all written, the state is a table: what a key was given last is what a query of it finds."""
    op = GatedDelta(key_heads=1, value_heads=1, key_dim=4, value_dim=2)
    held = [States((torch.zeros(2, 1, 4, 2),)), Vector(torch.tensor([-20.0])), Vector(torch.tensor([0.0]))]
    key_T4 = torch.eye(4)[[0, 1, 0]]
    value_T2 = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    always_T1 = torch.full((3, 1), 30.0)
    (found,) = op.reference(batch([3], [1], [True]), held, key_T4, key_T4, value_T2, always_T1, always_T1)
    assert torch.allclose(found, value_T2 / 2, atol=1e-4)  # queries are divided by the root of the key dimension
    assert torch.allclose(held[0].states[0][1, 0, :2], torch.tensor([[5.0, 6.0], [3.0, 4.0]]), atol=1e-4)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(PlanError, match="conformal"):
        CausalConv(4, "conformal")
