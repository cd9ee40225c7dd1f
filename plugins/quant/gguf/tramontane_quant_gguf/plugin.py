# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-gguf."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import LoaderSpec, QuantFormatSpec, WriterSpec


@hookimpl
def tramontane_loaders() -> list[LoaderSpec]:
    """GGUF files, and their predecessors."""
    return [
        LoaderSpec(
            name="gguf",
            open="tramontane_quant_gguf.loader:open_gguf",
            detect="tramontane_quant_gguf.loader:recognizes",
            extensions=(".gguf",),
        )
    ]


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """Matrices stored in GGML blocks."""
    return [QuantFormatSpec(name="gguf", format="tramontane_quant_gguf.format:Format")]


@hookimpl
def tramontane_writers() -> list[WriterSpec]:
    """GGUF files."""
    return [WriterSpec(name="gguf", write="tramontane_quant_gguf.writing.model:write_gguf", extensions=(".gguf",))]
