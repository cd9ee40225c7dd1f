# SPDX-License-Identifier: Apache-2.0
"""Adapters within the core: banks, the mix of a batch, the op, captured steps, leases."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tramontane.adapters import AdapterBank, AdapterTable, MixBuffer, Piece, Ready, Targets
from tramontane.adapters.bank import stack_rank
from tramontane.adapters.fitting import Fitted
from tramontane.backends.base import HostBackend
from tramontane.backends.reference import InvariantBackend, ReferenceBackend
from tramontane.backends.torch import TorchBackend
from tramontane.batch import Ctx
from tramontane.engine.departures import Departures
from tramontane.errors import AdapterError, RequestError
from tramontane.ops import AddAdapted, Linear
from tramontane.requests import AdapterRef, EngineRequest
from tramontane.sequence import Row
from tramontane.tape.capture import capture
from tramontane.testing.tiny import BLOCK, Tiny, make_batch, make_tiny
from tramontane.weightmap import WeightMap
from tramontane.weights import Matrix, Part

CPU = torch.device("cpu")
COLUMNS = 4
QKV = Matrix("qkv", (Part("q", 6), Part("k", 2), Part("v", 2)), 5)


def piece(rank: int, inputs: int, outputs: int, seed: int) -> Piece:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, generator=generator) * 0.3
    return Piece(down, torch.randn(rank, outputs, generator=generator) * 0.3)


def full_bank() -> AdapterBank:
    """Column 0: q and v of rank 3; column 2: all parts, of different ranks; column 3: rank 9, in a stack of its own."""
    bank = AdapterBank(QKV, torch.float32, CPU)
    bank.put(0, {0: piece(3, 5, 6, 1), 2: piece(3, 5, 2, 2)})
    bank.put(2, {0: piece(2, 5, 6, 3), 1: piece(8, 5, 2, 4), 2: piece(1, 5, 2, 5)})
    bank.put(3, {1: piece(9, 5, 2, 6)})
    return bank


def rows(*parts: tuple[int, int]) -> list[Row]:
    """Rows of (column, tokens)."""
    made: list[Row] = []
    for column, count in parts:
        sequence: Any = SimpleNamespace(adapter=column)
        made.append(Row(sequence, 0, count, samples=True))
    return made


def batch_of(mix_TA: Tensor, adapted: object) -> Any:
    return SimpleNamespace(mix_TA=mix_TA, host=SimpleNamespace(adapted=adapted))


# --- banks ------------------------------------------------------------------------------------------------------------


def test_ranks_are_rounded_up_to_few_stacks() -> None:
    assert [stack_rank(rank) for rank in (1, 8, 9, 16, 17, 200, 256)] == [8, 8, 16, 16, 32, 256, 256]


def test_a_bank_holds_what_was_put_and_nothing_of_what_was_dropped() -> None:
    bank = full_bank()
    assert {rank: stack.columns for rank, stack in bank.stacks.items()} == {8: [0, 2], 16: [3]}
    held = {(column, span.start) for column, span, _, _ in bank.pairs()}
    assert held >= {(0, 0), (0, 8), (2, 0), (2, 6), (2, 8), (3, 6)}
    size = bank.nbytes
    bank.drop(0)
    bank.drop(3)
    bank.drop(1)  # was never there
    assert list(bank.places) == [2]
    assert list(bank.stacks) == [8], "an empty stack goes"
    stack = bank.stacks[8]
    assert stack.columns == [-1, 2]
    assert not stack.down_SPRI[0].any()
    bank.put(1, {0: piece(4, 5, 6, 7)})
    assert stack.columns == [1, 2], "a free place is taken before another is made"
    assert bank.nbytes < size


# --- which token uses what --------------------------------------------------------------------------------------------


def test_the_mix_is_one_hot_and_told_by_column() -> None:
    buffer = MixBuffer(16, COLUMNS, CPU)
    mix_TA, adapted = buffer.write(rows((2, 3), (-1, 2), (0, 1), (2, 1)), 9)
    wanted = torch.zeros(9, COLUMNS)
    for token, column in enumerate((2, 2, 2, -1, -1, 0, 2)):
        if column >= 0:
            wanted[token, column] = 1
    assert torch.equal(mix_TA, wanted), "the last two tokens are padding"
    assert [one.column for one in adapted] == [0, 2]
    assert adapted[0].tokens == slice(5, 6)
    assert isinstance(adapted[1].tokens, Tensor)
    assert adapted[1].tokens.tolist() == [0, 1, 2, 6]
    again, _ = buffer.write(rows((-1, 2), (1, 2)), 4)
    assert again.data_ptr() == mix_TA.data_ptr(), "it never moves"
    assert again.tolist() == [[0, 0, 0, 0]] * 2 + [[0, 1, 0, 0]] * 2


@pytest.mark.parametrize("known", [True, False])
def test_the_stock_kernel_is_the_definition(known: bool) -> None:
    """With the host's knowledge of the mix and without it; two stacks, parts left alone, rows without an adapter."""
    bank, generator = full_bank(), torch.Generator().manual_seed(0)
    x_TI, y_TO = torch.randn(9, 5, generator=generator), torch.randn(9, 10, generator=generator)
    mix_TA, adapted = MixBuffer(16, COLUMNS, CPU).write(rows((2, 3), (-1, 2), (0, 1), (2, 1), (3, 1), (1, 1)), 9)
    (kernel,) = [TorchBackend().candidates(AddAdapted())[0][1](AddAdapted(), (bank,))]
    assert callable(kernel)
    out_TO = torch.full((9, 10), float("nan"))
    kernel(batch_of(mix_TA, adapted if known else None), (y_TO, x_TI, mix_TA), (out_TO,))
    (wanted,) = AddAdapted().reference(None, (bank,), y_TO, x_TI, mix_TA)
    torch.testing.assert_close(out_TO, wanted)
    assert torch.equal(out_TO[3:5], y_TO[3:5]), "rows without an adapter are left alone, bit for bit"
    assert torch.equal(out_TO[8], y_TO[8]), "nothing is kept in column 1"
    assert (out_TO[[0, 5, 7]] - y_TO[[0, 5, 7]]).abs().amax(1).min() > 0.01


