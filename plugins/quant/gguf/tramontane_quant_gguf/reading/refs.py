# SPDX-License-Identifier: Apache-2.0
"""Entries of headers as lazy tensors over the mapped files: plain numbers as such, blocks as rows of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from attrs import define, field
from torch import Tensor

from tramontane.checkpoint import MappedFile, MappedTensor, TensorRef
from tramontane.errors import CheckpointError
from tramontane_quant_gguf.codecs import PLAIN
from tramontane_quant_gguf.reading.header import Entry
from tramontane_quant_gguf.reading.splits import Opened

TURNED = re.compile(r"blk\.\d+\.attn_[kv]_b\.weight")
"""Stored along other axes than a model multiplies by, so that blocks are of no use: read as numbers."""


@define(kw_only=True, eq=False)
class NumbersTensor(TensorRef):
    """A stored tensor as float32, whatever its type."""

    entry: Entry = field(repr=False)
    file: MappedFile = field(repr=False)

    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """See :meth:`TensorRef.read`; unpacks all of it."""
        kind = self.entry.type
        raw = self.file.tensor(self.entry.offset, torch.uint8, (self.entry.nbytes // kind.nbytes, kind.nbytes))
        whole = kind.dequantize(raw).reshape(self.shape)
        wanted = whole if index is None else whole[index]
        return wanted if out is None else out.copy_(wanted)


def references(opened: Iterable[Opened]) -> tuple[dict[str, TensorRef], list[MappedFile]]:
    """All tensors by name, and the files they lie in.

    Raises:
        CheckpointError: Two files hold a tensor of one name.
    """
    tensors: dict[str, TensorRef] = {}
    files = []
    for one in opened:
        file = MappedFile.at(one.path)
        files.append(file)
        for entry in one.header.entries:
            if entry.name in tensors:
                raise CheckpointError(f"{one.path}: the tensor {entry.name!r} is stored in another file too")
            tensors[entry.name] = _reference(entry, file)
    return tensors, files


def _reference(entry: Entry, file: MappedFile) -> TensorRef:
    if TURNED.fullmatch(entry.name):
        return NumbersTensor(name=entry.name, dtype=torch.float32, shape=entry.shape, entry=entry, file=file)
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
