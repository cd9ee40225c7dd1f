# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-starcoder."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="starcoder2",
            classes=("Starcoder2ForCausalLM",),
            config="tramontane_arch_starcoder.model:Starcoder2Config",
            model="tramontane_arch_starcoder.model:Model",
            samples="tramontane_arch_starcoder.samples:samples",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_starcoder.dialects:GGUF"},
        ),
    ]
