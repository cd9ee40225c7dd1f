# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-olmo."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="olmo2",
            classes=("Olmo2ForCausalLM",),
            config="tramontane_arch_olmo.model:Olmo2Config",
            model="tramontane_arch_olmo.model:Model",
            samples="tramontane_arch_olmo.samples:samples",
            dialects={"gguf": "tramontane_arch_olmo.dialects:GGUF"},
        ),
    ]
