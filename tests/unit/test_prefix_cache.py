# SPDX-License-Identifier: Apache-2.0
"""Prefix keys, hits over mixed groups, windows that give blocks back, and the manager's invariants under random use."""

from __future__ import annotations

import random
from math import ceil

import pytest
import torch

from tramontane.cache.manager import CacheManager, Holding
from tramontane.cache.prefix import PrefixHasher
from tramontane.cache.spec import CacheLayout, CacheSpec, plan_layout

FULL = CacheSpec(head_dim=8)
STATE = CacheSpec(kind="state", states=(((2,), torch.float32),))


def window(length: int, kind: str = "window", head_dim: int = 8) -> CacheSpec:
    return CacheSpec(kind=kind, window=length, head_dim=head_dim)


def manager(layout: CacheLayout, blocks: int = 64, **options: object) -> CacheManager:
    return CacheManager(layout, blocks, **{"max_seqs": 4, "max_tokens": 256, **options})  # type: ignore[arg-type]


def run(cache: CacheManager, tokens: list[int], *, chunk: int = 1_000, salt: bytes = b"") -> tuple[Holding, int]:
    """Take a sequence through the cache up to its last token; return its holding and the length of its hit."""
    holding = cache.open(tokens, salt)
    hit = cache.lookup(holding)
    cache.admit(holding, hit)
    done = hit.length
    while done < len(tokens):
        count = cache.chunk(holding, done, min(chunk, len(tokens) - done))
        assert cache.allocate(holding, done + count)
        cache.snapshot(holding, done + count)
        done += count
        cache.commit(holding, done)
    return holding, hit.length


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_depend_on_everything_the_contents_depend_on() -> None:
    hasher = PrefixHasher(b"bfloat16", secret=b"s" * 32)
    root = hasher.root(b"salt")
    key = hasher.extend(root, [1, 2, 3])
    assert key == PrefixHasher(b"bfloat16", secret=b"s" * 32).extend(root, [1, 2, 3])
    others = {
        PrefixHasher(b"bfloat16", secret=b"t" * 32).extend(root, [1, 2, 3]),
        PrefixHasher(b"int8", secret=b"s" * 32).root(b"salt"),
        hasher.root(b"pepper"),
        hasher.root(b"sal", b"t"),
        hasher.root(b"", b"salt"),
        hasher.extend(key, [1, 2, 3]),
        hasher.extend(root, [1, 2, 4]),
        hasher.extend(root, [1, 2, 3], b"image"),
    }
    assert len(others - {root, key}) == 8
    hasher.generation += 1
    assert hasher.root(b"salt") != root


def test_two_processes_do_not_share_keys() -> None:
    assert PrefixHasher().root() != PrefixHasher().root()


# --- hits -------------------------------------------------------------------------------------------------------------


def test_a_hit_ends_at_a_block_and_never_covers_the_whole_prompt() -> None:
    cache = manager(plan_layout({"l": FULL}, block_tokens=4))
    tokens = list(range(16))
    run(cache, tokens)
    assert cache.lookup(cache.open(tokens)).length == 12
    assert cache.lookup(cache.open(tokens[:13])).length == 12
    assert cache.lookup(cache.open(tokens[:12])).length == 8
    assert cache.lookup(cache.open([*tokens, 99])).length == 16
    assert cache.lookup(cache.open([99, *tokens])).length == 0
    assert cache.lookup(cache.open([*tokens[:9], 99, 99, 99, 99])).length == 8


def test_a_hit_shares_blocks_and_counts_holders() -> None:
    cache = manager(plan_layout({"l": FULL}, block_tokens=4))
    first, _ = run(cache, list(range(16)))
    second, length = run(cache, [*range(8), 50, 51])
    assert length == 8
    assert second.blocks[0][:2] == first.blocks[0][:2]
    assert second.blocks[0][2] not in first.blocks[0]
    assert cache.pool.references(first.blocks[0][0]) == 2
    cache.free(first)
    assert cache.pool.references(second.blocks[0][0]) == 1
    cache.check_integrity([second])
    assert (cache.stats.queries, cache.stats.hits) == (26, 8)


def test_blocks_are_found_only_when_full_and_computed() -> None:
    cache = manager(plan_layout({"l": FULL}, block_tokens=4))
    tokens = list(range(20))
    holding = cache.open(tokens)
    cache.admit(holding, cache.lookup(holding))
    assert cache.allocate(holding, 20)
    for done, found in ((3, 0), (4, 4), (11, 8), (20, 16)):
        if done >= holding.milestone:
            cache.commit(holding, done)
        assert cache.lookup(cache.open(tokens)).length == found


def test_salts_separate_tenants() -> None:
    cache = manager(plan_layout({"l": FULL}, block_tokens=4))
    run(cache, list(range(16)), salt=b"one")
    assert cache.lookup(cache.open(list(range(16)), b"two")).length == 0
    assert cache.lookup(cache.open(list(range(16)), b"one")).length == 12


