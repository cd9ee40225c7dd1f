# SPDX-License-Identifier: Apache-2.0
"""Floating-point weights of 8 and 4 bits.

NVFP4 divides by its global scale: ``w = e2m1 * scale / global``. Scales of MXFP4 and MXFP8 are exponents in bytes.

Legend: O outputs, I inputs, r and c outputs and inputs per block; leading dimensions are experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from tramontane.build.formats import ROWS, FormatPart, Lookup, StoredTensor
from tramontane.errors import PlanError
from tramontane.schemes import Act, Fields, Float8, Micro
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_compressed_tensors.activations import FIELDS, STATIC, act_fields, act_of
from tramontane_quant_compressed_tensors.settings import Args, Group

Shape = tuple[int, ...]
Granularity = Literal["tensor", "channel", "block"]

SCALE, GLOBAL, PACKED = "weight_scale", "weight_global_scale", "weight_packed"


def float8_part(weight: StoredTensor, scale: StoredTensor, group: Group, args: Args, lookup: Lookup) -> FormatPart:
    """A matrix of e4m3, with a scale for all, per output, per block, or per group of inputs.

    Raises:
        PlanError: Something else.
    """
    if weight.dtype is not torch.float8_e4m3fn or args.num_bits != 8 or not args.symmetric:
        raise PlanError(f"{weight.name} is {weight.dtype}; symmetric floats of 8 bits (e4m3) are supported")
    block = args.block if args.kind == "block" else (1, args.group_size or 0) if args.kind == "group" else None
    if block is None and args.kind not in ("tensor", "channel"):
        raise PlanError(f"{weight.name}: 8-bit floats with a scale per {args.kind} are not supported")
    act = act_of(group.input_activations, lookup)
    granularity: Granularity = "block" if block else "tensor" if args.kind == "tensor" else "channel"
    scheme = Float8(act=act, granularity=granularity, block=block, scale_dtype=_exponents(scale.dtype))

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        kept = _scales(tensors[SCALE])
        if block is None:
            kept = kept.reshape(shape[:-2] if granularity == "tensor" else shape[:-1])
        return {"weight": tensors["weight"], "scale": kept, **act_fields(act, tensors, shape[:-2])}

    return FormatPart(scheme, _float8_fields(scheme, act), canonical, known=FIELDS)


def _float8_fields(scheme: Float8, act: Act) -> dict[str, TensorDecl]:
    axes: dict[str, Axis] = {} if scheme.granularity == "tensor" else {"out": Axis(0)}
    if scheme.block:
        axes = {"out": Axis(0, block=scheme.block[0]), "in": Axis(1, block=scheme.block[1])}
    static = {STATIC: TensorDecl(STATIC)} if act.scale == "static" else {}
    return {"weight": ROWS, SCALE: TensorDecl(SCALE, axes), **static}


def float4_part(weight: StoredTensor, scale: StoredTensor, args: Args, lookup: Lookup) -> FormatPart:
    """A matrix of e2m1 pairs: NVFP4 (with a global scale) or MXFP4.

    Raises:
        PlanError: Something else.
    """
    nvfp4 = lookup.stored(GLOBAL) is not None
    wanted = 16 if nvfp4 else 32
    types = (torch.float8_e4m3fn,) if nvfp4 else (torch.uint8, torch.float8_e8m0fnu)
    if args.num_bits != 4 or not args.symmetric or args.group_size != wanted or scale.dtype not in types:
        raise PlanError(
            f"{weight.name}: floats of {args.num_bits} bits in groups of {args.group_size} with scales of "
            f"{scale.dtype} are not supported; {'NVFP4' if nvfp4 else 'MXFP4'} has 4 bits, groups of {wanted} and "
            f"{types[0]}"
        )
    scheme = Micro("nvfp4" if nvfp4 else "mxfp4", global_scale=nvfp4)
    fields = {
        PACKED: TensorDecl(PACKED, {"out": Axis(0), "in": Axis(1, block=2)}),
        SCALE: TensorDecl(SCALE, {"out": Axis(0), "in": Axis(1, block=scheme.size)}),
    }
    if nvfp4:
        fields[GLOBAL] = TensorDecl(GLOBAL)

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        scales = tensors[SCALE] if nvfp4 else _scales(tensors[SCALE])
        found = {"weight": tensors[PACKED], "scale": scales}
        if nvfp4:
            found["global_scale"] = tensors[GLOBAL].float().reciprocal().reshape(shape[:-2])
        return found

    return FormatPart(scheme, fields, canonical, known=FIELDS)


def _exponents(dtype: torch.dtype) -> torch.dtype:
    """Scales in plain bytes are exponents."""
    return torch.float8_e8m0fnu if dtype is torch.uint8 else dtype


def _scales(scales: Tensor) -> Tensor:
    return scales.view(torch.float8_e8m0fnu) if scales.dtype is torch.uint8 else scales
