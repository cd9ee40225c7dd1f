# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-gemma."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name=name,
            classes=(f"{name.capitalize()}ForCausalLM",),
            config=f"tramontane_arch_gemma.{name}:{name.capitalize()}Config",
            model=f"tramontane_arch_gemma.{module}:Model",
            samples=f"tramontane_arch_gemma.samples:{name}",
            tensor_parallel=True,
            dialects={"gguf": f"tramontane_arch_gemma.dialects:GGUF{name.removeprefix('gemma')}"},
        )
        for name, module in (("gemma", "gemma"), ("gemma2", "gemma2"), ("gemma3", "gemma2"))
    ]
