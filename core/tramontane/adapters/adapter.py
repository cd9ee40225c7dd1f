# SPDX-License-Identifier: Apache-2.0
"""What a kind of adapter makes of its files: named low-rank pairs, nothing read yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from attrs import define, field, frozen

from tramontane.checkpoint import TensorRef


@frozen(kw_only=True)
class LowRank:
    """What an adapter adds to one linear module: ``scale * up (down x)``."""

    down: TensorRef
    """A [R, I]."""
    up: TensorRef
    """B [O, R]."""
    scale: float

    @property
    def rank(self) -> int:
        """R."""
        return self.down.shape[0]


@define(kw_only=True, eq=False)
class Adapter:
    """An opened adapter. Its files stay open until :meth:`close`."""

    kind: str
    """Name of the record that opened it: ``lora``."""
    path: Path
    deltas: Mapping[str, LowRank]
    """Module path, as in a Hugging Face checkpoint of the base model -> what is added there."""
    base: str | None = None
    """The model it says it was made for."""
    on_close: tuple[Callable[[], None], ...] = field(default=(), repr=False)

    def close(self) -> None:
        """Let go of the files."""
        for close in self.on_close:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
