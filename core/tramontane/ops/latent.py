# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention (DeepSeek-V2, 2024): all heads share one compressed vector per token in the cache.

A token leaves its latent c [R] and one rotated key k [P]. Head h sees the key (U_h c, k) and the value V_h c. Either
both are expanded for every key, or U_h is moved to the query and V_h behind the sum, which then runs over the latents
themselves; the results are equal, and which is cheaper depends on the numbers of queries and keys. An op that has the
matrices leaves that to its kernel.

Legend: T tokens, S keys seen, H heads, N unrotated and P rotated features of a head, R rank of the latent, V value
dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops.attention import batch_of, per_token
from tramontane.ops.base import Meta, Op, op


@op("latent_write")
@frozen
class LatentWrite(Op):
    """Store this step's latents [T, R] and rotated keys [T, 1, P], side by side. No output.

    Weight: a :class:`~tramontane.weights.CacheSlot` of kind ``latent``, one plane [.., 1, R + P].
    """

    roles = ("cache",)
    reads = ("groups",)
    effect = True

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return ()

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (cache,), (c_TR, k_T1P) = weights, inputs
        cache.write(batch_of(ctx).groups[cache.group].slot_T, torch.cat((c_TR.unsqueeze(1), k_T1P), dim=-1))
        return ()


@op("attend_latent")
@frozen(kw_only=True)
class AttendLatent(Op):
    """Causal attention of queries [T, H, N] and their rotated parts [T, H, P] over latents -> [T, H * V].

    Weights: the :class:`~tramontane.weights.CacheSlot`, and a :class:`~tramontane.weights.Matrix` [H * (N + V), R] that
    holds U_h [N, R] and V_h [V, R] of each head in turn, always dense (it is used along both of its axes).
    """

    heads: int
    nope_dim: int
    rope_dim: int
    rank: int
    value_dim: int
    scale: float

    roles = ("cache", "weight")
    reads = ("groups", "q_start", "kv_len_R", "seq_of_T")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        q_THN = inputs[0]
        return (((q_THN.shape[0], self.heads * self.value_dim), q_THN.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        cache, ctx = weights[0], batch_of(ctx)
        up_HNR, values_HVR = (one.float() for one in self.split(weights[1].dequantize()))

        def one(row: int, position: int, q_HD: Tensor) -> Tensor:
            (latent_S1C,) = cache.read(ctx.groups[cache.group].table_RB[row], 0, position + 1)
            latent_SC = latent_S1C[:, 0].float()
            q_HN, q_HP = q_HD.float().split((self.nope_dim, self.rope_dim), dim=-1)
            q_HC = torch.cat((torch.einsum("hn,hnr->hr", q_HN, up_HNR), q_HP), dim=-1)
            weights_HS = (q_HC @ latent_SC.T * self.scale).softmax(-1)
            c_HR = weights_HS @ latent_SC[:, : self.rank]
            return torch.einsum("hr,hvr->hv", c_HR, values_HVR).reshape(-1)

        return (per_token(ctx, torch.cat(inputs, dim=-1), one, *self.outputs(weights, *inputs)),)

    def split(self, weight_OR: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the matrix: U [H, N, R] and V [H, V, R]."""
        each = weight_OR.view(self.heads, self.nope_dim + self.value_dim, self.rank)
        return each[:, : self.nope_dim], each[:, self.nope_dim :]
