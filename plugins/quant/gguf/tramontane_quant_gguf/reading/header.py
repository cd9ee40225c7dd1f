# SPDX-License-Identifier: Apache-2.0
"""What a file says it holds: metadata, and for every tensor its type, shape and place; and the checks of those."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from attrs import frozen

from tramontane.errors import CheckpointError
from tramontane.schemes import BlockCodec
from tramontane_quant_gguf.codecs import BY_ID, REMOVED
from tramontane_quant_gguf.reading.values import Metadata

MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 512


@frozen
class Entry:
    """One stored tensor. ``shape`` has the outermost dimension first and counts elements, not bytes."""

    name: str
    type: BlockCodec
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the innermost dimension."""
        return self.shape[-1] // self.type.block * self.type.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return prod(self.shape[:-1]) * self.row_bytes


@frozen(eq=False)
class Header:
    """What one file holds."""

    version: int
    metadata: Metadata
    entries: tuple[Entry, ...]


def type_of(number: int, name: str, where: str) -> BlockCodec:
    """The block type of a number.

    Raises:
        CheckpointError: It is unknown, or was removed from the format.
    """
    found = BY_ID.get(number)
    if found is not None:
        return found
    if number in REMOVED:
        raise CheckpointError(
            f"{where}: tensor {name!r} is stored as {REMOVED[number]}, which was removed from the format",
            hint="convert the original model again; q4_0 took this type's place",
        )
    raise CheckpointError(
        f"{where}: tensor {name!r} has the unknown type {number}",
        hint="a newer version of tramontane-quant-gguf may know it",
    )


def checked(name: str, kind: BlockCodec, shape: tuple[int, ...], offset: int, where: str) -> Entry:
    """An entry whose rows are whole blocks.

    Raises:
        CheckpointError: A dimension is zero, or rows are not whole blocks.
    """
    if not shape or min(shape) < 1:
        raise CheckpointError(f"{where}: tensor {name!r} has the impossible shape {list(shape)}")
    if shape[-1] % kind.block:
        raise CheckpointError(
            f"{where}: tensor {name!r} has rows of {shape[-1]} elements, which are not whole {kind.name} blocks of "
            f"{kind.block}"
        )
    return Entry(name, kind, shape, offset)


def check_places(entries: Iterable[Entry], size: int, where: str) -> None:
    """Every tensor lies inside the file, and no two share a byte.

    Raises:
        CheckpointError: One does not.
    """
    end, previous = 0, ""
    for entry in sorted(entries, key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset + entry.nbytes > size:
            raise CheckpointError(
                f"{where}: tensor {entry.name!r} ends at byte {entry.offset + entry.nbytes}, the file has {size}",
                hint="the download may have been cut short; fetch the file again",
            )
        if entry.offset < end:
            raise CheckpointError(f"{where}: tensor {entry.name!r} overlaps {previous!r}")
        end, previous = entry.offset + entry.nbytes, entry.name