def test_without_prefix_cache_nothing_is_found_or_kept() -> None:
    cache = manager(plan_layout({"l": FULL}, block_tokens=4), prefix_cache=False)
    run(cache, list(range(16)))
    assert cache.lookup(cache.open(list(range(16)))).length == 0
    assert cache.pool.published == 0


def test_reset_forgets_what_running_sequences_publish_later_too() -> None:
    cache = manager(plan_layout({"l": window(8)}, block_tokens=4))
    tokens = list(range(40))
    holding = cache.open(tokens)
    cache.admit(holding, cache.lookup(holding))
    cache.allocate(holding, 40)
    cache.commit(holding, 20)
    cache.reset()
    cache.commit(holding, 40)
    assert cache.lookup(cache.open(tokens)).length == 0
    cache.free(holding)
    assert cache.lookup(holding).length == 0
    cache.check_integrity([holding])


def test_free_blocks_are_evicted_oldest_first_and_tails_before_heads() -> None:
    cache = manager(plan_layout({"l": FULL}, block_tokens=4), blocks=1 + 10)
    first, _ = run(cache, list(range(16)))
    second, _ = run(cache, list(range(100, 116)))
    cache.free(first)
    cache.free(second)
    third, _ = run(cache, list(range(200, 216)))
    assert cache.lookup(cache.open([*range(16), 1])).length == 8
    assert cache.lookup(cache.open([*range(100, 116), 1])).length == 16
    assert third.slot >= 0


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "length", "kept"), [("window", 10, 4), ("chunked", 8, 2)])
def test_blocks_outside_the_window_come_back(kind: str, length: int, kept: int) -> None:
    layout = plan_layout({"l": window(length, kind)}, block_tokens=4)
    cache = manager(layout)
    holding = cache.open(list(range(200)))
    cache.admit(holding, cache.lookup(holding))
    assert holding.capacity == 0
    for done in range(1, 101):
        assert cache.allocate(holding, done)
        if done >= holding.milestone:
            cache.commit(holding, done)
        assert cache.pool.used <= layout.blocks_for(done)
        needed = layout.groups[0].first_needed(done) // 4
        assert all(holding.blocks[0][needed:])
        cache.check_integrity([holding])
    assert cache.pool.used <= kept
    cache.free(holding)
    assert cache.pool.used == 0


def test_a_window_hit_needs_the_last_window_only() -> None:
    cache = manager(plan_layout({"l": window(10)}, block_tokens=4), blocks=1 + 12)
    tokens = list(range(40))
    holding, _ = run(cache, tokens, chunk=4)
    cache.free(holding)
    hit = cache.lookup(cache.open([*tokens, 7]))
    assert hit.length == 40
    # A query at 40 sees keys from 31 on: blocks 7, 8 and 9.
    assert [bool(block) for block in hit.blocks[0]] == [False] * 7 + [True] * 3
    second, length = run(cache, [*tokens, 7, 8])
    assert length == 40
    assert second.given_back == [8]  # and at 42, from 33 on
    cache.check_integrity([second])


def test_a_mixed_hit_is_the_longest_length_valid_in_every_group() -> None:
    layout = plan_layout({"f": FULL, "w": window(6)}, block_tokens=4)
    cache = manager(layout)
    tokens = list(range(41))
    holding, _ = run(cache, tokens)
    found = [cache.pool.find(1, key) for key in holding.keys]
    assert all(found)
    cache.free(holding)
    assert cache.lookup(cache.open(tokens)).length == 40
    # Without block 9 of the window group, 40 is out; 36 needs blocks from (36 - 5) // 4 = 7 on.
    _forget(cache, 1, holding.keys[9])
    assert cache.lookup(cache.open(tokens)).length == 36
    _forget(cache, 1, holding.keys[7])
    assert cache.lookup(cache.open(tokens)).length == 28
    _forget(cache, 0, holding.keys[3])
    hit = cache.lookup(cache.open(tokens))
    assert hit.length == 12
    assert [bool(block) for block in hit.blocks[1]] == [False, True, True]


def test_groups_of_different_block_size_meet_at_common_boundaries() -> None:
    specs = {"f": CacheSpec(head_dim=32), "w": window(6, head_dim=8)}
    layout = plan_layout(specs, block_tokens=4)
    assert [group.block_tokens for group in layout.groups] == [4, 16]
    cache = manager(layout)
    run(cache, list(range(50)))
    assert cache.lookup(cache.open([*range(50)])).length == 48
    assert cache.lookup(cache.open([*range(47)])).length == 32
    assert cache.lookup(cache.open([*range(20), *range(30)])).length == 16


def _forget(cache: CacheManager, group: int, key: bytes) -> None:
    """Evict one key, as taking its free block would."""
    block = cache.pool.find(group, key)
    assert block is not None
    cache.pool._forget(block)


