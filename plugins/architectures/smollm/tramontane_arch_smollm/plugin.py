# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-smollm."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="smollm3",
            classes=("SmolLM3ForCausalLM",),
            config="tramontane_arch_smollm.model:SmolLM3Config",
            model="tramontane_arch_smollm.model:Model",
            samples="tramontane_arch_smollm.samples:samples",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_smollm.dialects:GGUF"},
        ),
    ]
