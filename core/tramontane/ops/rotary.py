# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (Su et al., 2021).

Split in two ops: ``rope_angles`` reads the step's positions once, ``rotate`` is applied per layer. Layers that share a
table ask for the same angles; on the tape the repeated look-ups fall away as common subexpressions.

Legend: T tokens, K position streams, H heads, D head dimension, P rotated pairs (rotary dimension / 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops.base import Meta, Op, op


@op("rope_angles")
@frozen
class RopeAngles(Op):
    """Cosines and sines of the step's positions: float32 [T, 2P], cosines first.

    Weight: a float32 table [positions, 2P]. With ``sections`` (multimodal rope) each range of pairs takes its position
    from another stream.
    """

    pairs: int
    sections: tuple[int, ...] | None = None

    roles = ("table",)
    reads = ("positions_KT",)

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (positions_KT,) = inputs
        return (((positions_KT.shape[1], 2 * self.pairs), torch.float32),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (positions_KT,) = inputs
        table = weights[0].tensor
        if self.sections is None:
            return (table[positions_KT[0]],)
        halves = []
        for half in table.split(self.pairs, dim=1):
            parts = half.split(list(self.sections), dim=1)
            halves.append(torch.cat([part[positions_KT[i]] for i, part in enumerate(parts)], dim=1))
        return (torch.cat(halves, dim=1),)


def rotate_heads(x_THD: Tensor, cos_TP: Tensor, sin_TP: Tensor, *, interleaved: bool) -> Tensor:
    """Rotate the first 2P features of each head; the rest passes. Computed in float32, rounded once."""
    pairs = cos_TP.shape[-1]
    turned, rest = x_THD[..., : 2 * pairs].float(), x_THD[..., 2 * pairs :]
    cos, sin = cos_TP.unsqueeze(1), sin_TP.unsqueeze(1)
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turned[..., :pairs], turned[..., pairs:]
        out = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((out.to(x_THD.dtype), rest), dim=-1)


@op("rotate")
@frozen
class Rotate(Op):
    """Turn queries and keys by the step's angles: (q [T, H, D], k [T, G, D], angles [T, 2P]) -> (q, k).

    ``interleaved`` pairs neighbours (GPT-J, GLM, DeepSeek, Cohere); otherwise halves are paired (GPT-NeoX, Llama).
    """

    interleaved: bool = False

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        q, k, _ = inputs
        return ((tuple(q.shape), q.dtype), (tuple(k.shape), k.dtype))

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        q_THD, k_TGD, angles = inputs
        cos, sin = angles.chunk(2, dim=-1)
        return tuple(rotate_heads(x, cos, sin, interleaved=self.interleaved) for x in (q_THD, k_TGD))
