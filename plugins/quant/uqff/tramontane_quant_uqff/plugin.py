# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-quant-uqff."""

from __future__ import annotations

from collections.abc import Iterator

from tramontane import hookimpl
from tramontane.records import LoaderSpec, QuantFormatSpec, QuantizerSpec, WriterSpec


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


@hookimpl
def tramontane_writers() -> list[WriterSpec]:
    """Files that mistral.rs reads."""
    own = ("fp8", "hqq4", "hqq8", "mxfp4")
    return [
        WriterSpec(
            name="uqff",
            write="tramontane_quant_uqff.writer:write_uqff",
            extensions=(".uqff",),
            types={name: f"uqff-{name}" for name in own},
        )
    ]


@hookimpl
def tramontane_quantizers() -> Iterator[QuantizerSpec]:
    """Types in the form that the files hold them in."""
    for name in ("uqff-fp8", "uqff-hqq4", "uqff-hqq8", "uqff-mxfp4", "f8q8"):
        yield QuantizerSpec(name=name, make="tramontane_quant_uqff.quantizers:make")