def test_a_dense_mix_weighs_adapters() -> None:
    bank, generator = full_bank(), torch.Generator().manual_seed(1)
    x_TI, y_TO = torch.randn(6, 5, generator=generator), torch.randn(6, 10, generator=generator)
    mix_TA = torch.rand(6, COLUMNS, generator=generator)
    made = TorchBackend().candidates(AddAdapted())[0][1](AddAdapted(), (bank,))
    assert callable(made)
    out_TO = torch.empty(6, 10)
    made(batch_of(mix_TA, None), (y_TO, x_TI, mix_TA), (out_TO,))
    wanted = y_TO.clone()
    for column, span, down_RI, up_RO in bank.pairs():
        wanted[:, span] += mix_TA[:, column, None] * (x_TI @ down_RI.T @ up_RO)
    torch.testing.assert_close(out_TO, wanted)


# --- within a model ---------------------------------------------------------------------------------------------------


def table_of(tiny: Tiny) -> AdapterTable:
    blueprint, backend = tiny.blueprint, tiny.backend
    linear = {one.weights[0].path for one in blueprint.ops if isinstance(one.op, Linear) and one.op.out_dtype is None}
    targets = Targets("tiny", blueprint.matrices, frozenset(linear), (WeightMap(),))
    return AdapterTable(targets, blueprint, COLUMNS, lambda op: op.bind(backend.candidates(op.op)))


def ready(tiny: Tiny, names: Sequence[str], rank: int, seed: int) -> Ready:
    """An adapter of every part of the named matrices."""
    pieces = {}
    for path, matrix in tiny.blueprint.matrices.items():
        if path.split(".")[-1] in names:
            pieces[path] = {
                part: piece(rank, matrix.in_features, one.out_features, seed + part)
                for part, one in enumerate(matrix.parts)
            }
    return Ready(kind="lora", reference="x", base=None, fitted=Fitted({}, rank, 0), pieces=pieces)


