# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-mistral."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="mistral",
            classes=("MistralForCausalLM",),
            config="tramontane_arch_mistral.model:MistralConfig",
            model="tramontane_arch_mistral.model:Model",
            samples="tramontane_arch_mistral.samples:samples",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_mistral.dialects:GGUF"},
        ),
    ]
