# SPDX-License-Identifier: Apache-2.0
"""Ranges, axes, shards, and reading slices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tramontane.checkpoint import MemoryTensor
from tramontane.errors import PlanError
from tramontane.tensors import (
    Axis,
    Ranges,
    Shard,
    TensorDecl,
    compose,
    indices,
    length,
    merge,
    plan_read,
    read,
    take,
    whole,
)


@st.composite
def ranges_of(draw: Any, size: int, block: int = 1) -> Ranges:
    """Ranges of an axis whose cuts are on blocks; the ragged end only comes last."""
    blocks = size // block
    found = []
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, blocks))
        found.append((start * block, draw(st.integers(start, blocks)) * block))
    if draw(st.booleans()):
        found.append((draw(st.integers(0, blocks)) * block, size))
    return tuple(found)


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_ranges_in_small() -> None:
    assert whole(3) == ((0, 3),)
    assert merge(((0, 2), (2, 2), (2, 5), (7, 9))) == ((0, 5), (7, 9))
    assert compose(((10, 20), (40, 50)), ((5, 15),)) == ((15, 20), (40, 45))
    assert indices(((3, 5), (0, 1))).tolist() == [3, 4, 0]
    assert length(((3, 5), (0, 1))) == 3
    with pytest.raises(PlanError, match="0:21 lies outside an axis of 20"):
        compose(((10, 20), (40, 50)), ((0, 21),))


@given(st.data())
def test_composing_is_indexing_twice(data: Any) -> None:
    outer = data.draw(ranges_of(20))
    inner = data.draw(ranges_of(length(outer)))
    assert torch.equal(indices(compose(outer, inner)), indices(outer)[indices(inner)])


@given(ranges_of(20))
def test_merging_keeps_the_elements(ranges: Ranges) -> None:
    assert torch.equal(indices(merge(ranges)), indices(ranges))


# --- axes ------------------------------------------------------------------------------------------------------------


@given(st.data())
def test_reading_slices_is_slicing_what_was_read(data: Any) -> None:
    """Blocks of logical elements, each in ``width`` stored indices, from a start and with a step."""
    block, width, start, step = (data.draw(st.integers(low, 3)) for low in (1, 1, 0, 1))
    size = data.draw(st.integers(1, 20))
    axis = Axis(1, block, width, start, step)
    stored_size = axis.stored_size(size)
    tensor = torch.arange(4 * (start + step * stored_size)).reshape(4, -1)
    decl = TensorDecl("w", {"out": Axis(0), "in": axis})
    stored = tensor[:, start : start + step * stored_size : step]
    out, into = data.draw(ranges_of(4)), data.draw(ranges_of(size, block))
    places = [place for a, b in into for place in range(a // block * width, axis.stored_size(b))]
    found = read(MemoryTensor.of("w", tensor), decl, {"out": out, "in": into})
    assert torch.equal(found, stored[indices(out)][:, places])


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (((0, 100),), r"cannot be cut at 100, because every 128 .*nearest possible cuts are 0 and 128"),
        (((64, 256),), "cannot be cut at 64"),
        (((256, 300), (0, 128)), "cannot be cut at 300"),
        (((0, 512),), "lies outside"),
        (((128, 0),), "lies outside"),
        (((-128, 128),), "lies outside"),
    ],
)
def test_a_cut_that_cannot_work_is_refused_with_the_numbers(ranges: Ranges, message: str) -> None:
    ref = MemoryTensor.of("layer.scales", torch.zeros(2, 3))
    decl = TensorDecl("scales", {"out": Axis(0), "in": Axis(1, block=128)})
    with pytest.raises(PlanError, match=message) as caught:
        plan_read(ref, decl, {"in": ranges})
    assert "layer.scales" in caught.value.message
    assert "'in'" in caught.value.message


def test_the_ragged_end_can_be_read_last() -> None:
    ref = MemoryTensor.of("scales", torch.arange(3))
    decl = TensorDecl("scales", {"in": Axis(0, block=128)})
    assert read(ref, decl, {"in": ((0, 128), (256, 300))}).tolist() == [0, 2]


def test_a_replicated_axis_reads_everything_and_a_plan_knows_its_shape() -> None:
    ref = MemoryTensor.of("w", torch.arange(12).reshape(3, 4))
    plan = plan_read(ref, TensorDecl("w", {"out": Axis(0)}), {"in": ((0, 1),), "out": ((1, 2), (0, 1))})
    assert plan.shape == (2, 4)
    out = torch.empty(2, 4, dtype=torch.float64)
    assert plan.run(out) is out
    assert out.tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]


def test_views_give_flat_tensors_their_rows() -> None:
    ref = MemoryTensor.of("w", torch.arange(12).reshape(12, 1))
    decl = TensorDecl("w", {"out": Axis(0), "in": Axis(1, block=2)}, view=(-1, 4))
    assert read(ref, decl, {"out": ((2, 3),), "in": ((2, 6),)}).tolist() == [[9, 10]]
    for view in ((-1, 5), (-1, -1), (5, 2), (-1, 0)):
        with pytest.raises(PlanError, match="cannot be viewed"):
            plan_read(ref, TensorDecl("w", {}, view=view), {})


def test_a_tensor_that_is_read_whole_refuses_slices() -> None:
    ref = MemoryTensor.of("w", torch.zeros(4, 4))
    decl = TensorDecl("w", {"out": Axis(0)}, sliceable=False)
    assert plan_read(ref, decl, {}).shape == (4, 4)
    with pytest.raises(PlanError, match="only be read whole"):
        plan_read(ref, decl, {"out": ((0, 2),)})


def test_impossible_declarations_are_refused() -> None:
    for wrong in (
        {"dim": -1},
        {"dim": 0, "block": 0},
        {"dim": 0, "width": 0},
        {"dim": 0, "step": 0},
        {"dim": 0, "start": -1},
    ):
        with pytest.raises(PlanError, match="not a possible axis"):
            Axis(**wrong)
    with pytest.raises(PlanError, match="no such logical axis: input"):
        TensorDecl("w", {"input": Axis(0)})
    with pytest.raises(PlanError, match="no dimension 1"):
        plan_read(MemoryTensor.of("w", torch.zeros(4)), TensorDecl("w", {"in": Axis(1)}), {})


def test_declarations_of_stacks_and_of_transposed_tensors() -> None:
    single = TensorDecl("w", {"out": Axis(0, block=2), "in": Axis(1)}, view=(-1, 3))
    stacked = single.with_leading("expert", 4)
    assert stacked.axes == {"expert": Axis(0), "out": Axis(1, block=2), "in": Axis(2)}
    assert stacked.view == (4, -1, 3)
    assert stacked.without("expert") == single
    assert single.without("expert") is single
    assert TensorDecl("w", {"out": Axis(0), "in": Axis(1)}).transposed().axes == {"out": Axis(1), "in": Axis(0)}
    with pytest.raises(PlanError, match="cannot be stored transposed"):
        single.transposed()
    with pytest.raises(PlanError, match="cannot be stored transposed"):
        TensorDecl("bias", {"out": Axis(0)}).transposed()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.bfloat16, torch.uint8], ids=str)
def test_taking_rows_works_for_every_type(dtype: torch.dtype) -> None:
    stored = torch.arange(6, dtype=torch.uint8).repeat_interleave(dtype.itemsize).view(dtype).reshape(3, 2)
    taken = take(stored, 0, torch.tensor([2, 0]))
    assert torch.equal(taken.view(torch.uint8), stored.view(torch.uint8)[[2, 0]])


# --- shards ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 4))
def test_shards_cover_an_axis_once(world: int, parts: int, block: int) -> None:
    size = world * parts * block
    pieces = [Shard(rank, world).even(size, what="x", block=block) for rank in range(world)]
    assert merge(one for piece in pieces for one in piece) == whole(size)
    assert all(start % block == 0 for ((start, _),) in pieces)


def test_an_uneven_split_is_refused_with_the_numbers() -> None:
    with pytest.raises(PlanError, match=r"gate: 43 elements do not split evenly over 4"):
        Shard(0, 4).column(43, what="gate")
    with pytest.raises(PlanError, match=r"down: 3 blocks of 128 do not split evenly over 2"):
        Shard(0, 2).row(384, what="down", block=128)
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(PlanError, match="no worker"):
            Shard(rank, world)


def test_columns_rows_and_single_workers() -> None:
    assert Shard(1, 4).column(16, what="x") == {"out": ((4, 8),)}
    assert Shard(3, 4).row(16, what="x") == {"in": ((12, 16),)}
    assert Shard().column(7, what="x") == {}


@pytest.mark.parametrize(("heads", "world"), [(8, 2), (2, 8), (4, 4), (1, 4)])
def test_key_value_heads_belong_to_the_query_heads_of_their_worker(heads: int, world: int) -> None:
    queries = 16
    for rank in range(world):
        shard = Shard(rank, world)
        first, stop = shard.heads(queries, what="q")
        kv_first, kv_stop = shard.kv_heads(heads, what="kv")
        assert {head * heads // queries for head in range(first, stop)} == set(range(kv_first, kv_stop))
        assert shard.head_rows((kv_first, kv_stop), 64) == ((kv_first * 64, kv_stop * 64),)


def test_key_value_heads_that_fit_no_way_are_refused() -> None:
    with pytest.raises(PlanError, match="do not split evenly"):
        Shard(0, 4).kv_heads(3, what="kv")
