# SPDX-License-Identifier: Apache-2.0
"""A stack of matrices, one per expert, each stored part by part in native layouts. It computes nothing.

Legend: X experts, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import Array

import torch
from attrs import define, field
from torch import Tensor

from tramontane.errors import PlanError
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.layouts.stored import StoredPart
from tramontane_backend_cpu.library import empty_bytes

_LINE = 64
"""Bytes that a matrix begins at a multiple of."""


@define(eq=False)
class Shelf:
    """Gives memory to ``count`` matrices of one size from one piece, so that small ones share huge pages."""

    count: int
    _memory: Tensor | None = field(default=None, init=False, repr=False)
    _given: int = field(default=0, init=False)

    def __call__(self, nbytes: int) -> Tensor:
        """The next place: uint8 [nbytes]."""
        size = -(-nbytes // _LINE) * _LINE
        if self._memory is None:
            self._memory = empty_bytes(size * self.count)
        start = self._given * size
        self._given += 1
        return self._memory[start : start + nbytes]


@define(eq=False)
class StackedStored:
    """Implements :class:`tramontane.weights.Stored` and :class:`tramontane.weights.LaidOut`."""

    path: str
    dtype: torch.dtype
    """Type of the activations, and of what is dequantized."""
    stacks: Sequence[Sequence[StoredPart]]
    """[part][expert]."""
    layout: str = field(init=False)
    """The parts' layouts, each once."""
    matrices: Array[abi.Matrix] = field(init=False, repr=False)
    """[expert][part], for ``tm_experts``."""

    def __attrs_post_init__(self) -> None:
        self.layout = "+".join(dict.fromkeys(stack[0].layout for stack in self.stacks))
        each = [part.matrix for parts in zip(*self.stacks, strict=True) for part in parts]
        self.matrices = (abi.Matrix * len(each))(*each)

    @property
    def outputs(self) -> list[int]:
        """O of each part."""
        return [stack[0].matrix.outputs for stack in self.stacks]

    @property
    def inputs(self) -> int:
        """I."""
        return self.stacks[0][0].matrix.inputs

    @property
    def experts(self) -> int:
        """X."""
        return len(self.stacks[0])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes for stack in self.stacks for part in stack)

    def fill(self, part: int, fields: Mapping[str, Tensor]) -> None:
        """Take the canonical fields of one part, each with a leading axis of experts."""
        for expert, one in enumerate(self.stacks[part]):
            one.fill({name: value[expert] for name, value in fields.items()})

    def unpack(self, part: int) -> Mapping[str, Tensor]:
        """The exact canonical fields of one part."""
        each = [one.unpack() for one in self.stacks[part]]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    def laid_out(self, part: int) -> Mapping[str, Tensor]:
        """What the experts' matrices of one part hold, by number and name."""
        each = [one.laid_out() for one in self.stacks[part]]
        return {f"{expert}.{name}": tensor for expert, held in enumerate(each) for name, tensor in held.items()}

    def adopt(self, part: int, tensors: Mapping[str, Tensor]) -> None:
        """Take what they are to hold."""
        each: list[dict[str, Tensor]] = [{} for _ in self.stacks[part]]
        for key, tensor in tensors.items():
            expert, _, name = key.partition(".")
            each[int(expert)][name] = tensor
        for expert, (one, held) in enumerate(zip(self.stacks[part], each, strict=True)):
            one.adopt(held)
            self.matrices[expert * len(self.stacks) + part] = one.matrix

    def dequantize(self) -> Tensor:
        """All experts as one floating-point tensor [X, O, I]."""
        return torch.stack([self.expert(index) for index in range(self.experts)])

    def rows(self, ids: Tensor) -> Tensor:
        """Not one matrix."""
        raise PlanError(f"{self.path} is a stack of matrices; rows are looked up in a single one")

    def expert(self, index: int) -> Tensor:
        """One matrix as floating point: [O, I]."""
        parts = [stack[index] for stack in self.stacks]
        return torch.cat([part.rows(torch.arange(part.matrix.outputs), self.dtype) for part in parts])
