# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-deepseek."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name=f"deepseek{version}",
            classes=(f"DeepseekV{version}ForCausalLM",),
            config=f"tramontane_arch_deepseek.config:DeepseekV{version}Config",
            model="tramontane_arch_deepseek.model:Model",
            weight_map="tramontane_arch_deepseek.config:weight_map",
            samples=f"tramontane_arch_deepseek.samples:v{version}",
            tensor_parallel=True,
            # GGUF calls both what this family calls the second; which one a file is, it says by its scoring.
            dialects={"gguf": f"tramontane_arch_deepseek.dialects:GGUF{version}"},
        )
        for version in (2, 3)
    ]
