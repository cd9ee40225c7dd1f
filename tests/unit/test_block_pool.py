# SPDX-License-Identifier: Apache-2.0
"""The block pool: order of reuse, keys, and its invariants under random use."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tramontane.cache.pool import NULL_BLOCK, BlockPool


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def test_blocks_are_taken_least_recently_used_first() -> None:
    pool = BlockPool(6)
    first = pool.take(5)
    assert sorted(first) == [1, 2, 3, 4, 5]
    for block in first:
        pool.publish(0, key(block), block)
    pool.release([3, 1])
    pool.release([2])
    assert pool.take(3) == [3, 1, 2]


def test_blocks_without_a_key_are_taken_before_remembered_ones() -> None:
    pool = BlockPool(4)
    one, two, three = pool.take(3)
    pool.publish(0, b"one", one)
    pool.release([one])
    pool.release([two, three])
    assert set(pool.take(2)) == {two, three}
    assert pool.find(0, b"one") == one


def test_a_free_block_remembers_until_it_is_taken() -> None:
    pool = BlockPool(3)
    block = pool.take(1)[0]
    assert pool.publish(0, b"k", block)
    pool.release([block])
    assert pool.find(0, b"k") == block
    pool.retain(block)
    assert (pool.free, pool.references(block)) == (1, 1)
    pool.release([block])
    pool.take(2)
    assert pool.find(0, b"k") is None
    assert pool.evictions == 1


def test_the_first_block_of_a_key_stays_the_one_found() -> None:
    pool = BlockPool(4)
    one, two = pool.take(2)
    assert pool.publish(0, b"k", one)
    assert not pool.publish(0, b"k", two)
    assert pool.find(0, b"k") == one
    pool.release([two])
    pool.check_integrity([one])


def test_groups_do_not_share_keys() -> None:
    pool = BlockPool(4, groups=2)
    one, two = pool.take(2)
    pool.publish(0, b"k", one)
    pool.publish(1, b"k", two)
    assert (pool.find(0, b"k"), pool.find(1, b"k")) == (one, two)
    pool.check_integrity([one, two])


def test_misuse_is_an_error_and_changes_nothing() -> None:
    pool = BlockPool(4)
    with pytest.raises(IndexError, match="4 blocks asked for, 3 are free"):
        pool.take(4)
    block = pool.take(1)[0]
    pool.release([block])
    with pytest.raises(ValueError, match="released more often"):
        pool.release([block])
    pool.release([NULL_BLOCK])
    pool.check_integrity([])


def test_integrity_check_names_what_is_wrong() -> None:
    pool = BlockPool(4)
    block = pool.take(1)[0]
    with pytest.raises(RuntimeError, match=f"block {block} has 0 holders, 1 are counted"):
        pool.check_integrity([])
    with pytest.raises(RuntimeError, match="has 2 holders"):
        pool.check_integrity([block, block])


class PoolMachine(RuleBasedStateMachine):
    """The pool against a dictionary of holds and a list of what free blocks remember."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12, groups=2)
        self.holds: list[int] = []
        self.keys: dict[tuple[int, bytes], int] = {}

    @rule(count=st.integers(0, 12))
    def take(self, count: int) -> None:
        if count > self.pool.free:
            with pytest.raises(IndexError):
                self.pool.take(count)
            return
        taken = self.pool.take(count)
        assert len(set(taken)) == count
        assert not set(taken) & set(self.holds)
        assert NULL_BLOCK not in taken
        self.keys = {k: b for k, b in self.keys.items() if b not in taken}
        self.holds += taken

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(self.holds))
        self.holds.remove(block)
        self.pool.release([block])

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), group=st.integers(0, 1), number=st.integers(0, 8))
    def publish(self, data: st.DataObject, group: int, number: int) -> None:
        block = data.draw(st.sampled_from(self.holds))
        if (group, key(number)) not in self.keys and block not in self.keys.values():
            self.keys[group, key(number)] = block
        self.pool.publish(group, key(number), block)

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def hit(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.keys.values())))
        self.pool.retain(block)
        self.holds.append(block)

    @rule()
    def forget_all(self) -> None:
        self.pool.forget_all()
        self.keys.clear()

    @invariant()
    def agrees(self) -> None:
        self.pool.check_integrity(self.holds)
        assert self.pool.used == len(set(self.holds))
        for group in range(2):
            for number in range(9):
                assert self.pool.find(group, key(number)) == self.keys.get((group, key(number)))


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)
TestPoolMachine = PoolMachine.TestCase


def test_ten_thousand_random_operations_leak_and_share_nothing() -> None:
    draw = random.Random(7)
    pool = BlockPool(64, groups=3)
    holds: list[int] = []
    for number in range(10_000):
        match draw.randrange(4):
            case 0 if pool.free:
                holds += pool.take(draw.randint(1, min(5, pool.free)))
            case 1 if holds:
                draw.shuffle(holds)
                gone, holds = holds[:3], holds[3:]
                pool.release(gone)
            case 2 if holds:
                pool.publish(draw.randrange(3), key(number % 200), draw.choice(holds))
            case 3:
                found = pool.find(draw.randrange(3), key(draw.randrange(200)))
                if found is not None:
                    pool.retain(found)
                    holds.append(found)
        if number % 20 == 0:
            pool.check_integrity(holds)
    pool.check_integrity(holds)
    pool.release(holds)
    assert pool.free == 63
