# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-qwen."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec

DIALECTS = {
    "qwen2": "dialects:GGUF2",
    "qwen3": "dialects:GGUF3",
    "qwen2moe": "dialects:GGUF2_MOE",
    "qwen3moe": "dialects:GGUF3_MOE",
    "qwen3next": "next_dialects:GGUF",
}
"""Architectures that GGUF has names for; it calls them as this family does."""


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        _architecture("qwen2", "Qwen2ForCausalLM", "model:Qwen2Config", "model:Model"),
        _architecture("qwen3", "Qwen3ForCausalLM", "model:Qwen3Config", "model:Model"),
        _architecture("qwen2moe", "Qwen2MoeForCausalLM", "moe:Qwen2MoeConfig", "moe:MoeModel", "moe:weight_map"),
        _architecture("qwen3moe", "Qwen3MoeForCausalLM", "moe:Qwen3MoeConfig", "moe:MoeModel", "moe:weight_map"),
        _architecture("qwen3next", "Qwen3NextForCausalLM", "next:Qwen3NextConfig", "next:Model", "next:weight_map"),
    ]


def _architecture(name: str, cls: str, config: str, model: str, weight_map: str | None = None) -> ArchitectureSpec:
    return ArchitectureSpec(
        name=name,
        classes=(cls,),
        config=f"tramontane_arch_qwen.{config}",
        model=f"tramontane_arch_qwen.{model}",
        weight_map=None if weight_map is None else f"tramontane_arch_qwen.{weight_map}",
        samples=f"tramontane_arch_qwen.samples:{name}",
        tensor_parallel=name != "qwen3next",  # whose recurrent layers count their heads themselves
        dialects={"gguf": f"tramontane_arch_qwen.{DIALECTS[name]}"},
    )