def mixed(ctx: Ctx, columns: Sequence[int]) -> Ctx:
    """The batch with a column for each of its rows."""
    assert ctx.host is not None
    starts = ctx.host.q_start
    counts = [end - start for start, end in itertools.pairwise(starts)]
    ctx.mix_TA, ctx.host.adapted = MixBuffer(128, COLUMNS, CPU).write(
        rows(*zip(columns, counts, strict=True)), ctx.tokens
    )
    return ctx


@pytest.mark.parametrize("backend", [ReferenceBackend, InvariantBackend, TorchBackend])
def test_captured_equals_eager_with_adapters(backend: type[HostBackend]) -> None:
    tiny: Tiny = make_tiny(backend())  # type: ignore[arg-type]
    plain = tiny.body(make_batch(37, 9, 4)).clone()
    table = table_of(tiny)
    table.put("a", ready(tiny, ("qkv_proj", "down_proj"), 4, 10))
    with torch.inference_mode():
        _, program = capture(
            tiny.body,
            tiny.blueprint.runtime,
            tiny.backend,
            [BLOCK],
            max_tokens=64,
            max_outputs=64,
            candidates=tiny.backend.candidates,
            columns=COLUMNS,
        )
        table.put("b", ready(tiny, ("qkv_proj",), 12, 20))  # after the capture: banks are looked into in each step
        for extent, columns in [((37, 9, 4), (0, -1, 1, 0)), ((1, 1, 1), (1,)), ((6, 6, 6), (1, 0, -1, 1, 0, -1))] * 2:
            ctx = mixed(make_batch(*extent), columns)
            eager = tiny.body(ctx).clone()
            assert torch.equal(eager, program.run(ctx)[0]), extent
        ctx = mixed(make_batch(37, 9, 4), (-1, -1, -1, 0))
        changed = tiny.body(ctx)
        assert torch.equal(changed[:9], plain), "rows without an adapter do not notice"  # all outputs are of row 0
        assert torch.equal(tiny.body(make_batch(37, 9, 4)), plain), "nor does a batch without a mix"
        assert not torch.equal(tiny.body(mixed(make_batch(37, 9, 4), (0, -1, -1, -1))), plain)


# --- names and leases -------------------------------------------------------------------------------------------------


def test_names_columns_and_generations() -> None:
    tiny = make_tiny(TorchBackend())
    table = table_of(tiny)
    made = [table.put(name, ready(tiny, ("o_proj",), 2, 1)) for name in "abcd"]
    assert [one.column for one in made] == [0, 1, 2, 3]
    assert len({one.generation for one in made}) == 4
    with pytest.raises(AdapterError, match="no room for the adapter 'e'"):
        table.put("e", ready(tiny, ("o_proj",), 2, 1))
    ref = table.find("b")
    table.check(ref)
    table.drop("b")
    with pytest.raises(RequestError, match="'b' was unloaded"):
        table.check(ref)
    with pytest.raises(AdapterError, match="still in use"):
        table.check_room("e")
    table.release(ref.generation)
    again = table.put("b", ready(tiny, ("o_proj",), 2, 1))
    assert again.column == ref.column
    with pytest.raises(RequestError, match="unloaded"):
        table.check(ref)
    with pytest.raises(RequestError, match="there is no adapter 'A'") as error:
        table.find("A")
    assert error.value.hint == "loaded: a, c, d, b"


def test_what_requests_use_is_freed_after_them() -> None:
    freed: list[int] = []
    departures = Departures()
    requests = [
        EngineRequest(id=str(i), prompt_token_ids=(1,), adapter=AdapterRef("x", i, 0) if i else None) for i in range(3)
    ]
    departures.add(1, lambda: freed.append(1))
    departures.add(7, lambda: freed.append(7))
    departures.settle(requests)
    assert freed == [7]
    assert len(departures) == 1
    departures.settle(requests[:1])
    assert freed == [7, 1]
    assert not departures
