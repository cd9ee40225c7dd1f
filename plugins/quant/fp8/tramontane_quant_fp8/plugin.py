# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-fp8."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import QuantFormatSpec


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices of small floating-point numbers with scales."""
    return [QuantFormatSpec(name="fp8", format="tramontane_quant_fp8.format:Format")]
