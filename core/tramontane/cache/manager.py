# SPDX-License-Identifier: Apache-2.0
"""Blocks for sequences: the one place that ties pool, prefix keys, groups and block tables together.

A sequence's share of the cache is a :class:`Holding`. The manager finds the longest prefix that every group still has,
grows a holding block by block, publishes blocks once they are full and computed, gives back what a window has left, and
takes everything back in the end. It decides nothing about who runs: that is the scheduler's business, which also sees
to it that a holding is freed only when no step in flight touches it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from math import ceil

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from tramontane.cache.pool import NULL_BLOCK, BlockPool
from tramontane.cache.prefix import PrefixHasher
from tramontane.cache.spec import CacheGroup, CacheLayout, most_blocks

_TENURES = itertools.count(1)
"""Of a whole process: who mirrors tables tells stays apart by them, whatever engine they were in."""


@define(eq=False)
class Holding:
    """What one sequence has in the cache."""

    tokens: list[int]
    """Ids known so far; the list is the sequence's own and grows."""
    apart: tuple[bytes, ...]
    """What sets its contents apart from others with the same tokens: a tenant's salt, an adapter's generation."""
    root: bytes
    """Parent key of its first block."""
    generation: int
    """The cache generation that ``root`` belongs to."""
    blocks: list[list[int]]
    """Per group its block ids by position; null where a window has passed."""
    given_back: list[int]
    """Per group how many leading blocks are null."""
    milestone: int
    """Computed tokens at which :meth:`CacheManager.commit` next has something to do."""
    tenure: int = 0
    """Number of its stay in a slot: no two have the same."""
    slot: int = -1
    """Row of the block tables; its recurrent state lives in state slot ``slot + 1``."""
    capacity: int = 0
    """Tokens for which every group has blocks."""
    keys: list[bytes] = field(factory=list)
    """The chain of keys, one per ``hash_tokens`` tokens."""
    published: int = 0
    """Leading keys whose blocks were published."""
    restored: int = NULL_BLOCK
    """The snapshot that its first step reads."""
    saving: list[tuple[int, int]] = field(factory=list)
    """(tokens, snapshot): states that steps in flight save."""


@frozen
class Hit:
    """The longest prefix of a sequence that is still in the cache."""

    length: int
    blocks: tuple[tuple[int, ...], ...]
    """Per group the blocks of that prefix; null outside its window."""
    snapshot: int = NULL_BLOCK


@define
class CacheStats:
    """Counts since the start; tokens unless said otherwise."""

    queries: int = 0
    """Tokens that were looked up."""
    hits: int = 0
    """Tokens of these that were found."""


def _first_block(group: CacheGroup, length: int) -> int:
    """The first block that a hit of ``length`` tokens takes over. Where nothing before is needed (a chunk ends there),
    the last block is asked for all the same: a hit means that the tokens were computed."""
    return min(group.first_needed(length), length - 1) // group.block_tokens


