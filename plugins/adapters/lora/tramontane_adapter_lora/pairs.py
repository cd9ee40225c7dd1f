# SPDX-License-Identifier: Apache-2.0
"""From the tensors of a file to pairs, and everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import define, field

from tramontane.adapters import LowRank
from tramontane.checkpoint import MemoryTensor, TensorRef
from tramontane.errors import AdapterError

MAX_RANK = 4096
MAX_NAMED = 8
_OTHERS = {
    "lora_embedding_": "token embeddings",
    "lora_magnitude_vector": "DoRA's magnitudes",
    ".bias": "biases",
}
"""Part of a tensor's name -> what it is; such adapters are refused."""


@define(eq=False)
class Pairs:
    """The pairs of one file."""

    where: str
    """The file, for messages."""
    name: re.Pattern[str]
    """Finds ``module`` and ``side`` (A or B in either case) in a tensor's name."""
    rank: Callable[[str], int]
    """The rank that the configuration states for a module."""
    scale: Callable[[str], float]
    transposed: bool = False
    """Stored as A [I, R] and B [R, O]."""
    _sides: dict[str, dict[str, TensorRef]] = field(factory=dict, init=False)
    """Module -> side -> tensor."""
    _others: dict[str, list[str]] = field(factory=dict, init=False)
    """What cannot be served -> tensors."""
    _wrong: list[str] = field(factory=list, init=False)

    def of(self, tensors: Iterable[TensorRef]) -> dict[str, LowRank]:
        """Module -> pair.

        Raises:
            AdapterError: Something is wrong; all kinds of fault are told.
        """
        for tensor in tensors:
            self._sort(tensor)
        found = {module: pair for module in self._sides if (pair := self._pair(module)) is not None}
        lines = list(self._faults())
        if lines:
            raise AdapterError(
                f"{self.where} cannot be used:\n  " + "\n  ".join(lines),
                hint="docs/adapters.md says what is supported; a damaged file has to be fetched or saved again",
            )
        return found

    def _sort(self, tensor: TensorRef) -> None:
        named = self.name.fullmatch(tensor.name)
        if named is None:
            kind = next((kind for part, kind in _OTHERS.items() if part in tensor.name), "whole weights")
            self._others.setdefault(kind, []).append(tensor.name)
            return
        side, sides = named["side"].upper(), self._sides.setdefault(named["module"], {})
        if side in sides:
            self._wrong.append(f"{named['module']} has two tensors lora_{side}")
        sides[side] = tensor

    def _pair(self, module: str) -> LowRank | None:
        sides = self._sides[module]
        missing = [side for side in "AB" if side not in sides]
        if missing:
            self._wrong.append(f"{module} has no lora_{missing[0]}")
            return None
        down, up = sides["A"], sides["B"]
        fault = self._fault(module, down, up)
        if fault is not None:
            self._wrong.append(f"{module}: {fault}")
            return None
        if self.transposed:
            down, up = (MemoryTensor.of(one.name, one.read().t()) for one in (down, up))
        return LowRank(down=down, up=up, scale=self.scale(module))

    def _fault(self, module: str, down: TensorRef, up: TensorRef) -> str | None:
        if not (down.dtype.is_floating_point and up.dtype.is_floating_point):
            return f"its tensors are {down.dtype} and {up.dtype}, no floating-point numbers"
        rank_of_down, rank_of_up = (1, 0) if self.transposed else (0, 1)
        if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[rank_of_down] != up.shape[rank_of_up]:
            form = "[I, R] and [R, O]" if self.transposed else "[R, I] and [O, R]"
            return f"lora_A {list(down.shape)} and lora_B {list(up.shape)} are no pair {form}"
        rank, said = down.shape[rank_of_down], self.rank(module)
        if rank != said:
            return f"its rank is {rank}, and adapter_config.json says {said}"
        return f"its rank is {rank}, above {MAX_RANK}" if rank > MAX_RANK else None

    def _faults(self) -> Iterator[str]:
        for kind, names in self._others.items():
            yield f"{len(names)} tensors hold {kind}, which adapters cannot change here: {_few(names)}"
        if self._wrong:
            yield f"{len(self._wrong)} modules are broken: {_few(self._wrong)}"
        if not self._sides and not self._others:
            yield "it holds no tensors"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"
