# SPDX-License-Identifier: Apache-2.0
"""Headers of safetensors files, read as data from strangers.

The format (https://huggingface.co/docs/safetensors): eight bytes little-endian header size, a JSON object
``{name: {dtype, shape, data_offsets}, "__metadata__": {str: str}}``, then the tensors back to back. Nothing here maps
or reads tensor data. The parser is our own because it must say which tensor of which file is wrong, must refuse
duplicate names, and must bound what it spends on a hostile header.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from attrs import field, frozen

from tramontane.errors import CheckpointError

#: Largest header that is parsed. A file with 70,000 tensors needs about 10 MB; larger models come in shards.
MAX_HEADER_BYTES = 16 * 2**20

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "U16": torch.uint16,
        "I16": torch.int16,
        "U32": torch.uint32,
        "I32": torch.int32,
        "U64": torch.uint64,
        "I64": torch.int64,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E8M0": torch.float8_e8m0fnu,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
        "C64": torch.complex64,
    }
)
"""Names of element types in the header."""


@frozen
class Entry:
    """One tensor of a header: element type, shape, and where its bytes begin in the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@frozen
class Header:
    """What a safetensors file holds."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(factory=dict)

    @property
    def aliases(self) -> dict[str, str]:
        """Names that the metadata maps to stored tensors: tensors saved once though the model uses them twice."""
        return {
            alias: name
            for alias, name in self.metadata.items()
            if "." in alias and alias not in self.entries and name in self.entries
        }

    @property
    def encodings(self) -> dict[str, str]:
        """What the metadata says that tensors of bytes hold.

        Raises:
            CheckpointError: It is not a map of names, or says it of other tensors.
        """
        try:
            found = json.loads(self.metadata.get(ENCODINGS, "{}"))
            if all(isinstance(kind, str) and self.entries[name].dtype is torch.uint8 for name, kind in found.items()):
                return dict(found)
        except (ValueError, RecursionError, KeyError, AttributeError) as error:
            raise CheckpointError(f"what tensors are said to hold is damaged: {_short(error)}") from error
        raise CheckpointError("what tensors are said to hold is damaged: only bytes can hold something else")


ENCODINGS = "tramontane_encodings"
"""Key of metadata: a JSON map of names of byte tensors to what they hold (:attr:`TensorRef.encoding`)."""


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        CheckpointError: The file is truncated, damaged or hostile; the message names file and tensor.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(
                    f"{path} is not a whole safetensors file: {size} bytes, but the header alone claims {length}",
                    hint="the download may have been cut short; fetch the file again",
                )
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(f"{path}: a header of {length} bytes is over the limit of {MAX_HEADER_BYTES}")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_header(text, size=size, where=str(path))


def parse_header(text: bytes, *, size: int, where: str) -> Header:
    """Check a header's JSON text against a file of ``size`` bytes; see :func:`read_header`."""
    try:
        content = json.loads(
            text.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_not_json, parse_float=_whole
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: the header is not valid: {_short(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: the header is not a JSON object")
    metadata = content.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata  # MLX writes null where it has none
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{where}: the header's metadata is not a map of strings")
    start = 8 + len(text)
    entries = {name: _entry(name, value, start, where) for name, value in content.items()}
    _check_layout(entries, start, size, where)
    return Header(MappingProxyType(entries), MappingProxyType(metadata))


def _entry(name: str, value: Any, start: int, where: str) -> Entry:
    def refuse(reason: str) -> NoReturn:
        raise CheckpointError(f"{where}: tensor {name[:200]!r} {reason}")

    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        refuse("needs exactly dtype, shape and data_offsets")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        refuse(f"has the unknown dtype {_short(value['dtype'])}")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _are_sizes(shape) or len(shape) > 64:
        refuse(f"has the impossible shape {_short(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        refuse(f"has the impossible data_offsets {_short(offsets)}")
    nbytes = offsets[1] - offsets[0]
    if prod(shape) * dtype.itemsize != nbytes:
        refuse(f"of shape {_short(shape)} and dtype {value['dtype']} cannot have {nbytes} bytes")
    return Entry(name, dtype, tuple(shape), start + offsets[0], nbytes)


def _check_layout(entries: Mapping[str, Entry], start: int, size: int, where: str) -> None:
    """The format wants the tensors back to back to the end of the file: no overlap, no hole, nothing behind."""
    end, previous = start, "the header"
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != end:
            relation = "overlaps" if entry.offset < end else "leaves a hole after"
            raise CheckpointError(f"{where}: tensor {entry.name[:200]!r} {relation} {previous[:200]!r}")
        end, previous = entry.offset + entry.nbytes, entry.name
    if end != size:
        problem = "is cut short" if end > size else "has bytes behind the last tensor"
        raise CheckpointError(
            f"{where} {problem}: its tensors end at byte {end}, the file has {size}",
            hint="the download may have been cut short; fetch the file again" if end > size else None,
        )


def _are_sizes(value: Any) -> bool:
    """A list of whole numbers that fit 63 bits; booleans are not numbers here."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {_short(twice)} appears twice")
    return content


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _whole(text: str) -> NoReturn:
    raise ValueError(f"{_short(text)} is not a whole number")


def _short(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
