# SPDX-License-Identifier: Apache-2.0
"""Cache specifications and the layout of layers in one pool."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.errors import PlanError

FULL = CacheSpec(kv_heads=2, head_dim=8)
WINDOW = CacheSpec(kind="window", window=64, kv_heads=2, head_dim=8)


def test_bytes_per_token() -> None:
    assert CacheSpec(kv_heads=8, head_dim=128, dtype=torch.bfloat16).bytes_per_token == 8 * 256 * 2
    assert CacheSpec(kv_heads=2, head_dim=192, value_dim=128, dtype=torch.float16).bytes_per_token == 2 * 320 * 2
    assert CacheSpec(kind="latent", head_dim=576, dtype=torch.bfloat16).bytes_per_token == 576 * 2
    assert CacheSpec(kv_heads=4, head_dim=64, dtype=torch.int8).bytes_per_token == 4 * (128 + 2 * 4)
    state = CacheSpec(kind="state", states=(((4, 16, 16), torch.float32), ((3, 64), torch.bfloat16)))
    assert (state.bytes_per_token, state.state_bytes) == (0, 4 * 256 * 4 + 192 * 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "window", "head_dim": 8}, "window=None"),
        ({"kind": "full", "head_dim": 8, "window": 5}, "window=5"),
        ({"kind": "chunked", "head_dim": 8, "window": 0}, "window=0"),
        ({"kind": "full"}, "head_dim=0"),
        ({"kind": "state"}, "no state tensors"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        CacheSpec(**fields)  # type: ignore[arg-type]


def test_one_kind_is_one_group() -> None:
    layout = plan_layout({f"l{i}": FULL for i in range(5)}, block_tokens=16)
    assert [group.layers for group in layout.groups] == [("l0", "l1", "l2", "l3", "l4")]
    assert (layout.storages, layout.page_bytes, layout.block_bytes) == (5, 16 * 128, 5 * 16 * 128)
    assert [layout.layers[f"l{i}"].storage for i in range(5)] == [0, 1, 2, 3, 4]


def test_alternating_kinds_share_their_storages() -> None:
    layout = plan_layout({f"l{i}": (WINDOW if i % 2 else FULL) for i in range(8)}, block_tokens=16)
    assert [(g.kind, len(g.layers)) for g in layout.groups] == [(CacheKind.FULL, 4), (CacheKind.WINDOW, 4)]
    assert layout.storages == 4
    assert (layout.layers["l4"].storage, layout.layers["l5"].storage) == (2, 2)


def test_the_larger_kind_is_split_so_that_pages_are_full() -> None:
    layout = plan_layout({f"l{i}": (FULL if i % 6 == 5 else WINDOW) for i in range(48)})
    assert sorted(len(group.layers) for group in layout.groups) == [8] * 6
    assert [group.kind for group in layout.groups].count(CacheKind.FULL) == 1


def test_leaner_layers_get_longer_blocks_in_the_same_page() -> None:
    wide, lean = CacheSpec(kv_heads=4, head_dim=64), CacheSpec(kind="window", window=64, kv_heads=1, head_dim=56)
    layout = plan_layout({"wide": wide, "lean": lean}, block_tokens=16)
    assert layout.page_bytes == 16 * wide.bytes_per_token
    assert {group.layers[0]: group.block_tokens for group in layout.groups} == {"wide": 16, "lean": 64}
    assert 64 * lean.bytes_per_token <= layout.page_bytes
    assert (layout.alignment, layout.hash_tokens) == (64, 16)


def test_shared_layers_store_nothing() -> None:
    shared = CacheSpec(kv_heads=2, head_dim=8, share_with="l0")
    layout = plan_layout({"l0": FULL, "l1": shared})
    assert layout.layers["l1"] == layout.layers["l0"]
    assert layout.storages == 1


@pytest.mark.parametrize("target", ["nowhere", "l1"])
def test_sharing_with_nobody_is_refused(target: str) -> None:
    with pytest.raises(PlanError, match=f"l2 shares the cache of {target}"):
        plan_layout({
            "l0": FULL,
            "l1": CacheSpec(kv_heads=2, head_dim=8, share_with="l0"),
            "l2": CacheSpec(kv_heads=2, head_dim=8, share_with=target),
        })  # fmt: skip


def test_sharing_another_shape_is_refused() -> None:
    with pytest.raises(PlanError, match="cannot share"):
        plan_layout({"l0": FULL, "l1": CacheSpec(kv_heads=1, head_dim=8, share_with="l0")})


def test_states_have_storages_of_their_own() -> None:
    state = CacheSpec(kind="state", states=(((2, 4), torch.float32),))
    layout = plan_layout({"s0": state, "a": FULL, "s1": state}, block_tokens=16)
    assert layout.state_layers == ("s0", "s1")
    assert (layout.layers["s1"].group, layout.layers["s1"].storage) == (-1, 1)
    assert layout.state_bytes == 2 * 32
    assert plan_layout({"s0": state}, block_tokens=16).alignment == 16


def test_cross_caches_are_refused_by_name() -> None:
    with pytest.raises(PlanError, match=r"decoder\.cross"):
        plan_layout({"decoder.cross": CacheSpec(kind="cross", head_dim=8)})


@pytest.mark.parametrize(("kind", "window"), [("full", None), ("window", 7), ("chunked", 8)])
def test_first_needed_is_what_the_mask_says(kind: str, window: int | None) -> None:
    group = plan_layout({"l": CacheSpec(kind=kind, window=window, head_dim=8)}).groups[0]
    for position in range(40):
        if kind == "full":
            visible = range(position + 1)
        elif kind == "window":
            visible = [key for key in range(position + 1) if position - key < 7]
        else:
            visible = [key for key in range(position + 1) if key // 8 == position // 8]
        assert group.first_needed(position) == visible[0]


@given(
    kinds=st.lists(st.sampled_from([None, 5, 33, 100]), min_size=1, max_size=12),
    block=st.sampled_from([4, 16]),
    blocks=st.integers(2, 60),
)
def test_longest_is_the_last_length_that_fits(kinds: list[int | None], block: int, blocks: int) -> None:
    specs = {
        f"l{i}": CacheSpec(kind="window" if window else "full", window=window, head_dim=8)
        for i, window in enumerate(kinds)
    }
    layout = plan_layout(specs, block)
    longest = layout.longest(blocks, 10_000)
    assert longest == 0 or layout.blocks_for(longest) <= blocks - 1
    assert longest == 10_000 or layout.blocks_for(longest + 1) > blocks - 1
    places = [(place.group, place.storage) for place in layout.layers.values()]
    assert len(set(places)) == len(specs)
