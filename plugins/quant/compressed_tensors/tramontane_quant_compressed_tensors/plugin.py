# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-compressed-tensors."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import QuantFormatSpec


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices as compressed-tensors stores them."""
    return [QuantFormatSpec(name="compressed-tensors", format="tramontane_quant_compressed_tensors.format:Format")]
