# SPDX-License-Identifier: Apache-2.0
"""Which type takes the place of another: for rows that are no whole blocks, and for matrices that matter more.

The same for files that are written and for weights quantized in place. Names are GGML's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FALLBACKS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"),
        "q4_k": "q5_0",
        "q5_k": "q5_1",
        "q6_k": "q8_0",
        "iq4_xs": "iq4_nl",
    }
)
"""For rows that are no whole blocks of 256: a type of 32 that is at least as exact, as llama.cpp chooses."""
SENSITIVE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("q2_k", "q3_k", "q4_k", "q4_0", "q4_1", "iq4_nl", "iq4_xs", "mxfp4", "tq1_0", "tq2_0"), "q6_k"
        ),
        **dict.fromkeys(("q5_k", "q6_k", "q5_0", "q5_1", "q8_0"), "q8_0"),
    }
)
"""What embeddings and output heads get, whose errors reach every token."""
