# SPDX-License-Identifier: Apache-2.0
"""AWQ's packed words as the canonical fields of an affine scheme.

A word holds the codes of one input and consecutive outputs, of which the even ones come first: lowest bits first the
outputs 0 2 4 6 1 3 5 7 (of 8 bits 0 2 1 3, but in order as GPTQModel packs them). Definition: Lin et al., arXiv
2306.00978, as AutoAWQ stores it.

Legend: O outputs, I inputs, G groups; leading dimensions are experts.
"""

from __future__ import annotations

from torch import Tensor

from tramontane.schemes.packing import octets, pack, unpack

PLACES = {4: (0, 4, 1, 5, 2, 6, 3, 7), 8: (0, 2, 1, 3)}
"""Bits -> where in its word the code of each output stands."""
IN_ORDER = (0, 1, 2, 3)
"""The same of 8 bits, as GPTQModel packs them."""


def codes_of(words: Tensor, bits: int, places: tuple[int, ...], outputs: int) -> Tensor:
    """int32 words [.., n, words of O] -> codes uint8 [.., O, n], one a byte."""
    codes = unpack(octets(words), bits, words.shape[-1] * len(places)).unflatten(-1, (-1, len(places)))
    ordered: Tensor = codes[..., list(places)].flatten(-2)[..., :outputs]
    return ordered.transpose(-1, -2).contiguous()


def weight_of(qweight: Tensor, bits: int, places: tuple[int, ...], outputs: int) -> Tensor:
    """int32 words [.., I, words of O] -> canonical bytes [.., O, packed I]."""
    return pack(codes_of(qweight, bits, places, outputs), bits)
