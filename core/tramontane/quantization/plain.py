# SPDX-License-Identifier: Apache-2.0
"""The types that need no plugin: schemes of the core packed by their own rules.

``afq`` types are MLX's affine codes, ``nf4``, ``fp4`` and ``int8`` those of bitsandbytes (without outliers and without
double quantization), ``fp8`` e4m3 with a scale per output, ``mxfp4`` the OCP microscaling type.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch

from tramontane.quantization.hqq import fit
from tramontane.quantization.quantizer import Quantizer, by_rows
from tramontane.schemes import Affine, Codebook, Float8, Micro, Scheme

GROUP = 64
"""Inputs per scale of the affine types."""


def _type(name: str, scheme: Scheme, sensitive: str) -> Quantizer:
    return Quantizer(name=name, scheme=scheme, pack=by_rows(scheme), sensitive=sensitive, rule="nearest")


def _afq(bits: int) -> Quantizer:
    scheme = Affine(bits=bits, group=GROUP, zero="offset")
    return _type(f"afq{bits}", scheme, "afq6" if bits < 6 else "afq8")


def _hqq(bits: int) -> Quantizer:
    scheme = Affine(bits=bits, group=GROUP, zero="float")
    pack = by_rows(scheme, partial(fit, scheme))
    return Quantizer(name=f"hqq{bits}", scheme=scheme, pack=pack, sensitive="hqq8", rule="hqq")


_ALL = (
    *(_afq(bits) for bits in (2, 3, 4, 6, 8)),
    *(_hqq(bits) for bits in (4, 8)),
    _type("fp8", Float8(granularity="channel"), "fp8"),
    _type("nf4", Codebook(table="nf4"), "int8"),
    _type("fp4", Codebook(table="fp4"), "int8"),
    _type("int8", Affine(bits=8, group=0, scale_dtype=torch.float32), "int8"),
    _type("mxfp4", Micro(fmt="mxfp4"), "fp8"),
)
TYPES: Mapping[str, Quantizer] = MappingProxyType({one.name: one for one in _ALL})
"""All of them by name."""


def make(name: str) -> Quantizer:
    """The type of that name."""
    return TYPES[name]
