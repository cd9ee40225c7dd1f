# SPDX-License-Identifier: Apache-2.0
"""The rules that checkpoints of mixtures share: where the model has one stack per projection, they have one module per
expert, or stacks of another name."""

from __future__ import annotations

from collections.abc import Mapping

from tramontane.weightmap.rules import Rename, Stack

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""What the parts of a gated layer are called, in the model and in most checkpoints."""


def stacked_experts(count: int, names: Mapping[str, str] | None = None) -> tuple[Stack, ...]:
    """Rules for experts stored one by one: ``experts.3.up_proj`` is the third of ``experts.up_proj``.

    Args:
        count: How many experts a layer has.
        names: The stored name of each of :data:`PROJECTIONS`, where it is another.
    """
    return tuple(
        Stack(f"{{p...}}.experts.{ours}", f"{{p...}}.experts.{{e}}.{(names or {}).get(ours, ours)}", count)
        for ours in PROJECTIONS
    )


def renamed_experts(name: str = "switch_mlp") -> tuple[Rename, ...]:
    """Rules for stacks beside another name than ``experts``; MLX keeps them as ``switch_mlp.up_proj``."""
    return (Rename({f"{{p...}}.experts.{one}": f"{{p...}}.{name}.{one}" for one in PROJECTIONS}),)
