# SPDX-License-Identifier: Apache-2.0
"""A step's rows as a compact record, from which a backend builds the batch on the device.

What :mod:`tramontane.prepare` writes for each token and each block follows from a few numbers a row; only ids and new
blocks do not. So the record holds those, the device keeps the block tables of all slots, and one copy of some kilobytes
a step, beside the step that runs, is all that goes there.

The record is one row of int32 words: a header (:data:`HEADER`), a line of :data:`OWN` words and :data:`PER_GROUP` words
a cache group for each row, the ids of all tokens, and the blocks that the device does not know yet.

Shape legend: T tokens, R rows, S slots, B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray
from torch import Tensor

from tramontane.cache.spec import CacheLayout
from tramontane.fields import Fields
from tramontane.ring import Inbox
from tramontane.sequence import StepPlan

HEADER = 5
"""True T, R and L; where the ids begin, and where the new blocks do."""
OWN = 6
"""A row's slot, first position, tokens, first of the step's tokens, sample of the step before that is its last token
(-1: the id is known), and logit row (-1: none)."""
PER_GROUP = 4
"""A row's blocks that the device knows, blocks, leading blocks that are null, and where the new ones begin."""


@frozen
class Size:
    """A batch's extents, after padding."""

    tokens: int
    rows: int
    outputs: int
    blocks: tuple[int, ...]
    """B of each group."""


@frozen
class StepRows:
    """What a batch is built from, on the device."""

    record: Tensor
    """int32."""
    previous_L: Tensor | None
    """int64: the ids that the step before has sampled; ``None`` where no row waits for one."""
    kept: Sequence[Tensor]
    """Per group int32 [S, B]: the blocks of each slot as far as they are known; new ones are added."""
    block_tokens: Sequence[int]
    """Per group the tokens of a block."""
    states: bool
    """Whether rows have recurrent states."""


Fill = Callable[[StepRows, Fields[Tensor], Size], None]
"""``fill(rows, batch, size)`` writes the fields of a batch up to ``size``: what the host would have written with that
padding, but for ``feed_to`` and ``feed_from``. Tables are null beyond a row's blocks. It neither waits for the device
nor reads anything on the host."""


@define(eq=False)
class RowFeed:
    """Writes and sends records, and knows which blocks the device has.

    Args:
        layout: The cache groups.
        fill: The backend's.
        widths: Per group the most blocks of a sequence.
        max_rows: Most rows of a step, and slots.
        max_tokens: Most tokens of a step.
        device: Where batches are built.
    """

    layout: CacheLayout
    fill: Fill
    widths: Sequence[int]
    max_rows: int
    max_tokens: int
    device: torch.device
    _inbox: Inbox = field(init=False, repr=False)
    _kept: list[Tensor] = field(init=False, repr=False)
    _known: list[list[int]] = field(init=False, repr=False)
    """Per group and slot: blocks that the device has."""
    _tenures: list[int] = field(init=False, repr=False)
    """Per slot: the stay (:class:`tramontane.cache.manager.Holding`) that they belong to."""

    def __attrs_post_init__(self) -> None:
        line = OWN + PER_GROUP * len(self.widths)
        words = HEADER + self.max_rows * (line + sum(self.widths)) + self.max_tokens
        self._inbox = Inbox(4 * words, self.device)
        self._kept = [torch.zeros(self.max_rows, n, dtype=torch.int32, device=self.device) for n in self.widths]
        self._known = [[0] * self.max_rows for _ in self.widths]
        self._tenures = [0] * self.max_rows

    def build(self, plan: StepPlan, previous: Tensor | None, batch: Fields[Tensor], size: Size) -> None:
        """Bring a step's rows to the device and have its batch built there. Outputs are those that are sampled from."""
        words = self._inbox.next().numpy().view(np.int32)
        used, news = self._write(words, plan)
        record = self._inbox.send(4 * used).view(torch.int32)
        sizes = [group.block_tokens for group in self.layout.groups]
        try:
            self.fill(StepRows(record, previous, self._kept, sizes, bool(self.layout.state_layers)), batch, size)
        finally:  # what was launched before a failure still reads the record
            self._inbox.taken()
        for group, slot, blocks in news:  # not before: what failed has to be sent again
            self._known[group][slot] = blocks

    def _write(self, words: NDArray[np.int32], plan: StepPlan) -> tuple[int, list[tuple[int, int, int]]]:
        """Write the record; returns its length in words, and (group, slot, blocks) of what is new in it."""
        rows, caches = plan.rows, [row.seq.cache for row in plan.rows]
        for cache in caches:
            if self._tenures[cache.slot] != cache.tenure:
                self._tenures[cache.slot] = cache.tenure
                for known in self._known:
                    known[cache.slot] = 0
        slots, counts = [cache.slot for cache in caches], [row.count for row in rows]
        samples = accumulate([row.samples for row in rows])
        columns = [
            slots, [row.start for row in rows], counts, list(accumulate(counts[:-1], initial=0)),
            [row.source for row in rows], [n - 1 if row.samples else -1 for n, row in zip(samples, rows, strict=True)],
        ]  # fmt: skip
        ids_at = HEADER + len(rows) * (OWN + PER_GROUP * len(self.widths))
        end = blocks_at = ids_at + plan.tokens
        news = []
        for group, known in enumerate(self._known):
            lengths, there = [len(cache.blocks[group]) for cache in caches], [known[slot] for slot in slots]
            places = [0] * len(rows)
            if lengths != there:
                for index, (cache, old, new) in enumerate(zip(caches, there, lengths, strict=True)):
                    if old < new:
                        places[index], start, end = end, end, end + new - old
                        words[start:end] = cache.blocks[group][old:]
                        news.append((group, cache.slot, new))
            columns += [there, lengths, [cache.given_back[group] for cache in caches], places]
        words[:HEADER] = (plan.tokens, len(rows), plan.outputs, ids_at, blocks_at)
        words[HEADER:ids_at].reshape(len(rows), -1)[:] = np.array(columns, np.int32).T
        words[ids_at:blocks_at] = _ids(plan)
        return end, news


def _ids(plan: StepPlan) -> list[int]:
    """The ids of the step's tokens; 0 for one that the host has not read."""
    ids: list[int] = []
    for row in plan.rows:
        known = row.count - (row.source >= 0)
        ids += row.seq.tokens[row.start : row.start + known]
        if row.source >= 0:
            ids.append(0)
    return ids