# --- recurrent states -------------------------------------------------------------------------------------------------


def test_a_state_hit_needs_a_snapshot_at_its_boundary() -> None:
    cache = manager(plan_layout({"f": FULL, "s": STATE}, block_tokens=4), snapshots=8)
    tokens = list(range(30))
    holding = cache.open(tokens)
    cache.admit(holding, cache.lookup(holding))
    ends, done = [], 0
    while done < 30:
        count = cache.chunk(holding, done, min(11, 30 - done))
        assert cache.allocate(holding, done + count)
        moved = cache.snapshot(holding, done + count)
        done += count
        cache.commit(holding, done)
        ends.append((done, moved is not None))
    assert ends == [(8, True), (16, True), (24, True), (28, True), (30, False)]
    hit = cache.lookup(cache.open([*tokens[:22], 0]))
    assert (hit.length, len(hit.blocks[0])) == (16, 4)
    assert cache.lookup(cache.open(tokens)).length == 28
    second = cache.open(tokens)
    cache.admit(second, cache.lookup(second))
    assert cache.restore(second) == (4 + second.restored, second.slot + 1)
    cache.check_integrity([holding, second])
    cache.allocate(second, 30)
    cache.commit(second, 30)
    assert cache.restore(second) is None
    cache.free(second)
    cache.free(holding)
    cache.check_integrity([])
    assert cache.state_slots == 1 + 4 + 8


def test_snapshots_of_an_abandoned_step_are_not_found() -> None:
    cache = manager(plan_layout({"s": STATE}, block_tokens=4), snapshots=2)
    holding = cache.open(list(range(9)))
    cache.admit(holding, cache.lookup(holding))
    assert cache.allocate(holding, 8)
    assert cache.snapshot(holding, 8)
    cache.free(holding)
    assert cache.lookup(cache.open(list(range(9)))).length == 0
    assert cache.snapshots.free == 2


# --- invariants -------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "full": {"f": FULL},
    "mixed": {"f": FULL, "w": window(9)},
    "three": {"f": CacheSpec(head_dim=32), "w": window(9, head_dim=8), "c": window(12, "chunked", head_dim=16)},
    "states": {"f": FULL, "s": STATE},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_random_use_leaks_nothing_and_shares_only_equal_contents(name: str) -> None:
    """2,500 random operations per layout, 10,000 in all, against what every block really holds."""
    layout = plan_layout(LAYOUTS[name], block_tokens=4)
    draw = random.Random(name)
    cache = manager(layout, blocks=40, max_seqs=6, max_tokens=80, snapshots=5)
    contents: dict[int, tuple[int, tuple[int, ...]]] = {}  # block -> group and every token up to the block's end
    open_: dict[int, tuple[Holding, int]] = {}
    texts = [[draw.randrange(50) for _ in range(70)] for _ in range(3)]
    for number in range(2_500):
        action = draw.random()
        if action < 0.35 and cache.free_slots:
            tokens = [*draw.choice(texts)[: draw.randint(0, 60)], *range(draw.randint(1, 10))]
            holding = cache.open(tokens)
            hit = cache.lookup(holding)
            assert hit.length < len(tokens)
            _check_hit(cache, tokens, hit.length, hit.blocks, contents)
            cache.admit(holding, hit)
            open_[number] = (holding, hit.length)
        elif action < 0.75 and open_:
            name_ = draw.choice(list(open_))
            holding, done = open_[name_]
            end = min(len(holding.tokens), done + draw.randint(1, 12))
            if end > done and cache.allocate(holding, end):
                cache.snapshot(holding, end)
                for group, size in enumerate(g.block_tokens for g in layout.groups):
                    for block in range(done // size, ceil(end / size)):
                        until = min((block + 1) * size, end)
                        contents[holding.blocks[group][block]] = (group, tuple(holding.tokens[:until]))
                if end >= holding.milestone:
                    cache.commit(holding, end)
                open_[name_] = (holding, end)
        elif action < 0.97 and open_:
            holding, _ = open_.pop(draw.choice(list(open_)))
            cache.free(holding)
        elif action > 0.995:
            cache.reset()
        if number % 5 == 0:
            cache.check_integrity([holding for holding, _ in open_.values()])
    for holding, _ in open_.values():
        cache.free(holding)
    cache.check_integrity([])
    assert cache.stats.hits > 0


def _check_hit(
    cache: CacheManager,
    tokens: list[int],
    length: int,
    blocks: tuple[tuple[int, ...], ...],
    contents: dict[int, tuple[int, tuple[int, ...]]],
) -> None:
    for index, group in enumerate(cache.layout.groups):
        size = group.block_tokens
        assert len(blocks[index]) * size == length
        for place, block in enumerate(blocks[index]):
            if (place + 1) * size > min(group.first_needed(length), length - 1):
                assert contents[block] == (index, tuple(tokens[: (place + 1) * size]))
            else:
                assert block == 0
