# SPDX-License-Identifier: Apache-2.0
"""Where the adapters of one matrix are kept.

Adapters of like rank share a stack, padded to the next power of two, so that one of rank 8 never pays for another of
rank 256. What a stack holds is known by *column*: the adapter's place among all that a model has loaded, and in the
``mix`` of a batch. Stacks change between steps only.

Legend: S places of a stack, P parts of the matrix, R rank of a stack, r rank of an adapter, I inputs, O outputs of a
part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.weights import Matrix

LEAST_RANK = 8
"""Rank of the smallest stack."""
FREE = -1
"""Column of a place that holds nothing."""


def stack_rank(rank: int) -> int:
    """Rank of the stack that an adapter of this rank is kept in."""
    return max(LEAST_RANK, 1 << (rank - 1).bit_length())


@frozen(eq=False)
class Piece:
    """An adapter's pair for one part of a matrix, the scale in ``up``."""

    down_rI: Tensor
    up_rO: Tensor


@define(eq=False)
class Stack:
    """The adapters of one matrix that have ranks up to R."""

    rank: int
    down_SPRI: Tensor = field(repr=False)
    ups: list[Tensor | None] = field(repr=False)
    """Per part [S, R, O]; ``None`` where no adapter changes the part."""
    columns: list[int]
    """What each place holds; the places that hold nothing are zero."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in (self.down_SPRI, *self.ups) if tensor is not None)

    def take(self, column: int) -> int:
        """A place for a column: a free one, or one more."""
        if FREE not in self.columns:
            self.down_SPRI = _longer(self.down_SPRI)
            self.ups = [None if up is None else _longer(up) for up in self.ups]
            self.columns.append(FREE)
        place = self.columns.index(FREE)
        self.columns[place] = column
        return place

    def clear(self, place: int) -> None:
        """Give a place back."""
        for tensor in (self.down_SPRI, *self.ups):
            if tensor is not None:
                tensor[place].zero_()
        self.columns[place] = FREE


def _longer(tensor: Tensor) -> Tensor:
    return torch.cat((tensor, torch.zeros_like(tensor[:1])))


@define(eq=False)
class AdapterBank:
    """All adapters of one matrix."""

    matrix: Matrix
    dtype: torch.dtype
    device: torch.device
    stacks: dict[int, Stack] = field(factory=dict)
    """By rank."""
    places: dict[int, tuple[Stack, int]] = field(factory=dict, repr=False)
    """Column -> its stack and its place there. An adapter that leaves this matrix alone has none."""
    spans: tuple[slice, ...] = field(init=False)
    """The outputs of each part."""

    def __attrs_post_init__(self) -> None:
        ends, end = [], 0
        for part in self.matrix.parts:
            ends.append(slice(end, end + part.out_features))
            end += part.out_features
        self.spans = tuple(ends)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(stack.nbytes for stack in self.stacks.values())

    def put(self, column: int, pieces: Mapping[int, Piece]) -> None:
        """Keep an adapter's pairs, by part."""
        rank = stack_rank(max(piece.down_rI.shape[0] for piece in pieces.values()))
        stack = self.stacks.get(rank)
        if stack is None:
            stack = self.stacks[rank] = self._stack(rank)
        place = stack.take(column)
        for part, piece in pieces.items():
            own = piece.down_rI.shape[0]
            up_SRO = stack.ups[part]
            if up_SRO is None:
                shape = (len(stack.columns), rank, self.matrix.parts[part].out_features)
                up_SRO = stack.ups[part] = torch.zeros(shape, dtype=self.dtype, device=self.device)
            stack.down_SPRI[place, part, :own].copy_(piece.down_rI)
            up_SRO[place, :own].copy_(piece.up_rO)
        self.places[column] = (stack, place)

    def _stack(self, rank: int) -> Stack:
        parts = len(self.matrix.parts)
        shape = (1, parts, rank, self.matrix.in_features)
        down_SPRI = torch.zeros(shape, dtype=self.dtype, device=self.device)
        return Stack(rank, down_SPRI, [None] * parts, [FREE])

    def drop(self, column: int) -> None:
        """Forget an adapter; one that is not here is no error."""
        found = self.places.pop(column, None)
        if found is None:
            return
        stack, place = found
        stack.clear(place)
        if all(held == FREE for held in stack.columns):
            del self.stacks[stack.rank]

    def product(self, column: int) -> Tensor:
        """What an adapter adds to the whole matrix, float32: [sum of O, I]."""
        added_OI = torch.zeros(self.matrix.out_features, self.matrix.in_features, device=self.device)
        stack, place = self.places[column]
        for part, up_SRO in enumerate(stack.ups):
            if up_SRO is not None:
                added_OI[self.spans[part]] = up_SRO[place].float().t() @ stack.down_SPRI[place, part].float()
        return added_OI

    def pairs(self) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
        """Everything that is kept: column, outputs, down [R, I] and up [R, O]."""
        for column, (stack, place) in self.places.items():
            for part, up_SRO in enumerate(stack.ups):
                if up_SRO is not None:
                    yield column, self.spans[part], stack.down_SPRI[place, part], up_SRO[place]


def bank_bytes(matrix: Matrix, ranks: Mapping[int, int], itemsize: int) -> int:
    """Bytes that an adapter takes in a matrix's bank at most; ``ranks`` by part."""
    rank = stack_rank(max(ranks.values()))
    outputs = sum(matrix.parts[part].out_features for part in ranks)
    return rank * (len(matrix.parts) * matrix.in_features + outputs) * itemsize
