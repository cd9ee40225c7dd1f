# SPDX-License-Identifier: Apache-2.0
"""Types of 32 elements under importances: scales (and minima) are fitted, as those of K types are.

Without importances these types round (:mod:`tramontane.schemes.ggml`). Legend: B blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.quantization.columns import columns_of
from tramontane.schemes.ggml.codec import as_bytes, join_bits, join_nibbles
from tramontane_quant_gguf.quantizers.fits import FINE, fit_offset, fit_signed


def quantize_q4_0(values: Tensor, weights: Tensor) -> Tensor:
    """float32 [B, 32] -> uint8 [B, 18]."""
    return _signed(values, weights, 4)


def quantize_q5_0(values: Tensor, weights: Tensor) -> Tensor:
    """float32 [B, 32] -> uint8 [B, 22]."""
    return _signed(values, weights, 5)


def quantize_q4_1(values: Tensor, weights: Tensor) -> Tensor:
    """float32 [B, 32] -> uint8 [B, 20]."""
    return _offset(values, weights, 4)


def quantize_q5_1(values: Tensor, weights: Tensor) -> Tensor:
    """float32 [B, 32] -> uint8 [B, 24]."""
    return _offset(values, weights, 5)


def _signed(values: Tensor, weights: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1)
    fit = fit_signed(columns_of(values, 32), top, columns_of(weights, 32))
    return _packed([fit.scale.t()], fit.codes.t() + top, bits)


def _offset(values: Tensor, weights: Tensor, bits: int) -> Tensor:
    fit = fit_offset(columns_of(values, 32), 2**bits - 1, columns_of(weights, 32), FINE)
    return _packed([fit.scale.t(), 0 - fit.low.t()], fit.codes.t(), bits)


def _packed(factors: list[Tensor], codes: Tensor, bits: int) -> Tensor:
    """Factors, fifth bits if there are any, low halves."""
    whole = codes.to(torch.uint8)
    high = [join_bits(whole >> 4)] if bits == 5 else []
    return torch.cat([*map(as_bytes, factors), *high, join_nibbles(whole & 0x0F)], -1)
