# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-adapter-lora."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import AdapterSpec


@hookimpl
def tramontane_adapters() -> list[AdapterSpec]:
    """What PEFT and MLX-LM save."""
    return [
        AdapterSpec(
            name="lora",
            open="tramontane_adapter_lora.files:open_adapter",
            detect="tramontane_adapter_lora.files:detect",
            files=("adapter_model.safetensors",),
        ),
        AdapterSpec(
            name="mlx-lora",
            open="tramontane_adapter_lora.mlx:open_adapter",
            detect="tramontane_adapter_lora.mlx:detect",
            files=("adapters.safetensors",),
        ),
    ]
