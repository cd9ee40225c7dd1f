# SPDX-License-Identifier: Apache-2.0
"""The fields of a batch in one block of bytes: numpy sees them where they are written, torch where they are read."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from attrs import define
from numpy.typing import NDArray
from torch import Tensor

#: Fields start at multiples of this many bytes.
FIELD_ALIGNMENT = 64

Array = TypeVar("Array")

_TORCH = {"int64": torch.int64, "int32": torch.int32, "bool": torch.bool}


@define(eq=False)
class Fields(Generic[Array]):
    """The block's fields, as numpy arrays (host) or tensors (batch). The tables come last in the block."""

    ids: Array
    positions: Array
    seq_of: Array
    q_start: Array
    kv_len: Array
    out_rows: Array
    state_slot: Array
    state_fresh: Array
    feed_to: Array
    feed_from: Array
    counts: Array
    slots: list[Array]
    tables: list[Array]


def shapes_of(
    tokens: int, rows: int, outputs: int, streams: int, widths: list[int]
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and dtype of every field, the tables last."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "ids": ((tokens,), "int64"),
        "positions": ((streams, tokens), "int64"),
        "seq_of": ((tokens,), "int32"),
        "q_start": ((rows + 1,), "int32"),
        "kv_len": ((rows,), "int32"),
        "out_rows": ((outputs,), "int64"),
        "state_slot": ((rows,), "int64"),
        "state_fresh": ((rows,), "bool"),
        "feed_to": ((rows,), "int64"),
        "feed_from": ((rows,), "int64"),
        "counts": ((3,), "int32"),
    }
    shapes.update({f"slots{group}": ((tokens,), "int64") for group in range(len(widths))})
    shapes.update({f"table{group}": ((rows, width), "int32") for group, width in enumerate(widths)})
    return shapes


def offsets_of(shapes: dict[str, tuple[tuple[int, ...], str]]) -> tuple[dict[str, int], int]:
    """Where each field starts, and the block's size, in bytes."""
    offsets, end = {}, 0
    for name, (shape, dtype) in shapes.items():
        offsets[name] = end
        end += ceil(prod(shape) * np.dtype(dtype).itemsize / FIELD_ALIGNMENT) * FIELD_ALIGNMENT
    return offsets, end


def numpy_view(block: NDArray[np.uint8]) -> Callable[[int, tuple[int, ...], str], NDArray[Any]]:
    """A function that sees a field, given its offset, shape and dtype, as an array of the block."""

    def view(offset: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        end = offset + prod(shape) * np.dtype(dtype).itemsize
        return block[offset:end].view(dtype).reshape(shape)

    return view


def tensor_view(block: Tensor) -> Callable[[int, tuple[int, ...], str], Tensor]:
    """The same as tensors."""

    def view(offset: int, shape: tuple[int, ...], dtype: str) -> Tensor:
        end = offset + prod(shape) * _TORCH[dtype].itemsize
        return block[offset:end].view(_TORCH[dtype]).view(shape)

    return view
