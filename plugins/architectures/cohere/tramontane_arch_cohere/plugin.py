# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-cohere."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="cohere",
            classes=("CohereForCausalLM",),
            config="tramontane_arch_cohere.model:CohereConfig",
            model="tramontane_arch_cohere.model:Model",
            samples="tramontane_arch_cohere.samples:cohere",
            tensor_parallel=True,
            dialects={"gguf:command-r": "tramontane_arch_cohere.dialects:GGUF"},
        ),
        ArchitectureSpec(
            name="cohere2",
            classes=("Cohere2ForCausalLM",),
            config="tramontane_arch_cohere.model:Cohere2Config",
            model="tramontane_arch_cohere.model:Model",
            samples="tramontane_arch_cohere.samples:cohere2",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_cohere.dialects:GGUF_2"},
        ),
    ]
