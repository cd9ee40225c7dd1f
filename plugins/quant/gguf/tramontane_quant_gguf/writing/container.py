# SPDX-License-Identifier: Apache-2.0
"""The GGUF container, version 3, from metadata and tensors that are made one at a time.

Whole numbers become 32-bit unsigned (or as wide and signed as they must be), floats float32, numpy scalars and arrays
what their type says: readers are strict about the types of keys. The file appears under its name when it is whole.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.errors import CheckpointError
from tramontane.schemes import BlockCodec
from tramontane_quant_gguf.reading.parse import ARRAY, BOOL, DEFAULT_ALIGNMENT, FLOAT, MAGIC, SCALARS, TEXT
from tramontane_quant_gguf.reading.values import Strings, shortest

VERSION = 3
_KINDS = {np.dtype(name): number for number, name in SCALARS.items()}


@frozen
class OutTensor:
    """One tensor to be written: name, type, shape (outermost dimension first, in elements), and who makes its bytes."""

    name: str
    type: BlockCodec
    shape: tuple[int, ...]
    make: Callable[[], Tensor] = field(repr=False)
    """Gives the blocks as uint8, rows back to back, in any shape."""

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count // self.type.block * self.type.nbytes


def write_file(path: Path, metadata: Mapping[str, Any], tensors: Sequence[OutTensor]) -> None:
    """Write one file.

    Args:
        path: Where; an existing file is replaced once the new one is whole.
        metadata: Key -> value: text, truth value, number, numpy scalar or array, or texts.
        tensors: Written in this order.

    Raises:
        CheckpointError: A value or a tensor cannot be written, or the disk refuses.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(_head(metadata, tensors))
            _pad(file)
            for tensor in tensors:
                _write_tensor(file, tensor)
        unfinished.replace(path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _head(metadata: Mapping[str, Any], tensors: Sequence[OutTensor]) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _pair(key, value)]
    offset = 0
    for tensor in tensors:
        if tensor.shape[-1] % tensor.type.block:
            raise CheckpointError(f"{tensor.name}: rows of {tensor.shape[-1]} are not whole {tensor.type.name} blocks")
        dims = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        parts += [_text(tensor.name), dims, struct.pack("<IQ", tensor.type.id, offset)]
        offset += -(-tensor.nbytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    return b"".join(parts)


def _write_tensor(file: BinaryIO, tensor: OutTensor) -> None:
    content = tensor.make().contiguous().view(torch.uint8)
    if content.numel() != tensor.nbytes:
        raise CheckpointError(f"{tensor.name} was made of {content.numel()} bytes instead of {tensor.nbytes}")
    file.write(memoryview(content.flatten().numpy()))
    _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "replace")
    return struct.pack("<Q", len(encoded)) + encoded


def _pair(key: str, value: Any) -> bytes:
    """Type and value of a metadata pair."""
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL, value)
    if isinstance(value, float) and not isinstance(value, np.generic):
        return struct.pack("<If", FLOAT, value)
    if isinstance(value, int):
        value = _narrow(value)
    if isinstance(value, np.generic):
        return struct.pack("<I", _kind(key, value.dtype)) + value.tobytes()
    if isinstance(value, np.ndarray) and value.ndim == 1:
        head = struct.pack("<IIQ", ARRAY, _kind(key, value.dtype), len(value))
        return head + np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    if isinstance(value, Strings | list | tuple) and all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", ARRAY, TEXT, len(value)) + _texts(value)
    raise CheckpointError(f"{key}: a value of the type {type(value).__name__} cannot be written")


def _texts(values: Iterable[str]) -> bytes:
    return b"".join(map(_text, values))


def as_read(value: Any) -> Any:
    """What a reader makes of a metadata value."""
    if isinstance(value, float) and not isinstance(value, np.generic):
        return shortest(value)
    return tuple(value) if isinstance(value, list) else value


def _narrow(value: int) -> np.generic:
    for kind in (np.uint32, np.int32, np.uint64, np.int64):
        info = np.iinfo(kind)
        if info.min <= value <= info.max:
            return kind(value)
    raise CheckpointError(f"{value} does not fit 64 bits")


def _kind(key: str, dtype: np.dtype[Any]) -> int:
    found = _KINDS.get(dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype)
    if found is None:
        raise CheckpointError(f"{key}: values of the type {dtype} cannot be written")
    return found
