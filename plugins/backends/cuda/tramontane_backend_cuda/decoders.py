# SPDX-License-Identifier: Apache-2.0
"""Machine code that decodes four bytes into four bfloat16 numbers, and which layouts have pieces it applies to.

A byte below 128 under the exponent of 128 (``0x43``) is the bfloat16 ``128 + byte``, exactly: one permutation of bytes
makes two numbers of two codes, and the 128 are taken away from a group's sum. Bytes of 8 bits are two such numbers,
their low seven bits and their sign. 8-bit and 4-bit floats need their bits at other places and one multiplication by a
power of two. All of it is exact; it needs compute capability 8.0.
"""

from __future__ import annotations

import math
from typing import Any

from attrs import frozen

from tramontane_backend_cuda.planes import DenseForm, Form

LEAST = 16
"""Codes of a piece: what the tensor cores take at once."""
MOST = 64


_WHOLE = """{
.reg .b32 t;
shr.u32 t, $2, SHIFT;
and.b32 t, t, MASK;
prmt.b32 $0, t, 0x43434343, 0x5140;
prmt.b32 $1, t, 0x43434343, 0x7362;
}"""
"""Packed codes at SHIFT as whole numbers, plus 128: what is too much is taken from the sums."""


def _whole_less(center: int) -> str:
    """The same less ``center``: dearer for each weight, but for many tokens less than the sums of their activations."""
    less = 0xC300 + center  # -(128 + center)
    return (
        _WHOLE.replace(".b32 t;", ".b32 t, one, less;").removesuffix("}")
        + f"""mov.b32 one, 0x3f803f80;
mov.b32 less, {less * 0x10001:#010x};
fma.rn.bf16x2 $0, $0, one, less;
fma.rn.bf16x2 $1, $1, one, less;
}}"""
    )


def _signed(flip: int) -> str:
    """Bytes as signed numbers, after their bits were flipped: ``(128 + low) - (128 + sign)``."""
    return f"""{{
.reg .b32 t, low, sign, a, b, minus;
xor.b32 t, $2, {flip:#010x};
and.b32 low, t, 0x7f7f7f7f;
and.b32 sign, t, 0x80808080;
mov.b32 minus, 0xbf80bf80;
prmt.b32 a, sign, 0x43434343, 0x5140;
prmt.b32 b, sign, 0x43434343, 0x7362;
prmt.b32 $0, low, 0x43434343, 0x5140;
prmt.b32 $1, low, 0x43434343, 0x7362;
fma.rn.bf16x2 $0, a, minus, $0;
fma.rn.bf16x2 $1, b, minus, $1;
}}"""


def _floats(begin: str, place: str, up: int) -> str:
    """Bytes as small floats: ``begin`` takes two each into the registers ``a`` and ``b``, ``place`` puts sign, exponent
    and mantissa of H where a bfloat16 has them, ``up`` is the power of two that is missing then, as bfloat16's bits."""
    placed = "".join(place.replace("H", register) for register in "ab")
    return f"""{{
.reg .b32 a, b, s, t, up, zero;
{begin}mov.b32 up, {up * 0x10001:#010x};
mov.b32 zero, 0x80008000;
{placed}fma.rn.bf16x2 $0, a, up, zero;
fma.rn.bf16x2 $1, b, up, zero;
}}"""


_E4M3 = _floats(
    """prmt.b32 a, $2, 0, 0x1404;
prmt.b32 b, $2, 0, 0x3424;
""",
    """and.b32 s, H, 0x80008000;
shr.u32 t, H, 4;
and.b32 t, t, 0x07f007f0;
or.b32 H, s, t;
""",
    0x7B80,
)
"""Exponent and mantissa four bits lower, then times 2**120."""

_E2M1 = _floats(
    """shr.u32 t, $2, SHIFT;
and.b32 t, t, 0x0f0f0f0f;
prmt.b32 a, t, 0, 0x4140;
prmt.b32 b, t, 0, 0x4342;
""",
    """shl.b32 s, H, 12;
and.b32 s, s, 0x80008000;
shl.b32 t, H, 6;
and.b32 t, t, 0x01c001c0;
or.b32 H, s, t;
""",
    0x7E80,
)
"""One exponent bit of two becomes the lowest of eight, then times 2**126."""


@frozen
class Pieces:
    """How a layout is multiplied in pieces.

    Attributes:
        size: Codes of a byte plane that are one piece; 0: the layout has none.
        center: What decoding subtracts from a code; what it adds, if below zero.
        decoder: The machine code; empty where ordinary operations do.
    """

    size: int = 0
    center: int = 0
    decoder: str = ""

    @property
    def rules(self) -> dict[str, Any]:
        """As kernels take them."""
        return {"PIECE": self.size, "CENTER": self.center, "DECODER": self.decoder}

    @classmethod
    def of(cls, form: Form, inputs: int) -> Pieces:
        """The pieces of a layout's rows. There are none where codes lie in two planes or look up a table, where a scale
        belongs to fewer codes than the tensor cores take at once, or where a row is not whole pieces."""
        low = form.packing.low
        size = math.gcd(math.gcd(form.group, inputs) * low // 8, MOST)  # a power of two, as MOST is
        if isinstance(form, DenseForm):
            return cls(size if size >= LEAST else 0)
        if low not in (4, 8) or form.packing.high or form.table == "look" or form.codes == "e5m2" or size < LEAST:
            return cls()
        if _is_whole(form):  # where there are zero points or minima, sums of activations are needed anyway
            middle = form.zero == "middle"
            return cls(size, form.middle, _whole_less(form.middle)) if middle else cls(size, -128, _WHOLE)
        return cls(size, 128 if form.codes == "u8" else 0, _DECODERS[form.table or form.codes])

    @classmethod
    def of_one(cls, form: Form, inputs: int) -> Pieces:
        """For one token, whose groups are columns: there are codes in two planes too, of one or two bits each."""
        some = cls.of(form, inputs)
        if isinstance(form, DenseForm) or not form.group:
            return cls()
        least = min(tile_inputs(form.group, form.packing.inputs, inputs) * low // 8 for low in _planes(form))
        if least < LEAST:
            return cls()
        return cls(LEAST, -128, _WHOLE) if _is_whole(form) else some


MOST_INPUTS = 256
"""Inputs of a tile where one token's groups are columns."""


def tile_inputs(group: int, chunk: int, inputs: int) -> int:
    """Inputs of such a tile: up to eight groups, whole chunks, and rows are whole tiles; 0 if there is no such size."""
    sizes = (MOST_INPUTS >> turn for turn in range(6))
    return next((
        size for size in sizes if size <= 8 * group and size % chunk == 0 and inputs % size == 0
        and (size % group == 0 or group % size == 0)
    ), 0)  # fmt: skip


def _planes(form: Form) -> list[int]:
    return [bits for bits in (form.packing.low, form.packing.high) if bits]


def _is_whole(form: Form) -> bool:
    return form.codes == "bits" and form.table == ""


_DECODERS = {"e2m1": _E2M1, "e4m3": _E4M3, "i8": _signed(0), "u8": _signed(0x80808080)}
