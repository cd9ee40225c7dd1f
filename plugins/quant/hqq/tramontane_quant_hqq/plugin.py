# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-hqq."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import LoaderSpec, QuantFormatSpec


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices as HQQ packs them."""
    return [QuantFormatSpec(name="hqq", format="tramontane_quant_hqq.format:Format")]


@hookimpl
def tramontane_loaders() -> list[LoaderSpec]:
    """The pickled form that HQQ's own ``save_quantized`` writes."""
    return [
        LoaderSpec(
            name="hqq",
            open="tramontane_quant_hqq.loader:open_qmodel",
            detect="tramontane_quant_hqq.loader:recognizes",
            extensions=("qmodel.pt",),
        )
    ]
