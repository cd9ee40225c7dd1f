# SPDX-License-Identifier: Apache-2.0
"""HQQ's folded numbers as codes, and quantized scales as scales.

A tensor of codes, seen row by row, is cut into as many equal parts as a number has slots; a number holds the codes at
one place of all parts, the first part in the highest bits. (Parts of 3 bits are padded to whole rows.) Definition:
Badri and Shaji, https://mobiusml.github.io/hqq_blog, and the hqq package.

Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from tramontane_quant_hqq.description import Description


def codes_of(stored: Tensor, description: Description) -> Tensor:
    """Codes of one tensor, uint8 [n], row by row.

    Args:
        stored: As HQQ packed it, perhaps seen as floats (``view_as_float``).
        description: Says how.
    """
    numbers = stored.contiguous().view(torch.int32 if description.packing == "3bit_32" else torch.uint8).flatten()
    width, last = description.width, description.slots - 1
    parts = [(numbers >> (width * (last - slot))) & (2**width - 1) for slot in range(description.slots)]
    return torch.cat(parts)[: prod(description.shape)].to(torch.uint8)


def values_of(tensors: Mapping[str, Tensor], name: str, description: Description | None) -> Tensor:
    """Scales or zero points of one matrix, float32, in the shape of its groups.

    Args:
        tensors: Fields of one matrix: ``scale``, or ``scale_q`` with ``meta_scale_scale`` and ``meta_scale_zero``.
        name: ``scale`` or ``zero``.
        description: How they are quantized; ``None`` if they are not.
    """
    if description is None:
        return tensors[name].float()
    codes = codes_of(tensors[f"{name}_q"], description).float()
    if description.group and description.channel_wise:
        grouped = (-1, description.group) if description.axis == 1 else (description.group, -1)
        codes = codes.view(grouped)
    elif description.channel_wise:
        codes = codes.view(description.shape)
    scale, zero = (tensors[f"meta_{name}_{one}"].float() for one in ("scale", "zero"))
    return ((codes - zero) * scale).view(description.shape)
