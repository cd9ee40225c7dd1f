# SPDX-License-Identifier: Apache-2.0
"""A loaded model as a GGUF file: names and settings by the architecture's dialect, tensors one at a time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tramontane.checkpoint import MemoryTensor
from tramontane.config import RopeConfig
from tramontane.dialects import Dialect, dialects_of
from tramontane.errors import CheckpointError
from tramontane.export import Export, Outgoing, WriteOptions, check_same_model
from tramontane.schemes import BlockCodec, Dense, Ggml
from tramontane_quant_gguf.loader import ARCHITECTURE, described
from tramontane_quant_gguf.quantizers import CODECS, quantize
from tramontane_quant_gguf.reading import Metadata
from tramontane_quant_gguf.writing.container import OutTensor, as_read, write_file
from tramontane_quant_gguf.writing.settings import write_rope, write_settings
from tramontane_quant_gguf.writing.types import choose, wanted_type
from tramontane_quant_gguf.writing.vocabulary import write_vocabulary

_log = logging.getLogger(__name__)
FORM = "gguf"
FILE_TYPES: Mapping[str, int] = MappingProxyType(
    {
        "f32": 0,
        "f16": 1,
        "q4_0": 2,
        "q4_1": 3,
        "q8_0": 7,
        "q5_0": 8,
        "q5_1": 9,
        "bf16": 32,
        "q2_k": 10,
        "q3_k": 12,
        "q4_k": 15,
        "q5_k": 17,
        "q6_k": 18,
        "tq1_0": 36,
        "tq2_0": 37,
        "mxfp4": 38,
    }
)
"""llama.cpp's numbers for files most of whose matrices have a type; for people."""
QUANTIZATION_VERSION = 2


def write_gguf(export: Export, path: Path, options: WriteOptions) -> tuple[Path, ...]:
    """Write a model to one file, which is the answer.

    Raises:
        CheckpointError: The architecture has no words for GGUF, or the file cannot be written.
        PlanError: Matrices cannot be written in the wanted type, or another version than 3 is asked for.
    """
    options.check_version("GGUF", "3")
    dialect = _dialect(export)
    wanted = None if options.quant is None else wanted_type(options.quant)
    outgoing = [(tensor, choose(tensor, wanted)) for tensor in export.outgoing(dialect.weight_map(export.config))]
    _say_lost(outgoing)
    settings, factors = _settings(export, dialect)
    _check(export, path, settings, factors, [tensor for tensor, _ in outgoing], options)
    kinds = [codec.name for tensor, codec in outgoing if tensor.is_matrix]
    tensors = [
        OutTensor(name, CODECS["f32"], tuple(value.shape), partial(_as_is, value)) for name, value in factors.items()
    ]
    tensors += [
        OutTensor(tensor.name, codec, tensor.shape or (1,), partial(_blocks, tensor, codec))
        for tensor, codec in outgoing
    ]
    write_file(path, {**_general(export, dialect, max(set(kinds), key=kinds.count)), **settings}, tensors)
    return (path,)


def _say_lost(outgoing: Sequence[tuple[Outgoing, BlockCodec]]) -> None:
    """Schemes that the format has not are written as floats; that is said once."""
    lost = Counter(
        f"{tensor.scheme.name} as {codec.name}"
        for tensor, codec in outgoing
        if tensor.is_matrix and tensor.scheme is not None and not isinstance(tensor.scheme, Dense | Ggml)
    )
    if lost:
        listed = ", ".join(f"{count} x {what}" for what, count in lost.items())
        _log.warning("GGUF has no such types, so %d matrices are written in others: %s", lost.total(), listed)


def _check(
    export: Export,
    path: Path,
    settings: Mapping[str, Any],
    factors: Mapping[str, Tensor],
    outgoing: Sequence[Outgoing],
    options: WriteOptions,
) -> None:
    """Read what will be written, names and shapes only, and compare the models."""
    refs = {name: MemoryTensor.of(name, values) for name, values in factors.items()}
    for tensor in outgoing:
        refs[tensor.name] = MemoryTensor.of(tensor.name, torch.empty(tensor.shape, device="meta"))
    metadata = Metadata({key: as_read(value) for key, value in settings.items()}, str(path))
    check_same_model(export, described(path, FORM, metadata, refs), form="GGUF", changed=options.changed)


def _dialect(export: Export) -> Dialect:
    found = dialects_of(export.architecture, FORM)
    if not found:
        raise CheckpointError(
            f"architecture {export.architecture.name!r}{export.architecture.origin} has no words for GGUF",
            hint="its record needs a dialect for it",
        )
    return found[0]


def _general(export: Export, dialect: Dialect, kind: str) -> dict[str, Any]:
    stated = {key: value for key, value in export.metadata.items() if key in ("general.name", "general.license")}
    found = {ARCHITECTURE: dialect.name, "general.type": "model", **stated}
    if kind in FILE_TYPES:
        found["general.file_type"] = FILE_TYPES[kind]
    return {**found, "general.quantization_version": QUANTIZATION_VERSION}


def _settings(export: Export, dialect: Dialect) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Everything about the model and its vocabulary, and the tensors that belong to settings."""
    settings = {ARCHITECTURE: dialect.name, **write_settings(export.config, dialect.name)}
    rope = getattr(export.parsed, "rope", None)
    stretch: tuple[dict[str, Any], dict[str, Tensor]] = ({}, {})
    if isinstance(rope, RopeConfig):
        stretch = write_rope(rope, dialect.name, settings[f"{dialect.name}.attention.key_length"])
    own = {key: value for key, value in export.metadata.items() if key.startswith("tokenizer.")}
    if export.dialect.startswith(f"{FORM}:") and own:
        vocabulary = own  # as it was read
    else:
        vocabulary = write_vocabulary(export.files, settings.get(f"{dialect.name}.vocab_size", 0))
    return {**settings, **stretch[0], **dialect.described(export.config), **vocabulary}, stretch[1]


def _as_is(values: Tensor) -> Tensor:
    return values.to(torch.float32)


def _blocks(tensor: Outgoing, codec: BlockCodec) -> Tensor:
    """The bytes of a tensor in a type; those it is kept in, where it is that type."""
    scheme = tensor.scheme
    if isinstance(scheme, Ggml) and scheme.type == codec:
        return tensor.packed()["weight"]
    values = tensor.dense()
    return quantize(values.reshape(1) if values.dim() == 0 else values, codec.name)
