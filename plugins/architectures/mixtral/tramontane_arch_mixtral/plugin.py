# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-mixtral."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="mixtral",
            classes=("MixtralForCausalLM",),
            config="tramontane_arch_mixtral.model:MixtralConfig",
            model="tramontane_arch_mixtral.model:Model",
            weight_map="tramontane_arch_mixtral.model:weight_map",
            samples="tramontane_arch_mixtral.samples:samples",
            tensor_parallel=True,
            dialects={"gguf:llama+experts": "tramontane_arch_mixtral.dialects:GGUF"},
        ),
    ]
