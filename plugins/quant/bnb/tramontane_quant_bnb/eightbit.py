# SPDX-License-Identifier: Apache-2.0
"""int8 matrices of bitsandbytes as an affine scheme: ``w = code * SCB / 127``, one ``SCB`` per output.

bitsandbytes multiplies them with activations that it quantizes too, save for columns of outliers (Dettmers et al.,
arXiv 2208.07339). Here activations are not quantized, so there are no outliers to be set apart: every column is treated
as that method treats outliers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tramontane.build.formats import ROWS, FormatPart, Lookup, StoredTensor
from tramontane.errors import PlanError
from tramontane.schemes import Affine, Fields
from tramontane.tensors import Axis, TensorDecl

Shape = tuple[int, ...]

SCALES, LAYOUT = "SCB", "weight_format"
ROW_MAJOR = 0


def eight_bit(weight: StoredTensor, lookup: Lookup) -> FormatPart:
    """How an int8 module is stored.

    Raises:
        PlanError: It has no scales, or the order of elements of some kernel.
    """
    if lookup.stored(SCALES) is None:
        raise PlanError(f"{weight.name} is int8, but has no {SCALES}")
    layouts = {layout for value in lookup.values(LAYOUT) for layout in value.flatten().tolist()}
    if layouts - {ROW_MAJOR}:
        raise PlanError(f"{weight.name} is stored in the layout {max(layouts)} of a GPU's kernel, not row by row")
    fields = {"weight": ROWS, SCALES: TensorDecl(SCALES, {"out": Axis(0)})}
    scheme = Affine(bits=8, group=0, zero="none", scale_dtype=torch.float32)
    return FormatPart(scheme, fields, _canonical, known=(LAYOUT,))


def _canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
    codes = tensors["weight"].view(torch.uint8) ^ 0x80  # 128 is the middle code
    return {"weight": codes, "scale": (tensors[SCALES].float() / 127).unsqueeze(-1)}
