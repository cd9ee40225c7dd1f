# SPDX-License-Identifier: Apache-2.0
"""Every block type of GGML: those of the core, and the rest, as the same kind of record.

Layouts are those of ggml (https://github.com/ggml-org/ggml); each file states the ones it holds. Unpacking is exact and
not fast. Legend: n blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from tramontane.schemes import BlockCodec
from tramontane.schemes.ggml import CODECS as BUILT_IN
from tramontane_quant_gguf.codecs.bytes8 import Q8_1, Q8_K
from tramontane_quant_gguf.codecs.fp4 import MXFP4, NVFP4
from tramontane_quant_gguf.codecs.iq1 import IQ1_M, IQ1_S
from tramontane_quant_gguf.codecs.iq2 import IQ2_S, IQ2_XS, IQ2_XXS
from tramontane_quant_gguf.codecs.iq3 import IQ3_S, IQ3_XXS
from tramontane_quant_gguf.codecs.iq4 import IQ4_NL, IQ4_XS
from tramontane_quant_gguf.codecs.numbers import F64, I8, I16, I32, I64
from tramontane_quant_gguf.codecs.ternary import TQ1_0, TQ2_0

FURTHER = (
    *(F64, I8, I16, I32, I64, Q8_1, Q8_K),
    *(IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS),
    *(TQ1_0, TQ2_0, MXFP4, NVFP4),
)
CODECS: Mapping[str, BlockCodec] = MappingProxyType({**BUILT_IN, **{codec.name: codec for codec in FURTHER}})
"""All types by name."""
BY_ID: Mapping[int, BlockCodec] = MappingProxyType({codec.id: codec for codec in CODECS.values()})
"""All types by their number in files."""
PLAIN: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "f32": torch.float32,
        "f16": torch.float16,
        "bf16": torch.bfloat16,
        "f64": torch.float64,
        "i8": torch.int8,
        "i16": torch.int16,
        "i32": torch.int32,
        "i64": torch.int64,
    }
)
"""Types that are plain elements of a torch type."""
REMOVED: Mapping[int, str] = MappingProxyType(
    {
        4: "q4_2",
        5: "q4_3",
        31: "q4_0_4_4",
        32: "q4_0_4_8",
        33: "q4_0_8_8",
        36: "iq4_nl_4_4",
        37: "iq4_nl_4_8",
        38: "iq4_nl_8_8",
    }
)
"""Types that the format once had; nothing reads them any more."""

__all__ = ["BY_ID", "CODECS", "FURTHER", "PLAIN", "REMOVED"]
