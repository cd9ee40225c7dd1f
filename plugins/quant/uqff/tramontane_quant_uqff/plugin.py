# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-uqff."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import LoaderSpec, QuantFormatSpec


@hookimpl
def tramontane_loaders() -> list[LoaderSpec]:
    """What mistral.rs saves. Asked before the loader of safetensors, as the folder holds one such file too."""
    return [
        LoaderSpec(
            name="uqff",
            open="tramontane_quant_uqff.loader:open_uqff",
            detect="tramontane_quant_uqff.loader:recognizes",
            choose="tramontane_quant_uqff.files:choose",
            extensions=(".uqff",),
            priority=10,
        )
    ]


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Layers as mistral.rs serializes them."""
    return [QuantFormatSpec(name="uqff", format="tramontane_quant_uqff.format:Format")]
