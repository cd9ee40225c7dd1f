# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's importance files: GGUF files of sums, and the older form without a name.

GGUF (``general.type = imatrix``): for each matrix ``NAME.in_sum2`` float32 [X, I], sums of squares, and ``NAME.counts``
float32 [X, 1], rows summed. The older form, little-endian: int32 entries; per entry the name (int32 length, bytes),
int32 calls, int32 values, float32 values: mean squares times calls; then int32 chunks and the text's name. It says
neither how rows were counted nor where the matrices of a stack end.

Legend: X matrices of a stack, I inputs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tramontane.errors import CheckpointError
from tramontane.quantization import ImportanceFile, Sums
from tramontane_quant_gguf.codecs import CODECS
from tramontane_quant_gguf.reading import Entry, parse
from tramontane_quant_gguf.reading.header import MAX_NAME_BYTES
from tramontane_quant_gguf.reading.mapping import first_bytes, mapped
from tramontane_quant_gguf.reading.parse import MAX_TENSORS, parse_header
from tramontane_quant_gguf.reading.values import Buffer
from tramontane_quant_gguf.writing.container import OutTensor, write_file

KIND = "imatrix"
SQUARES, COUNTS = ".in_sum2", ".counts"
GGUF_SUFFIX = ".gguf"


def recognizes(path: Path) -> bool:
    """Whether the first bytes are those of either form: the magic, or a plausible number of entries."""
    first = first_bytes(path)
    return first == parse.MAGIC or (len(first) == 4 and 0 < int.from_bytes(first, "little") <= MAX_TENSORS)


def read(path: Path) -> ImportanceFile:
    """Read a file of either form.

    Raises:
        CheckpointError: It is damaged or hostile, holds no importances, or values that are no sums of squares.
    """
    buffer = mapped(path)
    file = (_read_gguf if buffer[:4] == parse.MAGIC else _read_older)(buffer, str(path))
    for name, sums in file.entries.items():
        for what, values in (("sum", sums.squares_XI), ("count", sums.counts_X)):
            if not bool((values.isfinite() & (values >= 0)).all()):
                raise CheckpointError(f"{path}: {name} has a {what} that is below zero or no number")
    return file


def write(path: Path, file: ImportanceFile) -> None:
    """Write a file: GGUF where the name ends so, else the older form.

    Raises:
        CheckpointError: The disk refuses.
    """
    (_write_gguf if path.name.endswith(GGUF_SUFFIX) else _write_older)(path, file)


# --- GGUF -------------------------------------------------------------------------------------------------------------


def _read_gguf(buffer: Buffer, where: str) -> ImportanceFile:
    header = parse_header(buffer, where)
    kind = header.metadata.text("general.type")
    if kind != KIND:
        raise CheckpointError(f"{where} is a GGUF file, but its type is {kind!r}, not {KIND!r}")
    entries = {entry.name: entry for entry in header.entries}
    names = [name.removesuffix(SQUARES) for name in entries if name.endswith(SQUARES)]
    found = {}
    for name in names:
        squares = _numbers(buffer, entries[name + SQUARES], where)
        counts = entries.get(name + COUNTS)
        if counts is None:
            raise CheckpointError(f"{where}: {name} has sums, but no counts")
        squares_XI, counts_X = squares.reshape(-1, squares.shape[-1]), _numbers(buffer, counts, where).flatten()
        if len(squares_XI) != len(counts_X):
            raise CheckpointError(f"{where}: {name} has {len(squares_XI)} rows of sums and {len(counts_X)} counts")
        found[name] = Sums(squares_XI, counts_X)
    texts = header.metadata.strings("imatrix.datasets") or ()
    return ImportanceFile(
        entries=found,
        chunks=header.metadata.whole("imatrix.chunk_count") or 0,
        chunk_tokens=header.metadata.whole("imatrix.chunk_size") or 0,
        texts=tuple(texts),
    )


