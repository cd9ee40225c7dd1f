# SPDX-License-Identifier: Apache-2.0
"""Writing safetensors files tensor by tensor: sizes are known before any tensor is made, so none waits for another.

Format: https://huggingface.co/docs/safetensors. Tensors of wide elements come first, so that all are aligned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.checkpoint.safetensors import DTYPES
from tramontane.errors import CheckpointError

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 64


@frozen
class Slot:
    """A tensor that is to come."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return prod(self.shape) * self.dtype.itemsize


@define
class TensorFile:
    """One file, open for writing; every tensor that it was made for must be put before it is closed."""

    path: Path
    slots: Mapping[str, Slot]
    metadata: Mapping[str, str] = field(factory=dict)
    _file: BinaryIO = field(init=False, repr=False)
    _offsets: dict[str, int] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        header: dict[str, object] = {"__metadata__": dict(self.metadata)}
        end = 0
        for name, slot in sorted(self.slots.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
            self._offsets[name], start, end = end, end, end + slot.nbytes
            header[name] = {"dtype": _NAMES[slot.dtype], "shape": list(slot.shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % _ALIGNMENT)
        self._file = self.path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        start = self._file.tell()
        self._offsets = {name: start + offset for name, offset in self._offsets.items()}
        self._file.truncate(start + end)

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one tensor at its place.

        Raises:
            CheckpointError: It is not of the type and shape that were announced, or was not announced.
        """
        slot, offset = self.slots[name], self._offsets.pop(name, None)
        if offset is None or (tensor.dtype, tuple(tensor.shape)) != (slot.dtype, slot.shape):
            raise CheckpointError(f"{name}: {tensor.dtype} {list(tensor.shape)} was not announced to {self.path}")
        self._file.seek(offset)
        self._file.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._offsets:
            raise CheckpointError(f"{self.path} lacks {', '.join(self._offsets)}")
