# SPDX-License-Identifier: Apache-2.0
"""Entries of headers as lazy tensors over the mapped files: plain numbers as such, blocks as rows of bytes."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tramontane.checkpoint import MappedFile, MappedTensor
from tramontane.errors import CheckpointError
from tramontane_quant_gguf.codecs import PLAIN
from tramontane_quant_gguf.reading.header import Entry
from tramontane_quant_gguf.reading.splits import Opened


def references(opened: Iterable[Opened]) -> tuple[dict[str, MappedTensor], list[MappedFile]]:
    """All tensors by name, and the files they lie in.

    Raises:
        CheckpointError: Two files hold a tensor of one name.
    """
    tensors: dict[str, MappedTensor] = {}
    files = []
    for one in opened:
        file = MappedFile.at(one.path)
        files.append(file)
        for entry in one.header.entries:
            if entry.name in tensors:
                raise CheckpointError(f"{one.path}: the tensor {entry.name!r} is stored in another file too")
            tensors[entry.name] = _reference(entry, file)
    return tensors, files


def _reference(entry: Entry, file: MappedFile) -> MappedTensor:
    plain = PLAIN.get(entry.type.name)
    if plain is not None:
        return MappedTensor(name=entry.name, dtype=plain, shape=entry.shape, file=file, offset=entry.offset)
    shape = (*entry.shape[:-1], entry.row_bytes)
    return MappedTensor(
        name=entry.name,
        dtype=torch.uint8,
        shape=shape,
        encoding=entry.type.name,
        file=file,
        offset=entry.offset,
    )
