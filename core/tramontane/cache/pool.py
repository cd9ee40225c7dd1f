# SPDX-License-Identifier: Apache-2.0
"""The block pool: who holds which block, which blocks are free, and what free blocks still remember.

A block is an id. Free blocks form one list, least recently used first; a free block keeps the key under which it was
published until it is taken again, so yesterday's prompt can still be found in it. All of it lives in flat arrays (the
list is threaded through two of them, with the null block 0 as its head), which the garbage collector never walks.

The pool knows neither sequences nor tokens, and never looks into a block.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

NULL_BLOCK = 0


class BlockPool:
    """``num_blocks`` blocks, block 0 being the null block that nobody owns.

    Args:
        num_blocks: Blocks, the null block included.
        groups: Cache groups; equal keys of different groups are different contents.
    """

    __slots__ = ("_free", "_group", "_index", "_keys", "_next", "_previous", "_references", "evictions", "num_blocks")

    def __init__(self, num_blocks: int, groups: int = 1) -> None:
        self.num_blocks = num_blocks
        self.evictions = 0
        self._free = num_blocks - 1
        self._references = array("i", bytes(4 * num_blocks))
        self._next = array("i", (*range(1, num_blocks), NULL_BLOCK))
        self._previous = array("i", (num_blocks - 1, *range(num_blocks - 1)))
        self._group = array("H", bytes(2 * num_blocks))
        self._keys: list[bytes | None] = [None] * num_blocks
        self._index: list[dict[bytes, int]] = [{} for _ in range(groups)]

    @property
    def free(self) -> int:
        """Blocks that can be taken, those that still remember something included."""
        return self._free

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.num_blocks - 1 - self._free

    @property
    def published(self) -> int:
        """Blocks that can be found by key."""
        return sum(len(index) for index in self._index)

    def references(self, block: int) -> int:
        """How many holders a block has."""
        return self._references[block]

    def take(self, count: int) -> list[int]:
        """Take the ``count`` least recently used free blocks; they forget their keys and get one holder.

        Raises:
            IndexError: Fewer are free; nothing was taken.
        """
        if count > self._free:
            raise IndexError(f"{count} blocks asked for, {self._free} are free")
        following, references, keys = self._next, self._references, self._keys
        taken = []
        block = following[NULL_BLOCK]
        for _ in range(count):
            taken.append(block)
            references[block] = 1
            if keys[block] is not None:
                self._forget(block)
                self.evictions += 1
            block = following[block]
        following[NULL_BLOCK] = block
        self._previous[block] = NULL_BLOCK
        self._free -= count
        return taken

    def retain(self, block: int) -> None:
        """Add a holder; a free block leaves the free list and keeps its key."""
        if self._references[block] == 0:
            before, after = self._previous[block], self._next[block]
            self._next[before] = after
            self._previous[after] = before
            self._free -= 1
        self._references[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Give up one hold of each block. Null blocks are skipped.

        A block without holders becomes free: the last of the list to be taken if it has a key, the first if not.
        Of the blocks with a key, those earlier in a call are taken earlier.

        Raises:
            ValueError: A block has no holder.
        """
        references, following, previous = self._references, self._next, self._previous
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            left = references[block] - 1
            if left < 0:
                raise ValueError(f"block {block} was released more often than it was taken")
            references[block] = left
            if left:
                continue
            before = previous[NULL_BLOCK] if self._keys[block] is not None else NULL_BLOCK
            after = following[before]
            following[before] = previous[after] = block
            previous[block] = before
            following[block] = after
            self._free += 1

    def publish(self, group: int, key: bytes, block: int) -> bool:
        """Let a held, full, computed block be found under ``key``. The first block of a key stays the one found.

        Returns:
            Whether this block is now the one found.
        """
        index = self._index[group]
        if key in index or self._keys[block] is not None:
            return index.get(key) == block
        index[key] = block
        self._keys[block] = key
        self._group[block] = group
        return True

    def find(self, group: int, key: bytes) -> int | None:
        """The block published under a key, free or held."""
        return self._index[group].get(key)

    def forget_all(self) -> None:
        """Forget every key. Held blocks stay held."""
        for index in self._index:
            for block in index.values():
                self._keys[block] = None
            index.clear()

    def _forget(self, block: int) -> None:
        key = self._keys[block]
        if key is not None:
            del self._index[self._group[block]][key]
            self._keys[block] = None

    def check_integrity(self, holders: Iterable[int] | None = None) -> None:
        """Check the pool against itself and, if given, against the blocks that holders say they hold.

        Args:
            holders: Every hold of every holder (a block held twice appears twice); null blocks are skipped.

        Raises:
            RuntimeError: Something does not add up; the message names the block.
        """
        seen = self._check_free_list()
        for block in range(1, self.num_blocks):
            if (self._references[block] == 0) != (block in seen):
                raise RuntimeError(f"block {block} has {self._references[block]} holders, free: {block in seen}")
        for group, index in enumerate(self._index):
            for key, block in index.items():
                if self._keys[block] != key or self._group[block] != group:
                    raise RuntimeError(f"block {block} is found under a key of group {group} that it does not carry")
        if sum(key is not None for key in self._keys) != self.published:
            raise RuntimeError("a block carries a key under which it is not found")
        if holders is not None:
            self._check_holders(holders)

    def _check_free_list(self) -> set[int]:
        seen: set[int] = set()
        before, block = NULL_BLOCK, self._next[NULL_BLOCK]
        while block != NULL_BLOCK:
            if block in seen or self._previous[block] != before:
                raise RuntimeError(f"the free list is broken at block {block}")
            seen.add(block)
            before, block = block, self._next[block]
        if self._previous[NULL_BLOCK] != before or len(seen) != self._free:
            raise RuntimeError(f"the free list has {len(seen)} blocks, {self._free} are counted")
        return seen

    def _check_holders(self, holders: Iterable[int]) -> None:
        held = [0] * self.num_blocks
        for block in holders:
            held[block] += block != NULL_BLOCK
        for block in range(1, self.num_blocks):
            if held[block] != self._references[block]:
                raise RuntimeError(f"block {block} has {held[block]} holders, {self._references[block]} are counted")
