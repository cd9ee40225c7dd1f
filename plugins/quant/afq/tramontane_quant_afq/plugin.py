# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-afq."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import QuantFormatSpec


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices that MLX packed into 32-bit words."""
    return [QuantFormatSpec(name="afq", format="tramontane_quant_afq.format:Format")]
