# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-gptq."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import QuantFormatSpec


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices that GPTQ packed into 32-bit words."""
    return [QuantFormatSpec(name="gptq", format="tramontane_quant_gptq.format:Format")]