def _numbers(buffer: Buffer, entry: Entry, where: str) -> Tensor:
    if entry.type.name != "f32":
        raise CheckpointError(f"{where}: {entry.name} is stored as {entry.type.name}, importances are f32")
    raw = np.frombuffer(buffer, "<f4", entry.nbytes // 4, entry.offset)
    return torch.from_numpy(raw.copy()).reshape(entry.shape)


def _write_gguf(path: Path, file: ImportanceFile) -> None:
    tensors = []
    for name, sums in sorted(file.entries.items()):
        for suffix, values in ((SQUARES, sums.squares_XI), (COUNTS, sums.counts_X.unsqueeze(1))):
            tensors.append(OutTensor(name + suffix, CODECS["f32"], tuple(values.shape), _maker(values)))
    settings = {
        "general.type": KIND,
        "imatrix.datasets": list(file.texts),
        "imatrix.chunk_count": file.chunks,
        "imatrix.chunk_size": file.chunk_tokens,
    }
    write_file(path, settings, tensors)


def _maker(values: Tensor) -> Callable[[], Tensor]:
    return lambda: values.float()


# --- the older form ---------------------------------------------------------------------------------------------------


class _Bytes:
    """A position in the file; every step is checked."""

    def __init__(self, buffer: Buffer, where: str) -> None:
        self.buffer, self.where, self.at = buffer, where, 0

    def take(self, count: int, what: str) -> bytes:
        """So many bytes."""
        if not 0 <= count <= len(self.buffer) - self.at:
            raise CheckpointError(
                f"{self.where}: {what} needs {count} bytes at byte {self.at}, but the file ends at {len(self.buffer)}",
                hint="this may be no file of importances, or a download that was cut short",
            )
        self.at += count
        return bytes(self.buffer[self.at - count : self.at])

    def number(self, what: str, least: int, most: int) -> int:
        """An int32 within bounds."""
        (value,) = struct.unpack("<i", self.take(4, what))
        if not least <= value <= most:
            raise CheckpointError(f"{self.where}: {what} is {value}; {least} to {most} are possible")
        return int(value)

    @property
    def ended(self) -> bool:
        """Nothing is left."""
        return self.at == len(self.buffer)


def _read_older(buffer: Buffer, where: str) -> ImportanceFile:
    data = _Bytes(buffer, where)
    found: dict[str, Sums] = {}
    for _ in range(data.number("the number of entries", 1, MAX_TENSORS)):
        name = data.take(data.number("the length of a name", 1, MAX_NAME_BYTES), "a name").decode("utf-8", "replace")
        if name in found:
            raise CheckpointError(f"{where}: {name!r} appears twice")
        calls = data.number(f"the calls of {name!r}", 0, 2**31 - 1)
        count = data.number(f"the number of values of {name!r}", 1, 2**31 - 1)
        values = np.frombuffer(data.take(4 * count, f"the values of {name!r}"), "<f4")
        found[name] = Sums(torch.from_numpy(values.copy()).unsqueeze(0), torch.tensor([float(max(calls, 1))]))
    if data.ended:
        return ImportanceFile(entries=found)
    chunks = data.number("the number of chunks", 0, 2**31 - 1)
    if data.ended:
        return ImportanceFile(entries=found, chunks=chunks)
    text = data.take(data.number("the length of the text's name", 0, 2**16), "the text's name").decode(
        "utf-8", "replace"
    )
    return ImportanceFile(entries=found, chunks=chunks, texts=(text,) if text else ())


def _write_older(path: Path, file: ImportanceFile) -> None:
    parts = [struct.pack("<i", len(file.entries))]
    for name, sums in sorted(file.entries.items()):
        calls = -(-int(sums.counts_X.max()) // max(file.chunk_tokens, 1))
        values = (sums.means() * calls).flatten().numpy().astype("<f4")
        encoded = name.encode()
        parts += [struct.pack("<i", len(encoded)), encoded, struct.pack("<ii", calls, len(values)), values.tobytes()]
    text = (file.texts[0] if file.texts else "").encode()
    parts.append(struct.pack("<ii", file.chunks, len(text)) + text)
    try:
        path.write_bytes(b"".join(parts))
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
