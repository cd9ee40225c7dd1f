# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-adapter-lora."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import AdapterSpec


@hookimpl
def tramontane_adapters() -> AdapterSpec:
    """What PEFT saves."""
    return AdapterSpec(
        name="lora",
        open="tramontane_adapter_lora.files:open_adapter",
        detect="tramontane_adapter_lora.files:detect",
        files=("adapter_model.safetensors",),
    )
