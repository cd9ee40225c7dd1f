# SPDX-License-Identifier: Apache-2.0
"""One stored layer, and what its description says. Everything comes from strangers and is checked here."""

from __future__ import annotations

from typing import TypeVar

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import Lookup, StoredTensor
from tramontane.errors import CheckpointError

Shape = tuple[int, ...]
T = TypeVar("T")


@frozen
class Layer:
    """One module of the model and what is stored for it."""

    path: str
    shape: Shape
    """Logical, [O, I] or [X, O, I]."""
    weight: StoredTensor
    lookup: Lookup

    @property
    def name(self) -> str:
        """The module's name in the file."""
        return self.weight.name.removesuffix(".weight")

    def number(self, field: str, dtype: torch.dtype) -> int:
        """A field that is one whole number, the same for all experts.

        Raises:
            CheckpointError: It is missing, of another type, or experts differ.
        """
        return self._one(field, [self._scalar(field, one, dtype) for one in self._values(field)])

    def stored_shape(self) -> Shape:
        """The shape that a layer of blocks states, without the experts.

        Raises:
            CheckpointError: It states none, or one that is not the model's.
        """
        found = []
        for one in self._values("weight.shape"):
            if one.dim() != 1 or one.dtype is not torch.uint32 or not 2 <= one.numel() <= 3:
                raise CheckpointError(f"{self.name}.weight.shape is no list of two or three sizes")
            found.append(tuple(one.long().tolist())[-2:])
        shape = self._one("weight.shape", found)
        if shape[-1] != self.shape[-1]:
            raise CheckpointError(
                f"{self.name} has rows of {shape[-1]} elements; {self.path} of the model has rows of {self.shape[-1]}"
            )
        return shape

    def want(self, *dtypes: torch.dtype, field: str = "weight") -> StoredTensor:
        """A stored field, which must be of one of these types.

        Raises:
            CheckpointError: It is missing or of another type.
        """
        stored = self.lookup.stored(field)
        if stored is None:
            raise CheckpointError(f"{self.name} lacks the field {field}")
        if stored.dtype not in dtypes:
            raise CheckpointError(f"{stored.name} is {stored.dtype}; a layer of its kind has {_either(dtypes)}")
        return stored

    def single(self, kind: str) -> None:
        """Refuse stacks of experts, which no writer makes of this kind."""
        if len(self.weight.shape) == 3:
            raise CheckpointError(f"{self.name} is a stack of experts in {kind}, which the format does not have")

    def _values(self, field: str) -> tuple[Tensor, ...]:
        found = self.lookup.values(field)
        if not found:
            raise CheckpointError(f"{self.name} lacks the field {field}")
        return found

    def _scalar(self, field: str, value: Tensor, dtype: torch.dtype) -> int:
        if value.numel() != 1 or value.dtype is not dtype:
            raise CheckpointError(f"{self.name}.{field} is no single number of the type {dtype}")
        return int(value)

    def _one(self, field: str, found: list[T]) -> T:
        if len(set(found)) != 1:
            raise CheckpointError(f"{self.name}: experts of one layer differ in {field}")
        return found[0]


def _either(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(map(str, dtypes))
