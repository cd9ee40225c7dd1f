# SPDX-License-Identifier: Apache-2.0
"""The ``reference`` backend: every op by its own definition. Obvious, differentiable, slow.

In invariant mode ops run row by row, so that each row's result depends on that row alone, bit for bit, whatever else is
in the batch and however a prompt is chunked. Tests of scheduling ask for that; other backends agree within a tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define
from torch import Tensor

from tramontane.backends.base import HostBackend
from tramontane.batch import Ctx
from tramontane.memory import available_memory
from tramontane.ops import Kernel, KernelMaker, Op, reference_kernel


def row_by_row(op: Op, weights: Sequence[Any]) -> Kernel:
    """The op's reference, one row at a time: every inner product and reduction keeps one shape."""

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for row in range(inputs[0].shape[0]):
            values = op.reference(ctx, weights, *(x[row : row + 1].contiguous() for x in inputs))
            for out, value in zip(outputs, values, strict=True):
                out[row : row + 1].copy_(value)

    return run


@define(eq=False)
class ReferenceBackend(HostBackend):
    """Runs every op by its reference."""

    name: str = "reference"
    invariant: bool = False

    def choose_dtype(self, stored: torch.dtype) -> torch.dtype:
        """Float32, whatever is stored: the point is to be right."""
        return torch.float32

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        """The reference; row by row in invariant mode unless the op reads the batch."""
        if self.invariant and not op.reads and not op.effect:
            return (("reference/rows", row_by_row),)
        return (("reference", reference_kernel),)

    def free_memory(self) -> int:
        """What the machine or its cgroup has left."""
        return available_memory()


@define(eq=False)
class InvariantBackend(ReferenceBackend):
    """The reference in invariant mode, under a name of its own."""

    name: str = "reference-invariant"
    invariant: bool = True
