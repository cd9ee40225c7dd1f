# SPDX-License-Identifier: Apache-2.0
"""4-bit matrices of bitsandbytes as a codebook.

Elements are counted through the whole matrix, row after row: two share a byte (the earlier in the high bits), and
``blocksize`` of them share a scale. Definition: Dettmers et al., arXiv 2305.14314.

Where blocks end with rows, rows can be cut. Otherwise the matrix is read whole, and each block becomes several smaller
ones of equal scales that do end with rows.

Legend: O outputs, I inputs; leading dimensions are experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup, StoredTensor
from tramontane.errors import PlanError
from tramontane.schemes import Codebook, Fields
from tramontane.schemes.packing import octets, packed_size
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_bnb.nested import BYTES, OFFSET, OUTER, Nested
from tramontane_quant_bnb.state import State, check_table, read_states

Shape = tuple[int, ...]

STATE = "weight.quant_state.bitsandbytes__"
TABLE = "weight.quant_map"


@frozen
class FourBit:
    """One module: its scheme, and how it is described."""

    state: State
    scheme: Codebook
    nested: Nested | None
    word: int
    """Bytes of what the codes were put in for storage: usually 1."""

    @classmethod
    def part(cls, weight: StoredTensor, field: str, shape: Shape, lookup: Lookup) -> FormatPart:
        """How the module with the description ``field`` is stored.

        Raises:
            PlanError: Its description and its tensors do not go together.
        """
        name, inputs = weight.name.removesuffix(".weight"), shape[-1]
        states = read_states(lookup.values(field), name)
        state = states[0]
        check_table(lookup.values(TABLE), state, name)
        if len(state.shape) != 2 or state.shape[-1] != inputs:
            raise PlanError(f"{name} is described as {list(state.shape)}, but the model wants {list(shape)}")
        block = gcd(state.blocksize, inputs)
        if block % 2:
            raise PlanError(f"{name}: blocks of {state.blocksize} cross rows of {inputs}, and no even part fits both")
        size, scales = state.nested_blocksize, lookup.stored(BYTES)
        if scales is not None and (scales.dtype is torch.uint8) is (size is None):
            raise PlanError(f"{scales.name} is {scales.dtype}, which is not what the description of {name} says")
        nested = None if size is None else Nested(inputs, size, size * state.blocksize)
        made = cls(state, Codebook(state.quant_type, block), nested, weight.dtype.itemsize)
        offsets = torch.tensor([one.nested_offset for one in states])
        given = {} if nested is None else {OFFSET: offsets if len(shape) == 3 else offsets[0]}
        return FormatPart(made.scheme, made.fields(inputs), made.canonical, made=given, known=(field, TABLE))

    @property
    def whole_rows(self) -> bool:
        """Whether every block, and every word, ends with its row."""
        inputs = self.state.shape[-1]
        return self.scheme.block == self.state.blocksize and inputs % (2 * self.word) == 0

    def fields(self, inputs: int) -> dict[str, TensorDecl]:
        """Where the logical axes lie in what is stored; nothing can be cut where blocks cross rows."""
        further = {} if self.nested is None else self.nested.fields()
        if not self.whole_rows:
            flat = ["weight", BYTES, *([] if self.nested is None else [OUTER])]
            return {**further, **{name: TensorDecl(name, sliceable=False) for name in flat}}
        return {
            "weight": _rows("weight", inputs, 2 * self.word),
            BYTES: _rows(BYTES, inputs, self.scheme.block),
            **further,
        }

    def canonical(self, tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        """See :class:`tramontane.build.formats.FormatPart`."""
        *lead, outputs, inputs = shape
        pairs = octets(tensors["weight"]).reshape(*lead, outputs, packed_size(inputs, 4))
        scales = tensors[BYTES].float() if self.nested is None else self.nested.scales(tensors, len(lead))
        if not self.whole_rows:  # a block's scale for each of the smaller blocks in it
            spread = scales.repeat_interleave(self.state.blocksize // self.scheme.block, -1)
            scales = spread[..., : outputs * inputs // self.scheme.block]
        scales = scales.reshape(*lead, outputs, -(-inputs // self.scheme.block))
        return {"weight": (pairs >> 4) | (pairs << 4), "scale": scales}


def _rows(name: str, inputs: int, block: int) -> TensorDecl:
    """A flat tensor seen by rows, with one entry per ``block`` inputs."""
    return TensorDecl(name, {"out": Axis(0), "in": Axis(1, block=block)}, view=(-1, inputs // block))
