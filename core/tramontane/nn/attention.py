# SPDX-License-Identifier: Apache-2.0
"""Attention as models compose it: projections, norms, rotation, the paged core.

Legend: T tokens, D hidden size, H query heads, G key/value heads, K head dimension.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.nn.linear import Linear, Merged
from tramontane.nn.module import Module
from tramontane.nn.norm import Norm
from tramontane.nn.rope import Rope
from tramontane.ops import BoundOp
from tramontane.tensors import Units


@frozen
class Heads:
    """How many heads, and how wide: ``query`` heads share ``kv`` key/value heads in groups."""

    query: int
    kv: int
    dim: int
    value_dim: int | None = None

    @property
    def values(self) -> int:
        """Width of a value head."""
        return self.dim if self.value_dim is None else self.value_dim

    @property
    def projections(self) -> Mapping[str, int]:
        """The projections that make queries, keys and values, by their usual names -> outputs."""
        return {
            "q_proj": Units(self.query, self.dim),
            "k_proj": Units(self.kv, self.dim),
            "v_proj": Units(self.kv, self.values),
        }

    @property
    def width(self) -> int:
        """Features of all heads' values side by side: what the output projection takes."""
        return self.query * self.values


class CachedAttention(Module):
    """Write this step's keys and values to the layer's cache, then attend: (q, k, v) -> [T, H * value_dim]."""

    def __init__(self, write: BoundOp | None, attend: BoundOp) -> None:
        self.write = write
        self.attend = attend

    def forward(self, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, ctx: Ctx) -> Tensor:
        if self.write is not None:  # a layer that shares another's cache only reads it
            self.write(k_TGK, v_TGK, ctx=ctx)
        return self.attend(q_THK, ctx=ctx)


class LatentAttention(Module):
    """Write this step's latents to the layer's cache, then attend: (q [T, H, N], q [T, H, P], c, k) -> [T, H * V]."""

    def __init__(self, write: BoundOp, attend: BoundOp) -> None:
        self.write = write
        self.attend = attend

    def forward(self, q_THN: Tensor, q_THP: Tensor, latent_TR: Tensor, k_T1P: Tensor, ctx: Ctx) -> Tensor:
        self.write(latent_TR, k_T1P, ctx=ctx)
        return self.attend(q_THN, q_THP, ctx=ctx)


class Attention(Module):
    """The usual layer: fused QKV, optional norms of queries and keys, optional rotation, output projection."""

    def __init__(
        self,
        qkv: Merged,
        core: CachedAttention,
        out: Linear,
        heads: Heads,
        *,
        rope: Rope | None = None,
        q_norm: Norm | None = None,
        k_norm: Norm | None = None,
    ) -> None:
        self.qkv = qkv
        self.core = core
        self.out = out
        self.heads = heads
        self.rope = rope
        self.q_norm = q_norm
        self.k_norm = k_norm

    def forward(self, x_TD: Tensor, ctx: Ctx) -> Tensor:
        q, k, v = self.qkv(x_TD)
        q_THK = q.unflatten(-1, (-1, self.heads.dim))  # of several workers each has some of the heads
        k_TGK = k.unflatten(-1, (-1, self.heads.dim))
        v_TGK = v.unflatten(-1, (-1, self.heads.values))
        if self.q_norm is not None and self.k_norm is not None:
            q_THK, k_TGK = self.q_norm(q_THK), self.k_norm(k_TGK)
        if self.rope is not None:
            q_THK, k_TGK = self.rope(q_THK, k_TGK, ctx)
        return self.out(self.core(q_THK, k_TGK, v_TGK, ctx))
