# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-qwen."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="qwen3",
            classes=("Qwen3ForCausalLM",),
            config="tramontane_arch_qwen.model:Qwen3Config",
            model="tramontane_arch_qwen.model:Model",
            samples="tramontane_arch_qwen.samples:samples",
        ),
    ]
