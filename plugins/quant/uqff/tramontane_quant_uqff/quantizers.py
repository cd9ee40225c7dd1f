# SPDX-License-Identifier: Apache-2.0
"""Types that files can hold only in a form of their own: one FP8 scale for a matrix, HQQ groups down the outputs,
F8Q8. They can be asked for by name everywhere; writing UQFF takes them for ``fp8``, ``hqq4``, ``hqq8`` and ``mxfp4``.

Legend: O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from tramontane.quantization import Quantizer
from tramontane.quantization.hqq import fit
from tramontane.quantization.quantizer import Pack, by_rows
from tramontane.schemes import Affine, Fields, Float8, Micro
from tramontane.schemes.packing import pack, unpack
from tramontane_quant_uqff.kinds import LARGEST_E4M3, Q8_BLOCK

HQQ_GROUP = 64
"""Outputs per group; mistral.rs writes no other."""
F8Q8 = Affine(bits=8, group=Q8_BLOCK, scale_dtype=torch.float32)


def make(name: str) -> Quantizer:
    """The type of that name."""
    return TYPES[name]


def _by_matrix(rule: Callable[[Tensor], Fields]) -> Pack:
    """A rule for a whole matrix, applied to each of a stack."""

    def packed(weight: Tensor, importance: Tensor | None) -> Fields:
        if weight.dim() == 2:
            return rule(weight)
        each = [rule(one) for one in weight]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    return packed


def _columns(scheme: Affine, weight_OI: Tensor) -> Fields:
    """HQQ where a group is one place of all ``group`` equal parts of the matrix: fitted as rows of that many."""
    parts = weight_OI.reshape(scheme.group, -1)
    rows = Affine(bits=scheme.bits, group=scheme.group, zero="float", scale_dtype=scheme.scale_dtype)
    found = fit(rows, parts.T.contiguous())
    codes = unpack(found["weight"], scheme.bits, scheme.group).T.reshape(weight_OI.shape)
    scale, zero = (found[name].reshape(-1, weight_OI.shape[-1]) for name in ("scale", "zero"))
    return {"weight": pack(codes, scheme.bits), "scale": scale, "zero": zero}


def _f8q8(weight_OI: Tensor) -> Fields:
    """Codes to the nearest of the exact scale, as mistral.rs rounds them; then the scale is rounded to e4m3."""
    blocks = weight_OI.float().unflatten(-1, (-1, Q8_BLOCK))
    exact = blocks.abs().amax(-1) / 127
    scale = (exact * LARGEST_E4M3).clamp(max=448).to(torch.float8_e4m3fn).float() / LARGEST_E4M3
    inverse = torch.where(exact == 0, torch.zeros_like(exact), 1 / exact)
    codes = (blocks * inverse.unsqueeze(-1)).round().clamp(-127, 127).to(torch.int8).flatten(-2)
    return {"weight": codes.view(torch.uint8) ^ 0x80, "scale": scale}


def _hqq(bits: int) -> Quantizer:
    scheme = Affine(bits=bits, group=HQQ_GROUP, group_axis="out", zero="float", scale_dtype=torch.float32)
    rule = _by_matrix(partial(_columns, scheme))
    return Quantizer(name=f"uqff-hqq{bits}", scheme=scheme, pack=rule, sensitive="uqff-hqq8")


class _F8Q8(Quantizer):
    """Blocks do not run over the end of a row."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        return shape[-1] % Q8_BLOCK == 0


_FP8 = Float8("e4m3", "tensor")
_ALL = (
    Quantizer(name="uqff-fp8", scheme=_FP8, pack=_by_matrix(_FP8.quantize), sensitive="uqff-fp8"),
    _hqq(4),
    _hqq(8),
    Quantizer(name="uqff-mxfp4", scheme=Micro("mxfp4"), pack=by_rows(Micro("mxfp4")), sensitive="uqff-fp8"),
    _F8Q8(name="f8q8", scheme=F8Q8, pack=by_rows(F8Q8, _f8q8), sensitive="f8q8"),
)
TYPES: Mapping[str, Quantizer] = MappingProxyType({one.name: one for one in _ALL})
"""All of them by name."""