class CacheManager:
    """The cache of one engine.

    Args:
        layout: The layers' groups.
        num_blocks: Blocks of the pool, the null block included.
        max_seqs: Sequences that can hold blocks at a time.
        max_tokens: Longest sequence.
        prefix_cache: Whether contents are kept for reuse.
        snapshots: Recurrent states kept for reuse.
        namespace: What all contents depend on; see :class:`~tramontane.cache.prefix.PrefixHasher`.
    """

    def __init__(
        self,
        layout: CacheLayout,
        num_blocks: int,
        *,
        max_seqs: int,
        max_tokens: int,
        prefix_cache: bool = True,
        snapshots: int = 0,
        namespace: bytes = b"",
    ) -> None:
        self.layout = layout
        self.prefix_cache = prefix_cache
        self.pool = BlockPool(num_blocks, len(layout.groups))
        self.snapshots = BlockPool(1 + (snapshots if prefix_cache and layout.state_layers else 0))
        self.hasher = PrefixHasher(namespace)
        self.stats = CacheStats()
        self.tables: list[NDArray[np.int32]] = [
            np.zeros((max_seqs, ceil(max_tokens / group.block_tokens)), np.int32) for group in layout.groups
        ]
        self._max_seqs = max_seqs
        self._max_tokens = max_tokens
        self._sizes = [group.block_tokens for group in layout.groups]
        self._unit = layout.hash_tokens
        self._alignment = layout.alignment
        self._forgetful = [(index, group) for index, group in enumerate(layout.groups) if group.forgets]
        self._lasting = [index for index, group in enumerate(layout.groups) if not group.forgets]
        self._slots = list(range(max_seqs - 1, -1, -1))
        self.no_hit = Hit(0, ((),) * len(self._sizes))

    @property
    def free_slots(self) -> int:
        """Sequences that can still be admitted."""
        return len(self._slots)

    def open(self, tokens: list[int], salt: bytes = b"", *others: bytes) -> Holding:
        """An empty holding for a sequence. ``tokens`` is kept, not copied; the rest is a part of all its keys."""
        apart = (salt, *others)
        count = len(self._sizes)
        blocks: list[list[int]] = [[] for _ in range(count)]
        root, generation = self.hasher.root(*apart), self.hasher.generation
        return Holding(tokens, apart, root, generation, blocks, [0] * count, self._unit)

    # --- finding ------------------------------------------------------------------------------------------------------

    def lookup(self, holding: Holding) -> Hit:
        """The longest prefix, short of the last known token, that every group still has. Holds nothing yet."""
        if not self.prefix_cache:
            return self.no_hit
        if holding.generation != self.hasher.generation:
            holding.root, holding.generation = self.hasher.root(*holding.apart), self.hasher.generation
            holding.keys.clear()
        length = (len(holding.tokens) - 1) // self._alignment * self._alignment
        keys = self._keys(holding, length // self._unit)
        for group in self._lasting:
            length = min(length, self._run(group, keys, length))
        length = self._settle(keys, length // self._alignment * self._alignment)
        if not length:
            return self.no_hit
        blocks = tuple(self._found(index, group, keys, length) for index, group in enumerate(self.layout.groups))
        snapshot = self.snapshots.find(0, keys[length // self._unit - 1])
        return Hit(length, blocks, snapshot or NULL_BLOCK)

    def _keys(self, holding: Holding, count: int) -> list[bytes]:
        """The holding's chain of keys, made at least ``count`` long."""
        keys, unit, tokens = holding.keys, self._unit, holding.tokens
        parent = keys[-1] if keys else holding.root
        for start in range(len(keys) * unit, count * unit, unit):
            parent = self.hasher.extend(parent, tokens[start : start + unit])
            keys.append(parent)
        return keys

    def _run(self, group: int, keys: list[bytes], most: int) -> int:
        """Tokens of the unbroken run of blocks from the start that a group has."""
        size = self._sizes[group]
        step = size // self._unit
        for block in range(most // size):
            if self.pool.find(group, keys[(block + 1) * step - 1]) is None:
                return block * size
        return most

    def _settle(self, keys: list[bytes], length: int) -> int:
        """The longest aligned length, up to ``length``, that suits the windows and the recurrent states as well."""
        settled = False
        while length and not settled:
            settled = True
            for index, group in self._forgetful:
                missing = self._missing(index, group, keys, length)
                if missing >= 0:
                    length, settled = missing * group.block_tokens // self._alignment * self._alignment, False
            if length and self.layout.state_layers and self.snapshots.find(0, keys[length // self._unit - 1]) is None:
                length, settled = length - self._alignment, False
        return length

    def _missing(self, index: int, group: CacheGroup, keys: list[bytes], length: int) -> int:
        """The last block that a query at ``length`` needs and a group lacks; -1 if it has them all."""
        size = group.block_tokens
        step = size // self._unit
        for block in range(length // size - 1, _first_block(group, length) - 1, -1):
            if self.pool.find(index, keys[(block + 1) * step - 1]) is None:
                return block
        return -1

    def _found(self, index: int, group: CacheGroup, keys: list[bytes], length: int) -> tuple[int, ...]:
        size = group.block_tokens
        step, first = size // self._unit, _first_block(group, length)
        found = (self.pool.find(index, keys[(block + 1) * step - 1]) for block in range(first, length // size))
        return (NULL_BLOCK,) * first + tuple(block or NULL_BLOCK for block in found)

    # --- holding ------------------------------------------------------------------------------------------------------

    def missing_blocks(self, hit: Hit, tokens: int) -> int:
        """Free blocks that a sequence which begins with ``hit`` uses up to reach ``tokens`` tokens: new ones, and those
        of the hit that nobody else holds."""
        count = 0
        for group, blocks in zip(self.layout.groups, hit.blocks, strict=True):
            held = [block for block in blocks if block != NULL_BLOCK]
            count += max(0, most_blocks(group, tokens) - len(held))
            count += sum(self.pool.references(block) == 0 for block in held)
        return count

    def admit(self, holding: Holding, hit: Hit) -> None:
        """Give a holding its slot and the blocks of a hit."""
        slot = holding.slot = self._slots.pop()
        holding.tenure = next(_TENURES)
        for group, blocks in enumerate(hit.blocks):
            for block in blocks:
                if block != NULL_BLOCK:
                    self.pool.retain(block)
            holding.blocks[group] = list(blocks)
            holding.given_back[group] = next((i for i, block in enumerate(blocks) if block), len(blocks))
            self.tables[group][slot, : len(blocks)] = blocks
        holding.capacity = hit.length if self._sizes else self._max_tokens
        holding.published = hit.length // self._unit
        holding.milestone = hit.length + self._unit
        if hit.snapshot != NULL_BLOCK:
            self.snapshots.retain(hit.snapshot)
            holding.restored = hit.snapshot
            holding.milestone = hit.length + 1
        self.stats.queries += len(holding.tokens)
        self.stats.hits += hit.length

    def allocate(self, holding: Holding, tokens: int) -> bool:
        """Make room for ``tokens`` tokens in every group, or change nothing and return ``False``."""
        wanted = [ceil(tokens / size) - len(blocks) for size, blocks in zip(self._sizes, holding.blocks, strict=True)]
        if sum(count for count in wanted if count > 0) > self.pool.free:
            return False
        for table, blocks, count in zip(self.tables, holding.blocks, wanted, strict=True):
            if count > 0:
                taken = self.pool.take(count)
                table[holding.slot, len(blocks) : len(blocks) + count] = taken
                blocks += taken
        if self._sizes:
            holding.capacity = min(len(blocks) * size for blocks, size in zip(holding.blocks, self._sizes, strict=True))
        return True

    def commit(self, holding: Holding, computed: int) -> None:
        """Take note that a holding's first ``computed`` tokens are in the cache, their step having retired."""
        units = computed // self._unit
        if self.prefix_cache and units > holding.published:
            self._publish(holding, units)
        for index, group in self._forgetful:
            self._give_back(holding, index, group.first_needed(computed) // group.block_tokens)
        self._settle_states(holding, computed)
        holding.milestone = (units + 1) * self._unit

    def _publish(self, holding: Holding, units: int) -> None:
        keys = self._keys(holding, units)
        for group, size in enumerate(self._sizes):
            step, blocks = size // self._unit, holding.blocks[group]
            for block in range(holding.published // step, units // step):
                if blocks[block] != NULL_BLOCK:
                    self.pool.publish(group, keys[(block + 1) * step - 1], blocks[block])
        holding.published = units

    def _give_back(self, holding: Holding, index: int, first: int) -> None:
        """Release the blocks before block ``first`` of a group."""
        start = holding.given_back[index]
        if first <= start:
            return
        blocks = holding.blocks[index]
        self.pool.release(blocks[start:first])
        blocks[start:first] = [NULL_BLOCK] * (first - start)
        self.tables[index][holding.slot, start:first] = NULL_BLOCK
        holding.given_back[index] = first

    def free(self, holding: Holding) -> None:
        """Take everything back; the holding can be admitted again. Later blocks are forgotten before earlier ones."""
        for group, blocks in enumerate(holding.blocks):
            self.pool.release(reversed(blocks))
            self.tables[group][holding.slot, : len(blocks)] = NULL_BLOCK
            holding.blocks[group] = []
            holding.given_back[group] = 0
        self._drop_states(holding)
        self._slots.append(holding.slot)
        holding.slot = -1
        holding.capacity = holding.published = 0
        holding.milestone = self._unit

    def reset(self) -> None:
        """Forget all contents. Sequences that run keep theirs; nobody finds them any more."""
        self.pool.forget_all()
        self.snapshots.forget_all()
        self.hasher.generation += 1

    # --- recurrent states ---------------------------------------------------------------------------------------------

    @property
    def state_slots(self) -> int:
        """State slots that the storages need: padding, one per sequence, and the snapshots."""
        return 1 + self._max_seqs + self.snapshots.num_blocks - 1 if self.layout.state_layers else 0

    def chunk(self, holding: Holding, start: int, count: int) -> int:
        """How many of ``count`` prompt tokens to compute at once, so that chunks end where a state can be reused."""
        if self.snapshots.num_blocks == 1:
            return count
        last = (len(holding.tokens) - 1) // self._alignment * self._alignment
        end = min(start + count, last) // self._alignment * self._alignment
        return end - start if start < end else count

    def restore(self, holding: Holding) -> tuple[int, int] | None:
        """(from, to) state slots to copy before a holding's first step, if its prefix came with a snapshot."""
        return (self._max_seqs + holding.restored, holding.slot + 1) if holding.restored else None

    def snapshot(self, holding: Holding, end: int) -> tuple[int, int] | None:
        """(from, to) state slots to copy after a step that brings a holding to ``end`` tokens, if that is worth it."""
        if end % self._alignment or not self.snapshots.free:
            return None
        taken = self.snapshots.take(1)[0]
        holding.saving.append((end, taken))
        return (holding.slot + 1, self._max_seqs + taken)

    def _settle_states(self, holding: Holding, computed: int) -> None:
        """Publish the snapshots that are done, and let go of the one that was read."""
        if holding.restored:
            self.snapshots.release((holding.restored,))
            holding.restored = NULL_BLOCK
        while holding.saving and holding.saving[0][0] <= computed:
            end, taken = holding.saving.pop(0)
            self.snapshots.publish(0, self._keys(holding, end // self._unit)[end // self._unit - 1], taken)
            self.snapshots.release((taken,))

    def _drop_states(self, holding: Holding) -> None:
        self.snapshots.release((holding.restored, *(taken for _, taken in holding.saving)))
        holding.restored = NULL_BLOCK
        holding.saving.clear()

    # --- checking -----------------------------------------------------------------------------------------------------

    def check_integrity(self, holdings: Iterable[Holding]) -> None:
        """Check pool, tables and slots against all holdings.

        Raises:
            RuntimeError: A block leaked, is shared wrongly, or a table disagrees with its sequence.
        """
        holdings = list(holdings)
        self.pool.check_integrity(block for h in holdings for blocks in h.blocks for block in blocks)
        self.snapshots.check_integrity(taken for h in holdings for taken in (h.restored, *(s for _, s in h.saving)))
        slots = sorted([*self._slots, *(h.slot for h in holdings if h.slot >= 0)])
        if slots != list(range(self._max_seqs)):
            raise RuntimeError(f"slots leaked or are shared: {slots}")
        rows = {holding.slot: holding for holding in holdings}
        for index, table in enumerate(self.tables):
            for slot in range(self._max_seqs):
                blocks = rows[slot].blocks[index] if slot in rows else []
                if table[slot, : len(blocks)].tolist() != blocks or table[slot, len(blocks) :].any():
                    raise RuntimeError(f"table {index} disagrees with the sequence in slot {slot}")
