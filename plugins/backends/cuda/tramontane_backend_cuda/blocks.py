# SPDX-License-Identifier: Apache-2.0
"""GGML block types as planes, and back bit for bit. What a block holds is said in :mod:`tramontane.schemes.ggml`.

Legend: O outputs, n blocks of a row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor

from tramontane.schemes.ggml.codec import bit_planes, join_bits, join_nibbles, nibbles, stream_bits
from tramontane_backend_cuda.codes import PACKINGS
from tramontane_backend_cuda.planes import Form, Planes


@frozen(kw_only=True)
class _BlockForm(Form):
    """A block is sections of bytes; :meth:`take` makes codes and scales of them, :meth:`give` the sections of those."""

    sizes: tuple[int, ...]
    """Bytes of the sections."""
    inputs: int = 256
    """Inputs of a block."""

    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sections = list(fields["weight"].unflatten(-1, (-1, sum(self.sizes))).split(list(self.sizes), dim=-1))
        codes, others = self.take(*sections)
        return self.pack(codes.flatten(1)) | {name: one.flatten(1).contiguous() for name, one in others.items()}

    def fields(self, planes: Planes, inputs: int) -> dict[str, Tensor]:
        codes = self.unpack(planes, inputs).unflatten(-1, (-1, self.inputs))
        count = codes.shape[1]
        others = {name: one.unflatten(-1, (count, -1)) for name, one in planes.items() if name not in ("codes", "high")}
        return {"weight": torch.cat(self.give(codes, others), -1).flatten(1)}

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Codes [O, n, inputs] and other planes [O, n, ..] of sections [O, n, size]."""
        raise NotImplementedError

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        """The inverse of :meth:`take`."""
        raise NotImplementedError


def _halves(section: Tensor) -> Tensor:
    """float16 numbers of a section [O, n, 2]: [O, n, 1]."""
    return section.contiguous().view(torch.float16)


def _octets(numbers: Tensor) -> Tensor:
    """The inverse of :func:`_halves`."""
    return numbers.contiguous().view(torch.uint8)


@frozen(kw_only=True)
class _Small(_BlockForm):
    """32 inputs: a float16 scale, perhaps a float16 minimum, perhaps fifth bits, then the codes."""

    inputs: int = 32

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        scale, *middle, last = sections
        others = {"scale": _halves(scale)}
        if self.zero == "offset":
            others["zero"] = _halves(middle.pop(0))
        codes = nibbles(last).flatten(-2)
        if middle:
            codes = codes | (stream_bits(middle[0]) << 4)
        return codes, others

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        sections = [_octets(others["scale"])]
        if self.zero == "offset":
            sections.append(_octets(others["zero"]))
        if self.packing.high:
            sections.append(join_bits((codes >> 4).reshape(-1, 32)).view(*codes.shape[:2], 4))
        return [*sections, join_nibbles(codes & 15)]


@frozen(kw_only=True)
class _Bytes(_BlockForm):
    """Q8_0: a float16 scale and signed bytes."""

    inputs: int = 32

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return sections[1], {"scale": _halves(sections[0])}

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        return [_octets(others["scale"]), codes]


@frozen(kw_only=True)
class _Mxfp4(_BlockForm):
    """32 inputs under a power of two."""

    inputs: int = 32

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return nibbles(sections[1]).flatten(-2), {"scale": sections[0]}

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        return [others["scale"], join_nibbles(codes)]


@frozen(kw_only=True)
class _Q2K(_BlockForm):
    """Scale and minimum of 16 inputs share a byte, which stays as it is."""

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        scale, codes, factor, low_factor = sections
        two = bit_planes(codes.unflatten(-1, (2, 32)), 2).flatten(-3)
        return two, {"scale": scale, "factor": _halves(factor), "low_factor": _halves(low_factor)}

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        two = _join_planes(codes.unflatten(-1, (2, 4, 32)), 2).flatten(-2)
        return [others["scale"], two, _octets(others["factor"]), _octets(others["low_factor"])]


@frozen(kw_only=True)
class _Q3K(_BlockForm):
    """6-bit scales around 32, as signed bytes."""

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        third, codes, packed, factor = sections
        two = bit_planes(codes.unflatten(-1, (2, 32)), 2).flatten(-3)
        high = bit_planes(third, 1).flatten(-2)
        scale = bit_planes(packed[..., :8], 4).flatten(-2) | (bit_planes(packed[..., 8:], 2).flatten(-2) << 4)
        signed = (scale.to(torch.int16) - 32).to(torch.int8)
        return two | (high << 2), {"scale": signed, "factor": _halves(factor)}

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        third = _join_planes((codes >> 2).unflatten(-1, (8, 32)), 1)
        two = _join_planes((codes & 3).unflatten(-1, (2, 4, 32)), 2).flatten(-2)
        scale = (others["scale"].to(torch.int16) + 32).to(torch.uint8)
        low = _join_planes((scale & 15).unflatten(-1, (2, 8)), 4)
        high = _join_planes((scale >> 4).unflatten(-1, (4, 4)), 2)
        return [third, two, low, high, _octets(others["factor"])]


