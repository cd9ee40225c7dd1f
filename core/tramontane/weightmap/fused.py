# SPDX-License-Identifier: Apache-2.0
"""Rules of checkpoints that store as one what the model knows by its parts: ``qkv_proj``, ``gate_up_proj``."""

from __future__ import annotations

from collections.abc import Mapping

from tramontane.weightmap.rules import Rule, Spell, Split


def fused_parts(name: str, parts: Mapping[str, int]) -> Split:
    """``name`` holds its sibling modules ``parts`` (name -> outputs), one below the other."""
    return Split(f"{{p...}}.{name}", {f"{{p...}}.{part}": size for part, size in parts.items()})


def fused_experts(width: int) -> tuple[Rule, ...]:
    """Stacks of experts as transformers 5 holds them in memory: ``experts.gate_up_proj`` (gate rows first) and
    ``experts.down_proj``, both without a field name. ``width`` is the intermediate size of an expert."""
    return (
        fused_parts("experts.gate_up_proj", {"experts.gate_proj": width, "experts.up_proj": width}),
        Spell("{p...}.experts.{which}_proj", {".weight": ""}),
    )
