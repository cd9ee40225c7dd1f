# SPDX-License-Identifier: Apache-2.0
"""The rules that checkpoints of mixtures share: one module per expert where the model has one stack."""

from __future__ import annotations

from collections.abc import Mapping

from tramontane.weightmap.rules import Stack

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
