# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-granite."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="granite",
            classes=("GraniteForCausalLM",),
            config="tramontane_arch_granite.model:GraniteConfig",
            model="tramontane_arch_granite.model:Model",
            samples="tramontane_arch_granite.samples:granite",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_granite.dialects:GGUF"},
        ),
        ArchitectureSpec(
            name="granitemoe",
            classes=("GraniteMoeForCausalLM",),
            config="tramontane_arch_granite.moe:GraniteMoeConfig",
            model="tramontane_arch_granite.model:Model",
            weight_map="tramontane_arch_granite.moe:weight_map",
            samples="tramontane_arch_granite.samples:granitemoe",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_granite.dialects:GGUF_MOE"},
        ),
    ]
