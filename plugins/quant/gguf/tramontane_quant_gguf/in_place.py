# SPDX-License-Identifier: Apache-2.0
"""GGML types as types that a model can be quantized to while it loads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor

from tramontane.quantization import Quantizer
from tramontane.schemes import Fields, Ggml
from tramontane_quant_gguf.codecs import CODECS
from tramontane_quant_gguf.quantizers import FITTED, quantize

FALLBACKS: Mapping[str, str] = MappingProxyType(
    {"q2k": "q4_0", "q3k": "q4_0", "q4k": "q4_1", "q5k": "q5_0", "q6k": "q5_1"}
)
"""K types pack 256 inputs; rows that are not whole blocks get a type of 32 that is not much worse."""
LOW = ("q2k", "q3k", "q4k", "q4_0", "q4_1")
"""Types whose embeddings and output heads become q6k; those of all others become q8_0."""
KINDS: Mapping[str, str] = MappingProxyType(
    {f"q{bits}k": f"q{bits}_k" for bits in range(2, 7)}
    | {name: name for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")}
)
"""Name that people type -> GGML's."""


def make(name: str) -> Quantizer:
    """The type of that name."""
    kind = KINDS[name]
    return Quantizer(
        name=name,
        scheme=Ggml(CODECS[kind]),
        pack=partial(_pack, kind),
        fallback=FALLBACKS.get(name),
        sensitive="q6k" if name in LOW else "q8_0",
        weighs=kind in FITTED,
    )


def _pack(kind: str, weight: Tensor, importance: Tensor | None) -> Fields:
    return {"weight": quantize(weight, kind, importance)}
