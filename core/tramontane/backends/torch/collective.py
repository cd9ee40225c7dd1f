# SPDX-License-Identifier: Apache-2.0
"""Sums and joins over workers, in the memory of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import AllGather, Kernel, Op, reference_kernel


def all_reduce(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Copied to its place, then added up there."""
    (group,) = weights

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        group.sum(outputs[0].copy_(inputs[0]))

    return run


def all_gather(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Each worker's columns to their place; parts of different widths by the reference, which pads them."""
    if not isinstance(op, AllGather):
        return f"made for all_gather, not {op.name}"
    if len(set(op.sizes)) > 1:
        return reference_kernel(op, weights)
    (group,) = weights

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for place, part in zip(outputs[0].split(op.sizes, dim=-1), group.gather(inputs[0]), strict=True):
            place.copy_(part)

    return run
