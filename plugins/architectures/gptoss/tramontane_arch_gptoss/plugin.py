# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-gptoss."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec, QuantFormatSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architecture."""
    return [
        ArchitectureSpec(
            name="gptoss",
            classes=("GptOssForCausalLM",),
            config="tramontane_arch_gptoss.model:GptOssConfig",
            model="tramontane_arch_gptoss.model:Model",
            weight_map="tramontane_arch_gptoss.weights:weight_map",
            samples="tramontane_arch_gptoss.samples:samples",
            tensor_parallel=True,
            dialects={"gguf:gpt-oss": "tramontane_arch_gptoss.dialects:GGUF"},
        )
    ]


@hookimpl
def tramontane_quant_formats() -> list[QuantFormatSpec]:
    """The format that the experts are published in."""
    return [QuantFormatSpec(name="mxfp4-experts", format="tramontane_arch_gptoss.weights:Mxfp4Experts")]
