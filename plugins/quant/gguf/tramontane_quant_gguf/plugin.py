# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-gguf."""

from __future__ import annotations

from collections.abc import Iterator

from tramontane import hookimpl
from tramontane.records import ImportanceSpec, LoaderSpec, QuantFormatSpec, QuantizerSpec, WriterSpec


@hookimpl
def tramontane_loaders() -> list[LoaderSpec]:
    """GGUF files, and their predecessors."""
    return [
        LoaderSpec(
            name="gguf",
            open="tramontane_quant_gguf.loader:open_gguf",
            detect="tramontane_quant_gguf.loader:recognizes",
            choose="tramontane_quant_gguf.choice:choose",
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


@hookimpl
def tramontane_importances() -> list[ImportanceSpec]:
    """llama.cpp's importance files."""
    return [
        ImportanceSpec(
            name="imatrix",
            form="gguf",
            detect="tramontane_quant_gguf.importances:recognizes",
            read="tramontane_quant_gguf.importances:read",
            write="tramontane_quant_gguf.importances:write",
            extensions=(".gguf", ".imatrix", ".dat"),
        )
    ]


@hookimpl
def tramontane_quantizers() -> Iterator[QuantizerSpec]:
    """Types of GGML that models can be quantized to; the names of mixtures in files stand for their main type."""
    for bits in range(2, 7):
        aliases = (f"q{bits}_k", *(f"q{bits}_k_{size}" for size in "sml"))
        yield QuantizerSpec(name=f"q{bits}k", make="tramontane_quant_gguf.in_place:make", aliases=aliases)
    for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs"):
        yield QuantizerSpec(name=name, make="tramontane_quant_gguf.in_place:make", aliases=(name.replace("_", ""),))
