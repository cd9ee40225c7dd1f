# SPDX-License-Identifier: Apache-2.0
"""One piece of memory for all that a step computes, planned by liveness.

Each op output gets an offset such that values alive at the same time never overlap at the largest step; smaller steps
use a prefix of each place. The arena's size is the activation budget that the memory plan reserves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import frozen

from tramontane.tape.ir import Kind, Tape, TorchNode, resolve

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""


@frozen
class ArenaPlan:
    """Offset in bytes of each arena value, and the total."""

    offsets: Mapping[int, int]
    nbytes: int


@frozen
class _Life:
    value: int
    nbytes: int
    first: int
    last: int


def plan_arena(tape: Tape, max_tokens: int, max_outputs: int) -> ArenaPlan:
    """Greedy by size: the largest values first, each at the lowest offset free for its whole life."""
    offsets: dict[int, int] = {}
    placed: list[tuple[_Life, int]] = []
    for life in sorted(_lives(tape, max_tokens, max_outputs), key=lambda x: (-x.nbytes, x.first)):
        busy = sorted((at, at + other.nbytes) for other, at in placed if _overlap(life, other))
        offset = 0
        for begin, end in busy:
            if offset + life.nbytes <= begin:
                break
            offset = max(offset, end)
        placed.append((life, offset))
        offsets[life.value] = offset
    return ArenaPlan(offsets, max((at + life.nbytes for life, at in placed), default=0))


def _overlap(a: _Life, b: _Life) -> bool:
    return a.first <= b.last and b.first <= a.last


def _lives(tape: Tape, max_tokens: int, max_outputs: int) -> list[_Life]:
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    for index, node in enumerate(tape.nodes):
        for value in node.inputs:
            last[tape.base(value)] = index
        for value in node.outputs:
            first.setdefault(tape.base(value), index)
            last[tape.base(value)] = index
            if isinstance(node, TorchNode) and not node.is_view:
                # Foreign code may return something that aliases its input in ways storage does not show on other
                # devices; keep its inputs to the end.
                last.update({tape.base(v): len(tape.nodes) for v in node.inputs})
    for result in tape.results:
        last[tape.base(result)] = len(tape.nodes)
    lives = []
    for index, made in enumerate(tape.values):
        if made.kind is Kind.ARENA and index in first:
            size = math.prod(resolve(made.shape, max_tokens, max_outputs)) * made.dtype.itemsize
            lives.append(_Life(index, -(-size // ALIGNMENT) * ALIGNMENT, first[index], last[index]))
    return lives
