# SPDX-License-Identifier: Apache-2.0
"""What HQQ stores beside each matrix to say how it is packed: numbers as scalars, texts as codes of their letters."""

from __future__ import annotations

from typing import Self

from attrs import frozen
from torch import Tensor

from tramontane.build.formats import Lookup
from tramontane.errors import PlanError

SLOTS = {"8bit_u8": 1, "4bit_u8": 2, "3bit_32": 10, "2bit_u8": 4, "1bit_u8": 8}
"""Packing -> codes per stored number."""
WIDTHS = {"8bit_u8": 8, "4bit_u8": 4, "3bit_32": 3, "2bit_u8": 2, "1bit_u8": 1}
"""Packing -> bits of a code in it; a code may need fewer."""
FIELDS = (
    "nbits", "group_size", "shape", "axis", "packing", "channel_wise",
    "unpack_view_dtype", "view_as_float", "quant_scale", "quant_zero", "compute_dtype", "optimize", "round_zero",
    "offload_meta", "encoded_state_dict", "stores_quant_config",
)  # fmt: skip
"""Everything that describes; not all of it says how to read."""


@frozen
class Description:
    """How one tensor is packed and grouped.

    Seen as groups, a tensor [O, I] is ``[-1, group]`` for axis 1 and ``[group, -1]`` for axis 0, both row by row.
    """

    bits: float
    """1.58 bits are three values in codes of 2 bits."""
    shape: tuple[int, ...]
    axis: int
    packing: str
    group: int | None = None
    channel_wise: bool = True
    """One scale per group; otherwise one for the whole tensor."""

    @classmethod
    def of(cls, lookup: Lookup, name: str, prefix: str = "") -> Self:
        """The description of a module, or (with a prefix) of its quantized scales or zero points.

        Raises:
            PlanError: Something is missing, unknown, or differs between stacked experts.
        """
        packing = _text(lookup, f"{prefix}packing", name)
        if packing not in SLOTS:
            raise PlanError(f"{name}: HQQ's packing {packing!r} is not supported ({', '.join(SLOTS)} are)")
        (bits,) = _numbers(lookup, f"{prefix}nbits", name, 1)
        axis, group, channel_wise = (
            None if not lookup.values(prefix + field) else _whole(lookup, prefix + field, name, 1)[0]
            for field in ("axis", "group_size", "channel_wise")
        )
        if axis not in (0, 1) or not 1 <= bits <= WIDTHS[packing]:
            raise PlanError(f"{name}: {bits} bits along axis {axis} do not go with the packing {packing}")
        shape = _whole(lookup, f"{prefix}shape", name)
        if min((*shape, 1 if group is None else group)) < 1:
            raise PlanError(f"{name}: groups of {group} in {list(shape)} are impossible")
        return cls(bits, shape, axis, packing, group, channel_wise != 0)

    @property
    def slots(self) -> int:
        """Codes per stored number."""
        return SLOTS[self.packing]

    @property
    def width(self) -> int:
        """Bits of a code as stored."""
        return WIDTHS[self.packing]

    @property
    def whole_bits(self) -> int:
        """Bits that a code needs."""
        return 2 if 1 < self.bits < 2 else int(self.bits)


def _same(lookup: Lookup, field: str, name: str) -> Tensor:
    """The one value of a field of all experts."""
    values = lookup.values(field)
    if not values:
        raise PlanError(f"{name} is packed by HQQ, but has no {field}")
    if any(value.tolist() != values[0].tolist() for value in values[1:]):
        raise PlanError(f"the experts of {name} differ in {field}")
    return values[0]


def _numbers(lookup: Lookup, field: str, name: str, count: int | None = None) -> tuple[float, ...]:
    stored = _same(lookup, field, name)
    found = tuple(float(value) for value in stored.flatten().tolist())
    if count is not None and len(found) != count:
        raise PlanError(f"{name}.{field} should be {count} number, not {list(stored.shape)}")
    return found


def _whole(lookup: Lookup, field: str, name: str, count: int | None = None) -> tuple[int, ...]:
    found = _numbers(lookup, field, name, count)
    if not all(value.is_integer() for value in found):
        raise PlanError(f"{name}.{field} should be whole, not {', '.join(map(str, found))}")
    return tuple(int(value) for value in found)


def _text(lookup: Lookup, field: str, name: str) -> str:
    codes = _whole(lookup, field, name)
    if any(not 0 <= code < 128 for code in codes):
        raise PlanError(f"{name}.{field} is no text")
    return "".join(map(chr, codes))
