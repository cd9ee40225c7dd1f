# SPDX-License-Identifier: Apache-2.0
"""Hooks of the scripted model."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import ArchitectureSpec


@hookimpl
def tramontane_architectures() -> list[ArchitectureSpec]:
    """The one architecture."""
    return [
        ArchitectureSpec(
            name="scripted",
            classes=("ScriptedForCausalLM",),
            config="tramontane_scripted.model:ScriptedConfig",
            model="tramontane_scripted.model:Model",
        )
    ]
