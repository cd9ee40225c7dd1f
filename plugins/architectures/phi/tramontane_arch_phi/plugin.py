# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-arch-phi."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The architectures of this family."""
    return [
        ArchitectureSpec(
            name="phi",
            classes=("PhiForCausalLM",),
            config="tramontane_arch_phi.model:PhiConfig",
            model="tramontane_arch_phi.model:Model",
            samples="tramontane_arch_phi.samples:phi",
            tensor_parallel=True,
            dialects={"gguf:phi2": "tramontane_arch_phi.dialects:GGUF_PHI2"},
        ),
        ArchitectureSpec(
            name="phi3",
            classes=("Phi3ForCausalLM",),
            config="tramontane_arch_phi.phi3:Phi3Config",
            model="tramontane_arch_phi.phi3:Model",
            weight_map="tramontane_arch_phi.phi3:weight_map",
            samples="tramontane_arch_phi.samples:phi3",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_phi.dialects:GGUF_PHI3"},
        ),
        ArchitectureSpec(
            name="phimoe",
            classes=("PhimoeForCausalLM", "PhiMoEForCausalLM"),
            config="tramontane_arch_phi.phimoe:PhimoeConfig",
            model="tramontane_arch_phi.phimoe:Model",
            weight_map="tramontane_arch_phi.phimoe:weight_map",
            samples="tramontane_arch_phi.samples:phimoe",
            tensor_parallel=True,
            dialects={"gguf": "tramontane_arch_phi.dialects:GGUF_PHIMOE"},
        ),
    ]
