# SPDX-License-Identifier: Apache-2.0
"""The container before GGUF: ``ggjt`` version 3, as llama.cpp wrote it in the summer of 2023, for Llama models only.

Magic and version; seven 32-bit numbers; the vocabulary (length, bytes, float32 score each); then the tensors to the end
of the file, each with rank, length of its name, type, dimensions (innermost first), name, padding to 32 bytes, data.
What it says is given as GGUF's metadata says it. Older containers, and versions 1 and 2, pack their blocks otherwise.
"""

from __future__ import annotations

import struct
from math import prod

import numpy as np

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
from tramontane_quant_gguf.reading.parse import MAX_TENSORS, MAX_TEXTS
from tramontane_quant_gguf.reading.values import Buffer, Metadata, Numbers

MAGIC = b"tjgg"
OLDER = {b"lmgg": "ggml", b"fmgg": "ggmf"}
"""Magic numbers of containers that are older still, and their names."""
VERSION = 3
ALIGNMENT = 32
CONTEXT = 2048
"""Llama 1 was trained on this many tokens; the container does not say."""
EPSILON = 5e-6
"""Of the norms: llama.cpp's compromise between Llama 1 (1e-6) and Llama 2 (1e-5), for the same reason."""
_NUMBERS = struct.Struct("<7i")
_TENSOR = struct.Struct("<3I")
_PIECE = struct.Struct("<I")
_SCORE = struct.Struct("<f")


def parse_ggjt(buffer: Buffer, where: str) -> Header:
    """Read everything but the tensors' data.

    Raises:
        CheckpointError: The file is of another kind or version, or is damaged or hostile.
    """
    if bytes(buffer[:4]) != MAGIC or len(buffer) < 8 + _NUMBERS.size:
        raise CheckpointError(f"{where} is not a whole ggjt file")
    version = int.from_bytes(buffer[4:8], "little")
    if version != VERSION:
        raise CheckpointError(
            f"{where}: ggjt version {version} is not known (known is {VERSION})",
            hint="convert the original model again, to GGUF",
        )
    words, width, _, heads, layers, rotary, _ = _NUMBERS.unpack_from(buffer, 8)
    for what, number in (("vocabulary", words), ("width", width), ("heads", heads), ("layers", layers)):
        if number < 1 or number > MAX_TEXTS:
            raise CheckpointError(f"{where}: {what} of {number} cannot be")
    tokens, scores, at = _vocabulary(buffer, words, where)
    entries = _entries(buffer, at, where)
    check_places(entries, len(buffer), where)
    values = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.attention.head_count": heads,
        "llama.rope.dimension_count": rotary,
        "llama.context_length": CONTEXT,
        "llama.attention.layer_norm_rms_epsilon": EPSILON,
        **_inferred(entries, width, heads),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return Header(version, Metadata(values, where), entries)


def _vocabulary(buffer: Buffer, count: int, where: str) -> tuple[tuple[str, ...], Numbers, int]:
    """Tokens as GGUF spells them, their scores, and where the tensors begin."""
    at, pieces, scores = 8 + _NUMBERS.size, [], []
    for _ in range(count):
        if at + 8 > len(buffer):
            raise CheckpointError(f"{where}: the vocabulary of {count} tokens reaches past the end of the file")
        (length,) = _PIECE.unpack_from(buffer, at)
        end = at + 4 + length
        if end + 4 > len(buffer):
            raise CheckpointError(f"{where}: a token of {length} bytes reaches past the end of the file")
        pieces.append(bytes(buffer[at + 4 : end]))
        scores.append(_SCORE.unpack_from(buffer, end)[0])
        at = end + 4
    tokens = tuple(_spelled(number, piece) for number, piece in enumerate(pieces))
    return tokens, np.array(scores, np.float32), at


def _spelled(number: int, piece: bytes) -> str:
    """The three control tokens, the 256 bytes, and text with marked spaces, in SentencePiece's order."""
    if number < 3:
        return ("<unk>", "<s>", "</s>")[number]
    if number < 259:
        return f"<0x{number - 3:02X}>"
    return piece.decode("utf-8", "replace").replace(" ", "\u2581")


def _entries(buffer: Buffer, at: int, where: str) -> tuple[Entry, ...]:
    size, found = len(buffer), dict[str, Entry]()
    while at < size:
        if at + _TENSOR.size > size or len(found) >= MAX_TENSORS:
            raise CheckpointError(f"{where}: {size - at} bytes behind the last tensor make no further one")
        rank, length, number = _TENSOR.unpack_from(buffer, at)
        at += _TENSOR.size
        if not 1 <= rank <= MAX_DIMENSIONS or length > MAX_NAME_BYTES or at + 4 * rank + length > size:
            raise CheckpointError(f"{where}: a tensor at byte {at} has {rank} dimensions and {length} bytes of name")
        shape = struct.unpack_from(f"<{rank}I", buffer, at)[::-1]
        at += 4 * rank
        name = bytes(buffer[at : at + length]).decode("utf-8", "replace")
        at += length
        if not name.isprintable() or name in found:
            raise CheckpointError(f"{where}: the tensor {name!r} appears twice, or is no name")
        entry = checked(name, type_of(number, name, where), shape, -(-at // ALIGNMENT) * ALIGNMENT, where)
        found[name] = entry
        at = entry.offset + entry.nbytes
    return tuple(found.values())


def _inferred(entries: tuple[Entry, ...], width: int, heads: int) -> dict[str, int]:
    """What the shapes say and the header does not: feed-forward width, and key/value heads of grouped attention."""
    shapes = {entry.name: entry.shape for entry in entries}
    found = {}
    up, keys = shapes.get("layers.0.feed_forward.w1.weight"), shapes.get("layers.0.attention.wk.weight")
    if up is not None and prod(up) == up[0] * width:
        found["llama.feed_forward_length"] = up[0]
    if keys is not None and width % heads == 0 and keys[0] % (width // heads) == 0:
        found["llama.attention.head_count_kv"] = keys[0] // (width // heads)
    return found
