# SPDX-License-Identifier: Apache-2.0
"""Packing weights into types by native code (``native/kernels/quantize``), byte for byte as the types do it themselves.

Which types: GGML's, by their rule of that name, and those of the core. Legend: O outputs, I inputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from attrs import frozen
from torch import Tensor

from tramontane.quantization import Pack, Quantizer
from tramontane.schemes import Affine, Codebook, Fields, Ggml, Micro, Scheme
from tramontane.schemes.codebook import TABLES
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.library import LibraryError, default_pool, library

_WEIGHTS = (torch.float32, torch.bfloat16, torch.float16)
_GROUP, _MICRO_GROUP = 64, 32
"""Groups of codes that the native side is compiled for."""
_BLOCKS: Mapping[str, abi.Packing] = MappingProxyType(
    {one.name.lower(): one for one in abi.Packing if one <= abi.Packing.IQ4_XS}
)
"""GGML's name -> number."""


@frozen
class _Rule:
    """How a scheme is packed: the number of the native rule, and what goes with it."""

    packing: abi.Packing
    group: int = 1
    bits: int = 4
    scale_dtype: int = 0
    zero: str = ""
    """Field of zero points or offsets."""
    table: Tensor | None = None


def offer(quantizer: Quantizer) -> Pack | None:
    """See :attr:`tramontane.records.EncoderSpec.offer`."""
    rule = _rule(quantizer.rule, quantizer.scheme)
    if rule is None:
        return None
    try:
        library()
    except LibraryError:
        return None  # said by the backend, which is not used either
    return _Encoder(quantizer.scheme, rule, quantizer.pack, quantizer.weighs)


def _rule(name: str, scheme: Scheme) -> _Rule | None:
    made = _RULES.get((name, type(scheme)))
    return None if made is None else made(scheme)


def _ggml(scheme: Ggml) -> _Rule | None:
    packing = _BLOCKS.get(scheme.type.name)
    return None if packing is None else _Rule(packing)


def _affine(packing: abi.Packing, zero: str, scheme: Affine) -> _Rule | None:
    if scheme != Affine(scheme.bits, _GROUP, zero=scheme.zero, scale_dtype=scheme.scale_dtype) or scheme.zero != zero:
        return None
    field = "offset" if zero == "offset" else "zero"
    return _Rule(packing, _GROUP, scheme.bits, abi.DTYPES[scheme.scale_dtype], field)


def _codebook(scheme: Codebook) -> _Rule | None:
    if scheme.block != _GROUP:
        return None
    values, codes = torch.tensor(TABLES[scheme.table]).sort(stable=True)
    table = torch.cat([(values[1:] + values[:-1]) / 2, codes.float()])
    return _Rule(abi.Packing.TABLE, _GROUP, 4, abi.DTYPES[scheme.scale_dtype], table=table)


def _micro(scheme: Micro) -> _Rule | None:
    known = scheme.fmt == "mxfp4" and scheme.size == _MICRO_GROUP and not scheme.global_scale
    return _Rule(abi.Packing.MXFP4, _MICRO_GROUP, 4, abi.BYTES) if known else None


_RULES: Mapping[tuple[str, type[Scheme]], Callable[..., _Rule | None]] = MappingProxyType(
    {
        ("ggml", Ggml): _ggml,
        ("nearest", Affine): lambda scheme: _affine(abi.Packing.RANGE, "offset", scheme),
        ("hqq", Affine): lambda scheme: _affine(abi.Packing.HQQ, "float", scheme),
        ("nearest", Codebook): _codebook,
        ("nearest", Micro): _micro,
    }
)


@frozen
class _Encoder:
    """Packs weights; hands on to ``otherwise`` what is not as the native side wants it."""

    scheme: Scheme
    rule: _Rule
    otherwise: Pack
    weighs: bool

    def __call__(self, weight: Tensor, importance: Tensor | None) -> Fields:
        importance = importance if self.weighs else None
        if weight.dtype not in _WEIGHTS or weight.shape[-1] % self.rule.group or not weight.numel():
            return self.otherwise(weight, importance)
        wanted = self.scheme.fields(tuple(weight.shape))
        found = {name: torch.empty(one.shape, dtype=one.dtype) for name, one in wanted.items()}
        spread = None if importance is None else importance.float().expand(weight.shape)
        if weight.dim() == 2:
            self._matrix(weight, spread, found)
        else:
            for index, matrix in enumerate(weight):
                fields = {name: one[index] for name, one in found.items()}
                self._matrix(matrix, None if spread is None else spread[index], fields)
        return found

    def _matrix(self, weight_OI: Tensor, importance_OI: Tensor | None, found: Mapping[str, Tensor]) -> None:
        rows = _rows(weight_OI)
        asked = abi.Quantize(
            rows=rows.data_ptr(),
            stride=rows.stride(0) * rows.element_size(),
            dtype=abi.DTYPES[rows.dtype],
            outputs=rows.shape[0],
            inputs=rows.shape[1],
            to=found["weight"].data_ptr(),
            to_stride=found["weight"].stride(0),
            rule=self.rule.packing,
            bits=self.rule.bits,
            group=self.rule.group,
            scale_dtype=self.rule.scale_dtype,
        )
        counts = None if importance_OI is None else _rows(importance_OI)
        if counts is not None:
            asked.importance, asked.importance_stride = counts.data_ptr(), counts.stride(0)
        if "scale" in found:
            asked.scale = found["scale"].data_ptr()
        if self.rule.zero:
            asked.zero = found[self.rule.zero].data_ptr()
        if self.rule.table is not None:
            asked.table = self.rule.table.data_ptr()
        if library().tm_quantize_rows(default_pool().handle, ctypes.byref(asked)) == abi.Status.NO_MEMORY:
            raise MemoryError("no memory for quantizing a matrix")


def _rows(matrix: Tensor) -> Tensor:
    """Rows whose elements lie side by side."""
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()
