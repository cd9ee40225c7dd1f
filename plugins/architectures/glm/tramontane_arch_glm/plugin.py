# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-glm."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="glm",
            classes=("GlmForCausalLM",),
            config="tramontane_arch_glm.model:GlmConfig",
            model="tramontane_arch_glm.model:Model",
            weight_map="tramontane_arch_glm.model:weight_map",
            samples="tramontane_arch_glm.samples:glm",
            tensor_parallel=True,
            dialects={"gguf:chatglm": "tramontane_arch_glm.dialects:GGUF"},
        ),
        ArchitectureSpec(
            name="glm4",
            classes=("Glm4ForCausalLM",),
            config="tramontane_arch_glm.model:GlmConfig",
            model="tramontane_arch_glm.model:SandwichModel",
            weight_map="tramontane_arch_glm.model:weight_map",
            samples="tramontane_arch_glm.samples:glm4",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_glm.dialects:GGUF_0414"},
        ),
    ]
