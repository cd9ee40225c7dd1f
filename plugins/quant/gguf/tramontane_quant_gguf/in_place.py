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
from tramontane_quant_gguf.rules import FALLBACKS, SENSITIVE

KINDS: Mapping[str, str] = MappingProxyType(
    {f"q{bits}k": f"q{bits}_k" for bits in range(2, 7)}
    | {name: name for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs")}
)
"""Name that people type -> GGML's."""
_TYPED = {kind: name for name, kind in KINDS.items()}


def make(name: str) -> Quantizer:
    """The type of that name."""
    kind = KINDS[name]
    return Quantizer(
        name=name,
        scheme=Ggml(CODECS[kind]),
        pack=partial(_pack, kind),
        fallback=_TYPED.get(FALLBACKS.get(kind, "")),
        sensitive=_TYPED[SENSITIVE[kind]],
        weighs=kind in FITTED,
        rule="ggml",
    )


def _pack(kind: str, weight: Tensor, importance: Tensor | None) -> Fields:
    return {"weight": quantize(weight, kind, importance)}
