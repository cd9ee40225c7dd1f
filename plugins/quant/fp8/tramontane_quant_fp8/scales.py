# SPDX-License-Identifier: Apache-2.0
"""How the scales of a float8 matrix lie, told by their shape: one for all, one per output, or one per block.

Legend: O outputs, I inputs, r and c outputs and inputs per block.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import StoredTensor
from tramontane.errors import PlanError
from tramontane.tensors import Axis, TensorDecl

Shape = tuple[int, ...]


@frozen
class Scales:
    """Where the scales of one matrix are, and what each covers."""

    field: str
    granularity: Literal["tensor", "channel", "block"]
    decl: TensorDecl
    dtype: torch.dtype
    block: tuple[int, int] | None = None

    @classmethod
    def of(cls, weight: StoredTensor, scale: StoredTensor, field: str, block: tuple[int, int] | None) -> Scales:
        """Tell by the stored shapes of weight and scales.

        Args:
            weight: [O, I], or a stack of such.
            scale: Anything that writers make of it: [], [1], [O], [O, 1], [O / r, I / c], [O / r, 1, I / c, 1].
            field: The scales' field.
            block: (r, c) as the settings say.

        Raises:
            PlanError: It is none of these.
        """
        if len(weight.shape) not in (2, 3):
            raise PlanError(f"{weight.name} of shape {list(weight.shape)} is no matrix")
        *lead, rows, columns = weight.shape
        shape, dtype = scale.shape[len(lead) :], e8m0_if_bytes(scale.dtype)
        if block is not None:
            grid = (-(-rows // block[0]), -(-columns // block[1]))
            if shape in (grid, (grid[0], 1, grid[1], 1)):
                axes = {"out": Axis(0, block=block[0]), "in": Axis(1, block=block[1])}
                decl = TensorDecl(field, axes, view=None if len(shape) == 2 else grid)
                return cls(field, "block", decl, dtype, block)
        if prod(shape) == 1:
            return cls(field, "tensor", TensorDecl(field), dtype)
        if shape in ((rows,), (rows, 1)):
            return cls(field, "channel", TensorDecl(field, {"out": Axis(0)}), dtype)
        raise PlanError(
            f"{scale.name} of shape {list(scale.shape)} does not go with {weight.name} of shape {list(weight.shape)}"
            + (f" in blocks of {block[0]} x {block[1]}" if block else ", and the settings state no weight_block_size")
        )

    def canonical(self, scale: Tensor, shape: Shape) -> Tensor:
        """The scales that were read, for a weight of a logical shape, in the scheme's form."""
        seen = scale.view(torch.float8_e8m0fnu) if scale.dtype is torch.uint8 else scale
        if self.granularity == "block":
            return seen
        return seen.reshape(shape[:-2] if self.granularity == "tensor" else shape[:-1])


def e8m0_if_bytes(dtype: torch.dtype) -> torch.dtype:
    """Scales stored as plain bytes are exponents."""
    return torch.float8_e8m0fnu if dtype is torch.uint8 else dtype
