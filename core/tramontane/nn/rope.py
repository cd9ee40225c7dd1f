# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding: frequencies of each published scaling, the table made from them, and the module that turns heads.

The table is a function of the configuration and of the engine's longest sequence alone. Scalings whose frequencies
depend on the length (``dynamic``, ``longrope``) are evaluated at that length once: keys in the cache never change
meaning, so chunking, batching and prefix hits cannot change a result (``docs/decisions``).

Legend: T tokens, H query heads, G key/value heads, K head dimension, P rotated pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.config import RopeConfig
from tramontane.errors import PlanError
from tramontane.nn.module import Module
from tramontane.ops import BoundOp


class Rope(Module):
    """Turn queries and keys by the positions of the step: (q [T, H, K], k [T, G, K], ctx) -> (q, k)."""

    def __init__(self, angles: BoundOp, rotate: BoundOp) -> None:
        self.angles = angles
        self.rotate = rotate

    def forward(self, q_THK: Tensor, k_TGK: Tensor, ctx: Ctx) -> tuple[Tensor, Tensor]:
        return self.rotate(q_THK, k_TGK, self.angles(ctx.positions_KT, ctx=ctx))


def rope_table(rope: RopeConfig, rotary_dim: int, positions: int) -> Tensor:
    """Cosines and sines of every position: float32 [positions, 2P], cosines first, attention factor applied."""
    frequency_P, factor = frequencies(rope, rotary_dim, positions)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), frequency_P)
    return torch.cat((angle.cos(), angle.sin()), dim=1) * factor


def rotary_dim(rope: RopeConfig, head_dim: int) -> int:
    """How many features of each head are turned."""
    return int(head_dim * rope.partial_rotary_factor)


def frequencies(rope: RopeConfig, rotary_dim: int, positions: int) -> tuple[Tensor, float]:
    """Angular frequencies [P] for sequences of up to ``positions`` tokens, and the factor on cosines and sines."""
    if rotary_dim % 2:
        raise PlanError(f"rope needs an even rotary dimension, got {rotary_dim}")
    make = _KINDS.get(rope.kind)
    if make is None:
        raise PlanError(f"unknown rope type {rope.kind!r}", hint=f"known: {', '.join(sorted(_KINDS))}")
    return make(rope, rotary_dim, positions)


def _plain(theta: float, dim: int) -> Tensor:
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)


def _default(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, float]:
    return _plain(rope.theta, dim), 1.0


def _linear(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, float]:
    """Position interpolation (Chen et al., 2023)."""
    return _plain(rope.theta, dim) / rope.factor, 1.0


def _dynamic(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, float]:
    """NTK-aware scaling of the base, growing with the length (bloc97 and emozilla, 2023)."""
    trained = rope.original_max_position_embeddings
    length = max(positions, trained)
    base = rope.theta * ((rope.factor * length / trained) - (rope.factor - 1)) ** (dim / (dim - 2))
    return _plain(base, dim), 1.0


def _llama3(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, float]:
    """Llama 3.1: long wavelengths are stretched, short ones kept, a smooth band between."""
    plain = _plain(rope.theta, dim)
    trained = rope.original_max_position_embeddings
    low, high = rope.low_freq_factor, rope.high_freq_factor
    wavelength = 2 * math.pi / plain
    smooth = (trained / wavelength - low) / (high - low)
    blended = (1 - smooth) * plain / rope.factor + smooth * plain
    scaled = torch.where(wavelength > trained / low, plain / rope.factor, blended)
    return torch.where(wavelength < trained / high, plain, scaled), 1.0


def _yarn(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, float]:
    """YaRN (Peng et al., 2023), with DeepSeek's two-sided ``mscale``."""
    plain = _plain(rope.theta, dim)
    trained = rope.original_max_position_embeddings

    def correction(rotations: float) -> float:
        return dim * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = correction(rope.beta_fast), correction(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # an empty band would divide by zero
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return plain / rope.factor * ramp + plain * (1 - ramp), yarn_attention_factor(rope)


def yarn_attention_factor(rope: RopeConfig) -> float:
    """The factor that YaRN puts on cosines and sines."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim)
    return yarn_mscale(rope.factor, 1.0)


def yarn_mscale(factor: float, mscale: float) -> float:
    """``0.1 * mscale * ln(factor) + 1``, and 1 where nothing is stretched."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _longrope(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, float]:
    """LongRoPE (Ding et al., 2024): one stretch per pair, long or short by the engine's length."""
    trained = rope.original_max_position_embeddings
    stretch = rope.long_factor if positions > trained else rope.short_factor
    if stretch is None or len(stretch) != dim // 2:
        found = "none" if stretch is None else str(len(stretch))
        raise PlanError(f"longrope needs {dim // 2} factors (half the rotary dimension), got {found}")
    factor = rope.long_mscale if positions > trained else rope.short_mscale
    if factor is None:
        factor = rope.attention_factor
    if factor is None:
        ratio = rope.factor
        factor = 1.0 if ratio <= 1.0 else math.sqrt(1 + math.log(ratio) / math.log(trained))
    return _plain(rope.theta, dim) / torch.tensor(stretch, dtype=torch.float32), factor


_KINDS = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
