# SPDX-License-Identifier: Apache-2.0
"""Which type each tensor of a file gets.

Vectors and routers stay float32, as every reader of GGUF expects. Embedding and head are more sensitive than the rest
and get a wider type; rows that are no whole blocks of the wanted type get the nearest that fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from tramontane.errors import PlanError
from tramontane.export import Outgoing
from tramontane.schemes import BlockCodec, Dense, Ggml
from tramontane_quant_gguf.names import base_type
from tramontane_quant_gguf.quantizers import CODECS, QUANTIZERS
from tramontane_quant_gguf.rules import FALLBACKS, SENSITIVE

DENSE: Mapping[torch.dtype, str] = MappingProxyType(
    {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f32"}
)
LAST_RESORT = "f16"
KEPT_EXACT = ("router", "absorbed")
"""Uses of matrices that are not worth quantizing."""


def wanted_type(text: str) -> str:
    """The type that the user named.

    Raises:
        PlanError: There is no such type, or nothing packs it.
    """
    found = base_type(text)
    if found not in QUANTIZERS:
        raise PlanError(f"matrices cannot be written as {text!r} (they can as {', '.join(QUANTIZERS)})")
    return found


def fitting(kind: str, inputs: int) -> str:
    """``kind``, or what takes its place for rows of ``inputs`` elements."""
    for tried in (kind, FALLBACKS.get(kind, LAST_RESORT)):
        if inputs % CODECS[tried].block == 0:
            return tried
    return LAST_RESORT


def choose(tensor: Outgoing, wanted: str | None) -> BlockCodec:
    """The type of a tensor; ``wanted`` is a type's name, or ``None`` to keep what the model has."""
    if not tensor.is_matrix or tensor.uses & frozenset(KEPT_EXACT):
        return CODECS["f32"]
    if wanted is None:
        scheme = tensor.scheme
        if isinstance(scheme, Ggml):
            return CODECS[scheme.type.name]
        return CODECS[DENSE[scheme.dtype] if isinstance(scheme, Dense) else LAST_RESORT]
    sensitive = "rows" in tensor.uses or tensor.name.startswith("output.")
    kind = SENSITIVE.get(wanted, wanted) if sensitive else wanted
    return CODECS[fitting(kind, tensor.shape[-1])]