@frozen(kw_only=True)
class _Q45K(_BlockForm):
    """Q4_K and Q5_K: the 6-bit scales and minima of 32 inputs become bytes."""

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        factor, low_factor, packed, *fifth, four = sections
        first, second, last = packed.chunk(3, -1)
        others = {
            "scale": torch.cat([first & 63, (last & 15) | (first >> 6 << 4)], -1),
            "zero": torch.cat([second & 63, (last >> 4) | (second >> 6 << 4)], -1),
            "factor": _halves(factor),
            "low_factor": _halves(low_factor),
        }
        codes = nibbles(four.unflatten(-1, (4, 32))).flatten(-3)
        return (codes | (bit_planes(fifth[0], 1).flatten(-2) << 4) if fifth else codes), others

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        scale, low = others["scale"], others["zero"]
        first, second = (one[..., :4] | (one[..., 4:] >> 4 << 6) for one in (scale, low))
        last = (scale[..., 4:] & 15) | ((low[..., 4:] & 15) << 4)
        sections = [_octets(others["factor"]), _octets(others["low_factor"]), first, second, last]
        if self.packing.high:
            sections.append(_join_planes((codes >> 4).unflatten(-1, (8, 32)), 1))
        return [*sections, join_nibbles((codes & 15).unflatten(-1, (4, 64))).flatten(-2)]


@frozen(kw_only=True)
class _Q6K(_BlockForm):
    """Signed scales of 16 inputs. Codes are signed bytes: 8.5 bits a weight instead of 6.6, for a fifth of the
    instructions that joining two planes takes."""

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        four, two, scale, factor = sections
        codes = nibbles(four.unflatten(-1, (2, 64))).flatten(-3)
        high = bit_planes(two.unflatten(-1, (2, 32)), 2).flatten(-3)
        signed = (codes | (high << 4)).view(torch.int8) - 32
        return signed.view(torch.uint8), {"scale": scale.contiguous().view(torch.int8), "factor": _halves(factor)}

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        codes = (codes.view(torch.int8) + 32).view(torch.uint8)
        four = join_nibbles((codes & 15).unflatten(-1, (2, 128))).flatten(-2)
        two = _join_planes((codes >> 4).unflatten(-1, (2, 4, 32)), 2).flatten(-2)
        return [four, two, others["scale"].contiguous().view(torch.uint8), _octets(others["factor"])]


@frozen(kw_only=True)
class _Iq4Xs(_BlockForm):
    """6-bit scales around 32, as signed bytes."""

    def take(self, *sections: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        factor, high, low, four = sections
        scale = bit_planes(low.unsqueeze(-1), 4).flatten(-3) | (bit_planes(high.unsqueeze(-1), 2).flatten(-3) << 4)
        signed = (scale.to(torch.int16) - 32).to(torch.int8)
        return nibbles(four.unflatten(-1, (8, 16))).flatten(-3), {"scale": signed, "factor": _halves(factor)}

    def give(self, codes: Tensor, others: dict[str, Tensor]) -> list[Tensor]:
        scale = (others["scale"].to(torch.int16) + 32).to(torch.uint8)
        low = _join_planes((scale & 15).unflatten(-1, (4, 2, 1)), 4).squeeze(-1)
        high = _join_planes((scale >> 4).unflatten(-1, (2, 4, 1)), 2).squeeze(-1)
        four = join_nibbles(codes.unflatten(-1, (8, 32))).flatten(-2)
        return [_octets(others["factor"]), high, low, four]


def _join_planes(codes: Tensor, bits: int) -> Tensor:
    """The inverse of ``bit_planes``: [.., 8 / bits, k] -> [.., k]."""
    made = torch.zeros_like(codes[..., 0, :])
    for plane in range(8 // bits):
        made |= codes[..., plane, :] << (plane * bits)
    return made


STEPS = (-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0)
"""What the codes of IQ4 types mean."""

BLOCKS: Mapping[str, Form] = {
    "q4_0": _Small(codes="bits", packing=PACKINGS[4], zero="middle", middle=8, group=32, sizes=(2, 16)),
    "q4_1": _Small(codes="bits", packing=PACKINGS[4], zero="offset", group=32, sizes=(2, 2, 16)),
    "q5_0": _Small(codes="bits", packing=PACKINGS[5], zero="middle", middle=16, group=32, sizes=(2, 4, 16)),
    "q5_1": _Small(codes="bits", packing=PACKINGS[5], zero="offset", group=32, sizes=(2, 2, 4, 16)),
    "q8_0": _Bytes(codes="i8", group=32, sizes=(2, 32)),
    "iq4_nl": _Small(codes="bits", packing=PACKINGS[4], table="look", values=STEPS, group=32, sizes=(2, 16)),
    "mxfp4": _Mxfp4(codes="bits", packing=PACKINGS[4], table="e2m1", scale="e8m0", group=32, sizes=(1, 16)),
    "q2_k": _Q2K(
        codes="bits", packing=PACKINGS[2], scale="nibbles", zero="low", group=16, supers=256, sizes=(16, 64, 2, 2)
    ),
    "q3_k": _Q3K(
        codes="bits", packing=PACKINGS[3], zero="middle", middle=4, group=16, supers=256, sizes=(32, 64, 12, 2)
    ),
    "q4_k": _Q45K(codes="bits", packing=PACKINGS[4], zero="low", group=32, supers=256, sizes=(2, 2, 12, 128)),
    "q5_k": _Q45K(codes="bits", packing=PACKINGS[5], zero="low", group=32, supers=256, sizes=(2, 2, 12, 32, 128)),
    "q6_k": _Q6K(codes="i8", group=16, supers=256, sizes=(128, 64, 16, 2)),
    "iq4_xs": _Iq4Xs(
        codes="bits", packing=PACKINGS[4], table="look", values=STEPS, group=32, supers=256, sizes=(2, 2, 4, 128)
    ),
}
"""GGML types that have planes, by name."""
