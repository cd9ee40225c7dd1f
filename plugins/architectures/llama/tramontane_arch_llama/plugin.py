# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-llama."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="llama",
            classes=("LlamaForCausalLM",),
            config="tramontane_arch_llama.model:LlamaConfig",
            model="tramontane_arch_llama.model:Model",
            samples="tramontane_arch_llama.samples:samples",
            tensor_parallel=True,
            dialects={
                "gguf:llama": "tramontane_arch_llama.dialects:GGUF",
                "ggjt:llama": "tramontane_arch_llama.dialects:GGJT",
            },
        ),
    ]
