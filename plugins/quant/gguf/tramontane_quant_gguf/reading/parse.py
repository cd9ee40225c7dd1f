# SPDX-License-Identifier: Apache-2.0
"""The GGUF container, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Magic, version, how many tensors, how many metadata pairs; the pairs; per tensor name, dimensions (innermost first),
type and offset; padding; data. The parser is our own because it must bound what a hostile file can cost: counts are
compared with the bytes that are left before anything is made of them, arrays stay in the file, and every fault names
the file and the key or tensor.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

import numpy as np
from attrs import define

from tramontane.errors import CheckpointError
from tramontane_quant_gguf.reading.header import (
    MAX_DIMENSIONS,
    MAX_NAME_BYTES,
    Entry,
    Header,
    check_places,
    checked,
    type_of,
)
from tramontane_quant_gguf.reading.values import Buffer, Metadata, Strings, shortest

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_TENSORS = 2**16
"""Models of a trillion parameters have a few thousand."""
MAX_PAIRS = 2**14
"""Usual files have some dozens."""
MAX_TEXTS = 2**22
"""Texts of all arrays together. The largest vocabularies have 260 thousand tokens and twice as many merges."""
MAX_KEY_BYTES = 2**16 - 1

#: Number of a value type -> numpy's name of it. 8 is a text, 9 an array; 7, a truth value, is checked apart.
SCALARS = dict(
    zip(
        (*range(8), 10, 11, 12),
        ["|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "|b1", "<u8", "<i8", "<f8"],
        strict=True,
    )
)
FLOAT, BOOL, TEXT, ARRAY = 6, 7, 8, 9
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}
_PACKERS = {number: struct.Struct(text) for number, text in _FORMATS.items()}
_LENGTH = struct.Struct("<Q")
_WORD = struct.Struct("<I")


def parse_header(buffer: Buffer, where: str) -> Header:
    """Read everything before the tensors' data.

    Args:
        buffer: The whole file, mapped.
        where: Names the file in errors.

    Raises:
        CheckpointError: The file is not GGUF of a known version, or is damaged or hostile.
    """
    cursor = _Cursor(buffer, len(buffer), where)
    version = _version(cursor)
    tensors, pairs = cursor.count("tensors", MAX_TENSORS, 24), cursor.count("metadata pairs", MAX_PAIRS, 12)
    metadata = Metadata(_pairs(cursor, pairs), where)
    alignment = _alignment(metadata)
    entries = _entries(cursor, tensors, alignment)
    start = -(-cursor.at // alignment) * alignment
    placed = tuple(Entry(e.name, e.type, e.shape, e.offset + start) for e in entries)
    check_places(placed, len(buffer), where)
    return Header(version, metadata, placed)


@define(eq=False)
class _Cursor:
    """A position in the file; every step is checked."""

    buffer: Buffer
    size: int
    where: str
    at: int = 0
    texts: int = 0
    """Texts of arrays so far."""

    def refuse(self, reason: str, hint: str | None = None) -> NoReturn:
        raise CheckpointError(f"{self.where}: {reason}", hint=hint or "the file is damaged; fetch or convert it again")

    def need(self, count: int, what: str) -> None:
        """``count`` bytes must be left."""
        if count > self.size - self.at:
            self.refuse(
                f"{what} needs {count} bytes at byte {self.at}, but the file ends at {self.size}",
                "the download may have been cut short; fetch the file again",
            )

    def unpack(self, packer: struct.Struct, what: str) -> Any:
        self.need(packer.size, what)
        (value,) = packer.unpack_from(self.buffer, self.at)
        self.at += packer.size
        return value

    def count(self, what: str, most: int, least_bytes: int) -> int:
        """A stated number of things, each of which takes ``least_bytes`` or more."""
        number: int = self.unpack(_LENGTH, f"the number of {what}")
        if number > most or number * least_bytes > self.size - self.at:
            self.refuse(f"{number} {what} cannot be in a file of {self.size} bytes (the limit is {most})")
        return number

    def text(self, what: str, most: int | None = None) -> str:
        """A text; strict about its encoding where it is a name (``most`` bytes long)."""
        length: int = self.unpack(_LENGTH, what)
        if most is not None and length > most:
            self.refuse(f"{what} has {length} bytes, the limit is {most}")
        self.need(length, what)
        raw = self.buffer[self.at : self.at + length]
        self.at += length
        try:
            return bytes(raw).decode("utf-8", "strict" if most is not None else "replace")
        except UnicodeDecodeError as error:
            self.refuse(f"{what} is not UTF-8 text: {error.reason} at byte {error.start}")


def _version(cursor: _Cursor) -> int:
    if bytes(cursor.buffer[:4]) != MAGIC:
        cursor.refuse("this is not a GGUF file", "its first four bytes must be GGUF")
    cursor.at = 4
    version: int = cursor.unpack(_WORD, "the version")
    if int.from_bytes(version.to_bytes(4, "big"), "little") in (1, *VERSIONS):
        cursor.refuse("this GGUF file is big-endian", "only little-endian ones are read; see gguf-convert-endian")
    if version not in VERSIONS:
        cursor.refuse(
            f"GGUF version {version} is not known (known are {', '.join(map(str, VERSIONS))})",
            "version 1 files must be converted again" if version == 1 else None,
        )
    return version


def _alignment(metadata: Metadata) -> int:
    alignment = metadata.whole("general.alignment", least=1)
    if alignment is None:
        return DEFAULT_ALIGNMENT
    if alignment & (alignment - 1) or alignment > 2**20:
        raise CheckpointError(f"{metadata.where}: an alignment of {alignment} is not a power of two up to {2**20}")
    return alignment


# --- metadata ---------------------------------------------------------------------------------------------------------


def _pairs(cursor: _Cursor, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text("a metadata key", MAX_KEY_BYTES)
        if key in found:
            cursor.refuse(f"the metadata key {key[:200]!r} appears twice")
        if not key or not key.isprintable():
            cursor.refuse(f"{key[:200]!r} is not a metadata key")
        what = f"the value of {key[:200]!r}"
        kind: int = cursor.unpack(_WORD, what)
        found[key] = _array(cursor, what) if kind == ARRAY else _scalar(cursor, kind, what)
    return found


def _scalar(cursor: _Cursor, kind: int, what: str) -> Any:
    if kind == TEXT:
        return cursor.text(what)
    if kind == BOOL:
        value = cursor.unpack(_PACKERS[0], what)
        if value > 1:
            cursor.refuse(f"{what} is a truth value of {value}")
        return value == 1
    packer = _PACKERS.get(kind)
    if packer is None:
        cursor.refuse(f"{what} has the unknown type {kind}")
    value = cursor.unpack(packer, what)
    return shortest(value) if kind == FLOAT else value


def _array(cursor: _Cursor, what: str) -> Any:
    kind: int = cursor.unpack(_WORD, what)
    count: int = cursor.unpack(_LENGTH, what)
    if kind == TEXT:
        return _texts(cursor, count, what)
    if kind == ARRAY:
        cursor.refuse(f"{what} is an array of arrays")
    if kind not in SCALARS:
        cursor.refuse(f"{what} is an array of the unknown type {kind}")
    dtype = np.dtype(SCALARS[kind])
    cursor.need(count * dtype.itemsize, f"{what}, an array of {count} values,")
    raw = np.frombuffer(cursor.buffer, np.uint8 if kind == BOOL else dtype, count, cursor.at)
    cursor.at += count * dtype.itemsize
    if kind != BOOL:
        return raw
    if count and int(raw.max()) > 1:
        cursor.refuse(f"{what} holds truth values other than 0 and 1")
    return raw.view(np.bool_)


def _texts(cursor: _Cursor, count: int, what: str) -> Strings:
    """Walk over an array of texts without keeping them."""
    cursor.texts += count
    if cursor.texts > MAX_TEXTS or count * 8 > cursor.size - cursor.at:
        cursor.refuse(f"{what}, an array of {count} texts, cannot be in a file of {cursor.size} bytes")
    buffer, size, at = cursor.buffer, cursor.size, cursor.at
    start = at
    for _ in range(count):
        if at > size - 8:
            cursor.refuse(f"{what} reaches past the end of the file")
        at += 8 + int.from_bytes(buffer[at : at + 8], "little")
    if at > size:
        cursor.refuse(f"{what} reaches past the end of the file")
    cursor.at = at
    return Strings(buffer, start, count)


# --- tensors ----------------------------------------------------------------------------------------------------------


def _entries(cursor: _Cursor, count: int, alignment: int) -> list[Entry]:
    """Every tensor, offsets from the start of the data."""
    found: dict[str, Entry] = {}
    for _ in range(count):
        name = cursor.text("a tensor's name", MAX_NAME_BYTES)
        if name in found:
            cursor.refuse(f"the tensor {name!r} appears twice")
        if not name or not name.isprintable():
            cursor.refuse(f"{name!r} is not a tensor's name")
        what = f"tensor {name!r}"
        rank: int = cursor.unpack(_WORD, what)
        if not 1 <= rank <= MAX_DIMENSIONS:
            cursor.refuse(f"{what} has {rank} dimensions; 1 to {MAX_DIMENSIONS} are possible")
        shape = tuple(cursor.unpack(_LENGTH, what) for _ in range(rank))[::-1]
        kind = type_of(cursor.unpack(_WORD, what), name, cursor.where)
        offset: int = cursor.unpack(_LENGTH, what)
        if offset % alignment:
            cursor.refuse(f"{what} begins at {offset}, which is not a multiple of the alignment {alignment}")
        found[name] = checked(name, kind, shape, offset, cursor.where)
    return list(found.values())
