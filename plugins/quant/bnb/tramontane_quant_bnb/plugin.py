# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-bnb."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import QuantFormatSpec


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices as bitsandbytes stores them."""
    return [QuantFormatSpec(name="bnb", format="tramontane_quant_bnb.format:Format")]
