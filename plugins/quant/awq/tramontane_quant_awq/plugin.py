# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-awq."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import QuantFormatSpec


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices that AWQ packed into 32-bit words."""
    return [QuantFormatSpec(name="awq", format="tramontane_quant_awq.format:Format")]
