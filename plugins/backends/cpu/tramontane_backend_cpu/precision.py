# SPDX-License-Identifier: Apache-2.0
"""Whether activations of quantized products may be rounded to eight bits: the user's choice, read once per weight."""

from __future__ import annotations

import os

VARIABLE = "TRAMONTANE_CPU_EXACT"


def exact_activations() -> bool:
    """``TRAMONTANE_CPU_EXACT=1``: activations stay floats, and products with quantized weights are a few times slower.

    Raises:
        ValueError: The variable is neither 0 nor 1.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{VARIABLE} must be 0 or 1, not {value!r}")
    return value == "1"
