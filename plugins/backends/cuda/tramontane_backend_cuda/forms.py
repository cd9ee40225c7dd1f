# SPDX-License-Identifier: Apache-2.0
"""Which schemes have planes, and as which form."""

from __future__ import annotations

import torch

from tramontane.schemes import Affine, Codebook, Dense, Float8, Ggml, Micro, Scheme
from tramontane.schemes.codebook import TABLES
from tramontane_backend_cuda.blocks import BLOCKS
from tramontane_backend_cuda.codes import BYTES, LANES, PACKINGS
from tramontane_backend_cuda.planes import AffineForm, DenseForm, FloatForm, Form, FourBitForm, Scale, Table, Zero


def _scale_of(dtype: torch.dtype) -> Scale:
    names: dict[torch.dtype, Scale] = {torch.float8_e8m0fnu: "e8m0", torch.float8_e4m3fn: "e4m3"}
    return names.get(dtype, "number")


def form_of(scheme: Scheme) -> Form | None:
    """The layout for a scheme, whatever is done to activations; ``None`` where there is none, so that every use decodes
    the matrix."""
    if isinstance(scheme, Dense):
        return DenseForm(codes="dense", scale="none")
    if isinstance(scheme, Affine):
        return _affine(scheme)
    if isinstance(scheme, Codebook):
        return _four_bits(scheme.block, scheme.scale_dtype, table="look", values=TABLES[scheme.table])
    if isinstance(scheme, Micro):
        dtype = torch.float8_e8m0fnu if scheme.fmt == "mxfp4" else torch.float8_e4m3fn
        return _four_bits(scheme.size, dtype, table="e2m1", whole=scheme.global_scale)
    if isinstance(scheme, Float8):
        axes = ("tensor", "channel", "block").index(scheme.granularity)
        rows, group = scheme.block or (1, 0)
        known = scheme.scale_dtype.itemsize > 1 or _scale_of(scheme.scale_dtype) != "number"
        if group % LANES or not known:
            return None
        return FloatForm(
            codes=scheme.fmt, scale=_scale_of(scheme.scale_dtype), group=group, rows=rows, dtype=scheme.dtype,
            scale_dtype=scheme.scale_dtype, axes=axes,
        )  # fmt: skip
    return BLOCKS.get(scheme.name) if isinstance(scheme, Ggml) else None


def _affine(scheme: Affine) -> Form | None:
    if scheme.group_axis != "in" or scheme.act_order or scheme.groups is not None or scheme.group % LANES:
        return None
    zeros: dict[str, Zero] = {"none": "middle", "int": "code", "float": "code", "offset": "offset"}
    packed = scheme.bits in PACKINGS
    return AffineForm(
        codes="bits" if packed else "u8", packing=PACKINGS.get(scheme.bits, BYTES), zero=zeros[scheme.zero],
        group=scheme.group, middle=2 ** (scheme.bits - 1), bits=scheme.bits,
    )  # fmt: skip


def _four_bits(
    block: int, dtype: torch.dtype, *, table: Table, values: tuple[float, ...] = (), whole: bool = False
) -> Form | None:  # fmt: skip
    if block % LANES:
        return None
    return FourBitForm(
        codes="bits", packing=PACKINGS[4], table=table, values=values, scale=_scale_of(dtype), group=block,
        scale_dtype=dtype, whole=whole, supers=0 if whole else -1,
    )  # fmt: skip
