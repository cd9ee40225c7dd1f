# SPDX-License-Identifier: Apache-2.0
"""Ops with a state per sequence against their references, on every instruction set."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from cpu_kit import batch, close, native, param, run
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.cache.spec import CacheKind, CacheSpec
from tramontane.ops import CausalConv, GatedDelta, Op
from tramontane.weights import CacheSlot
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.library import pool

ROWS = ((1, 33), (7, 7), (20, 50), (2, 3), (1, 1), (1, 9))
SLOTS = 9


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rows(padding: int = 0) -> Ctx:
    """Some rows go on, some start afresh; their slots lie scattered."""
    ctx = batch(ROWS, padding=padding)
    ctx.state_slot_R = torch.tensor([5, 2, 8, 1, 7, 3])
    ctx.state_fresh_R = torch.tensor([tokens == keys for tokens, keys in ROWS])
    return ctx


def states(shape: tuple[int, ...], dtype: torch.dtype) -> CacheSlot:
    made = CacheSlot("layer", CacheSpec(kind=CacheKind.STATE, states=((shape, dtype),)))
    made.states = (random(SLOTS, *shape, seed=9).to(dtype),)
    return made


def same(
    op: Op, slot: CacheSlot, others: Sequence[object], engine: Engine, inputs: Sequence[Tensor], ctx: Ctx
) -> Tensor:
    """The op natively and by its reference, over equal states: results and states after it agree."""
    twin = CacheSlot("twin", slot.spec)
    twin.states = tuple(state.clone() for state in slot.states)
    (ours,) = run(op, (slot, *others), engine, inputs, ctx)
    used = int(ctx.q_start[-1])
    (theirs,) = op.reference(ctx, (twin, *others), *inputs)
    close(ours[:used], theirs[:used])
    assert not ours[used:].any()
    for mine, other in zip(slot.states, twin.states, strict=True):
        close(mine, other)
    return ours


KEPT = (
    (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32),
    (torch.float32, torch.float16),
)  # fmt: skip
"""(activations, state)"""


@pytest.mark.parametrize(("dtype", "kept"), KEPT)
@pytest.mark.parametrize(("channels", "width"), [(64, 4), (131, 4), (7, 2), (70, 1)])
def test_convolution(
    isa: str, engine: Engine, channels: int, width: int, dtype: torch.dtype, kept: torch.dtype
) -> None:
    weight, ctx = param(random(channels, width, dtype=dtype)), rows(padding=2)
    x = random(ctx.tokens, channels + 9, dtype=dtype)[:, 4 : 4 + channels]
    same(CausalConv(width, "silu"), states((channels, width - 1), kept), (weight,), engine, (x,), ctx)


def delta_inputs(op: GatedDelta, tokens: int, dtype: torch.dtype) -> list[Tensor]:
    widths = (op.key_heads * op.key_dim,) * 2 + (op.value_heads * op.value_dim,) + (op.value_heads,) * 2
    return [random(tokens, width, seed=index, dtype=dtype) for index, width in enumerate(widths)]


DELTAS = (
    GatedDelta(key_heads=2, value_heads=4, key_dim=16, value_dim=16),
    GatedDelta(key_heads=3, value_heads=3, key_dim=13, value_dim=70),
    GatedDelta(key_heads=1, value_heads=2, key_dim=128, value_dim=128),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", DELTAS, ids=lambda op: f"{op.key_dim}x{op.value_dim}")
def test_gated_delta(isa: str, engine: Engine, op: GatedDelta, dtype: torch.dtype) -> None:
    ctx = rows(padding=2)
    others = param(random(op.value_heads, seed=7)), param(random(op.value_heads, seed=8))
    slot = states((op.value_heads, op.key_dim, op.value_dim), torch.float32)
    same(op, slot, others, engine, delta_inputs(op, ctx.tokens, dtype), ctx)


def test_chunks_give_the_bits_of_the_whole(isa: str, engine: Engine) -> None:
    op = DELTAS[0]
    others = param(random(op.value_heads, seed=7)), param(random(op.value_heads, seed=8))
    inputs = delta_inputs(op, 40, torch.float32)

    def results(cuts: Sequence[int]) -> Tensor:
        slot, found = states((op.value_heads, op.key_dim, op.value_dim), torch.float32), []
        for first, last in itertools.pairwise(cuts):
            ctx = batch(((last - first, last),))
            ctx.state_slot_R, ctx.state_fresh_R = torch.tensor([3]), torch.tensor([first == 0])
            found += run(op, (slot, *others), engine, [one[first:last] for one in inputs], ctx)
        return torch.cat([*found, slot.states[0][3].flatten(1).T.reshape(-1, op.value_heads * op.value_dim)])

    assert torch.equal(results([0, 40]), results([0, 1, 17, 18, 40]))


def test_results_do_not_depend_on_the_number_of_threads(isa: str) -> None:
    op, ctx = DELTAS[0], rows()
    others = param(random(op.value_heads, seed=7)), param(random(op.value_heads, seed=8))
    results = []
    for threads in (1, 2, 3, 4):
        slot = states((op.value_heads, op.key_dim, op.value_dim), torch.float32)
        engine = Engine(pool(threads))
        results.append(
            (*run(op, (slot, *others), engine, delta_inputs(op, ctx.tokens, torch.float32), ctx), *slot.states)
        )
    for others_ in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others_, strict=True))


def test_states_of_another_shape_are_refused(engine: Engine) -> None:
    slot = states((8, 2), torch.float32)
    kernel = native(CausalConv(4, "silu"), (slot, param(random(8, 4))), engine)
    from tramontane_backend_cpu.operands import of_tensor

    x = random(3, 8)
    assert isinstance(kernel.node([of_tensor(x), of_tensor(x)]), str)
