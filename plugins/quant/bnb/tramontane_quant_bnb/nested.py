# SPDX-License-Identifier: Apache-2.0
"""Double quantization: scales that are bytes, look up a table, and have scales of their own.

``scale = table[byte] * outer + offset``, one outer scale per 256 scales, counted through the whole matrix. An outer
scale covers whole rows, or a whole part of one row; where it is neither, nothing can be cut.

Legend: O outputs, B scales of a row; leading dimensions are experts.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from torch import Tensor

from tramontane.tensors import Axis, TensorDecl

BYTES, OUTER, TABLE = "weight.absmax", "weight.nested_absmax", "weight.nested_quant_map"
OFFSET = "nested_offset"
"""Made while planning, from the description."""


@frozen
class Nested:
    """How the outer scales of a matrix lie."""

    inputs: int
    size: int
    """Scales per outer scale."""
    elements: int
    """Elements of the matrix per outer scale."""

    def fields(self) -> dict[str, TensorDecl]:
        """Where the logical axes lie in what is stored beside the scales."""
        return {OUTER: self._outer(), TABLE: TensorDecl(TABLE), OFFSET: TensorDecl(OFFSET)}

    def _outer(self) -> TensorDecl:
        if self.elements % self.inputs == 0:
            return TensorDecl(OUTER, {"out": Axis(0, block=self.elements // self.inputs)})
        if self.inputs % self.elements == 0:
            per_row = self.inputs // self.elements
            return TensorDecl(OUTER, {"out": Axis(0), "in": Axis(1, block=self.elements)}, view=(-1, per_row))
        return TensorDecl(OUTER, sliceable=False)

    def scales(self, tensors: Mapping[str, Tensor], lead: int) -> Tensor:
        """float32 scales in the shape of the stored bytes, which have ``lead`` leading dimensions."""
        stored, outer = tensors[BYTES], tensors[OUTER].float()
        flat = tensors[TABLE].float().gather(-1, stored.flatten(lead).long())
        offset = tensors[OFFSET].reshape(*stored.shape[:lead], *(1 for _ in stored.shape[lead:]))
        return flat.view(stored.shape) * self._spread(outer, stored, lead) + offset

    def _spread(self, outer: Tensor, stored: Tensor, lead: int) -> Tensor:
        """An outer scale per scale, broadcastable to the stored bytes."""
        if stored.dim() == lead + 2:  # seen by rows
            if self.elements % self.inputs == 0:
                rows = outer.repeat_interleave(self.elements // self.inputs, -1)
                return rows[..., : stored.shape[-2]].unsqueeze(-1)
            if self.inputs % self.elements == 0:
                return outer.repeat_interleave(self.size, -1)
        spread = outer.repeat_interleave(self.size, -1)[..., : stored.flatten(lead).shape[-1]]
        return spread.reshape(stored.shape)
