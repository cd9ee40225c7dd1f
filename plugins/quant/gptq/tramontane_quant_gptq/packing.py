# SPDX-License-Identifier: Apache-2.0
"""GPTQ's packed words as the canonical fields of an affine scheme.

A column of ``qweight`` is one little-endian stream of codes down the inputs, 32 codes to ``bits`` words (a code of
three bits may straddle two of them). Read along the outputs that is the canonical packing, so codes are transposed and
never unpacked. ``qzeros`` are packed the same way along the outputs. Definition: Frantar et al., arXiv 2210.17323, as
AutoGPTQ and GPTQModel store it.

Legend: O outputs, I inputs, G groups; leading dimensions are experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.errors import CheckpointError
from tramontane.schemes.packing import octets, packed_size, unpack

_ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}
"""A one in every code of a word, for widths that do not straddle words."""


def codes_of(qweight: Tensor, bits: int, inputs: int) -> Tensor:
    """int32 words [.., words of I, O] -> canonical bytes [.., O, packed I]."""
    return octets(qweight.transpose(-1, -2))[..., : packed_size(inputs, bits)].contiguous()


def zeros_of(qzeros: Tensor, bits: int, outputs: int, *, minus_one: bool) -> Tensor:
    """int32 words [.., G, words of O] -> zero points uint8 [.., O, G].

    Args:
        qzeros: As stored.
        bits: Per code.
        outputs: O.
        minus_one: Stored less one, as the first version of the layout has it. Its writers take one from every code of a
            word at once, so a zero point of 0 borrows from its neighbour: the one is given back in the same way.
    """
    if minus_one and bits in _ONES:
        qzeros = qzeros + _ONES[bits]
    zeros_GO = unpack(octets(qzeros), bits, outputs)
    if minus_one and bits not in _ONES:
        zeros_GO = (zeros_GO + 1) & (2**bits - 1)
    return zeros_GO.transpose(-1, -2).contiguous()


def check_middle(zeros: Tensor, bits: int, what: str) -> None:
    """Refuse zero points that are not the middle code, where the settings say that all are.

    Raises:
        CheckpointError: Some are not.
    """
    middle = 2 ** (bits - 1)
    if not bool((zeros == middle).all()):
        raise CheckpointError(
            f"{what}: the settings say symmetric, but zero points range from {int(zeros.min())} to "
            f"{int(zeros.max())} instead of {middle}",
            hint='set "sym": false in the quantization_config',
        )


def check_in_order(groups_I: Tensor, group: int, what: str) -> None:
    """Refuse stored groups of all inputs that are not in order, where the settings say that they are.

    Raises:
        CheckpointError: Some input is in another group than its place says.
    """
    inputs = groups_I.shape[-1]
    if not bool((groups_I == torch.arange(inputs, dtype=groups_I.dtype) // (group or inputs)).all()):
        raise CheckpointError(
            f"{what}: the settings say that inputs are in order, but their stored groups are not",
            hint='set "desc_act": true in the quantization_config',
        )
