# SPDX-License-Identifier: Apache-2.0
"""The Builder: what a model file talks to instead of choosing classes.

A model's constructor declares what it wants, by the checkpoint's canonical names; nothing is allocated. The builder
notes every matrix, vector, constant, cache and op in its :class:`Blueprint`. Afterwards the plan decides, once and for
all of them, how weights are stored, sharded and adapted and which kernel runs each op. A model never finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen

from tramontane import nn, ops
from tramontane.build.blueprint import Declarations, join
from tramontane.cache.spec import CacheKind, CacheSpec
from tramontane.config import RopeConfig
from tramontane.errors import PlanError
from tramontane.nn.rope import rope_table, rotary_dim
from tramontane.ops import BoundOp
from tramontane.weights import Matrix, Param, Split


@frozen
class Builder(Declarations):
    """Declares a model's layers."""

    # --- linear layers ------------------------------------------------------------------------------------------------

    def linear(
        self, name: str, in_features: int, out_features: int, *, bias: bool = False, split: Split | None = None
    ) -> nn.Linear:
        """One linear layer. ``split`` says along which axis ranks share it: ``out`` (column) or ``in`` (row)."""
        matrix = self.matrix(name, in_features, {name: out_features}, split=split)
        op = self._linear_op(name, matrix, self.biases(matrix) if bias else None)
        return nn.Linear(op, self._total(name) if split == "in" else None)

    def _total(self, name: str) -> BoundOp | None:
        """The sum over all workers; ``None`` where there is one."""
        share = self.blueprint.share
        return self.op(ops.AllReduce(), share.group, name=name) if share.parted else None

    def merged(
        self, name: str, in_features: int, parts: Mapping[str, int], *, bias: bool = False, split: Split | None = "out"
    ) -> nn.Merged:
        """Several linears of one input as one: the only place where a fusion is stated."""
        matrix = self.matrix(name, in_features, parts, split=split)
        op = self._linear_op(name, matrix, self.biases(matrix) if bias else None)
        return nn.Merged(op, [part.out_features for part in matrix.parts])

    def _linear_op(self, name: str, matrix: Matrix, bias: Param | None, **options: Any) -> BoundOp:
        op = ops.Linear(matrix.out_features, bias=bias is not None, **options)
        return self.op(op, matrix, *(() if bias is None else (bias,)), name=name)

    def embedding(self, name: str, vocab_size: int, features: int, *, scale: float | None = None) -> nn.Embedding:
        """Token embedding; ``scale`` multiplies its output (Gemma)."""
        matrix = self.matrix(name, features, {name: vocab_size}, split="vocab", uses="rows")
        op: ops.Op = ops.Embed(features, self.dtype, scale)
        cut = matrix.parts[0].cut
        if cut is not None:
            op = ops.EmbedPart(ops.Embed(features, self.dtype, scale), cut.first, cut.length)
        return nn.Embedding(self.op(op, matrix, name=name), matrix, self._total(name))

    def head(
        self,
        name: str,
        features: int,
        vocab_size: int,
        *,
        tied: nn.Embedding | None = None,
        bias: bool = False,
        scale: float | None = None,
        softcap: float | None = None,
    ) -> nn.Head:
        """Output head giving float32 logits, scaled and capped where asked. ``tied`` shares the embedding's storage."""
        if tied is None:
            matrix = self.matrix(name, features, {name: vocab_size}, split="vocab")
        else:
            matrix = tied.matrix
            matrix.uses.add("linear")
            self.blueprint.tied.append((matrix.path, join(self.prefix, name)))
        shift = self.param(name, (vocab_size,), field="bias", split="vocab") if bias else None
        op = self._linear_op(name, matrix, shift, out_dtype=torch.float32)
        steps: list[BoundOp] = []
        if scale is not None and scale != 1.0:
            steps.append(self.op(ops.Scale(scale), name=name))
        if softcap is not None:
            steps.append(self.op(ops.Softcap(softcap), name=name))
        share = self.blueprint.share
        if share.parted:
            sizes = tuple(cut.length for cut in share.vocabulary(vocab_size))
            steps.append(self.op(ops.AllGather(sizes), share.group, name=name))
        return nn.Head(op, tuple(steps))

    # --- norms, rope, attention, feed-forward -------------------------------------------------------------------------

    def rms_norm(
        self, name: str, features: int, eps: float, *, offset: float = 0.0, late_cast: bool = False
    ) -> nn.ResidualNorm:
        """RMS norm at a residual junction.

        ``late_cast`` multiplies by the weight in float32 and rounds last (gpt-oss, OLMo 2). ``offset`` is added to the
        stored weight (1 for Gemma), and implies it.
        """
        late = late_cast or bool(offset)
        weight = self._norm_weight(name, features, offset)
        plain = self.op(ops.RmsNorm(eps, late_cast=late), weight, name=name)
        return nn.ResidualNorm(plain, self.op(ops.AddRmsNorm(eps, late_cast=late), weight, name=name))

    def norm(self, name: str, features: int, eps: float, *, offset: float = 0.0, late_cast: bool = False) -> nn.Norm:
        """RMS norm alone: of queries and keys per head, or after a sub-layer. Options as :meth:`rms_norm`."""
        late = late_cast or bool(offset)
        return nn.Norm(self.op(ops.RmsNorm(eps, late_cast=late), self._norm_weight(name, features, offset), name=name))

    def _norm_weight(self, name: str, features: int, offset: float) -> Param:
        return self.param(name, (features,), offset=offset, dtype=torch.float32 if offset else None)

    def layer_norm(self, name: str, features: int, eps: float, *, bias: bool = True) -> nn.ResidualNorm:
        """Layer norm at a residual junction, with optional shift."""
        alone = self.plain_layer_norm(name, features, eps=eps, bias=bias)
        return nn.ResidualNorm(alone, nn.AddedNorm(self.op(ops.Add(), name=name), alone))

    def plain_layer_norm(self, name: str, *shape: int, eps: float, bias: bool = True) -> nn.Norm:
        """Layer norm alone, over the last axis of ``shape``; [H, K] norms each head by weights of its own (Cohere)."""
        if self.blueprint.share.parted and len(shape) > 1:
            raise PlanError(
                f"{self.at(name).prefix} norms each head by weights of its own, which workers cannot share",
                hint="load it without --tensor-parallel",
            )
        weights = [self.param(name, shape)]
        if bias:
            weights.append(self.param(name, shape, field="bias"))
        return nn.Norm(self.op(ops.LayerNorm(eps, bias=bias), *weights, name=name))

    def rope(self, rope: RopeConfig, head_dim: int, *, interleaved: bool = False) -> nn.Rope:
        """Rotary embedding of the features of each head that the configuration says are turned."""
        dim, positions = rotary_dim(rope, head_dim), self.blueprint.max_positions
        table = self.constant(("rope", rope, dim, positions), lambda: rope_table(rope, dim, positions))
        angles = self.op(ops.RopeAngles(dim // 2), table, name="rope")
        return nn.Rope(angles, self.op(ops.Rotate(interleaved=interleaved), name="rope"))

    def cached_attention(
        self,
        heads: nn.Heads,
        *,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Param | None = None,
    ) -> nn.CachedAttention:
        """The paged core of an attention layer. ``scale`` is 1 / sqrt(head dim) unless given."""
        kind = CacheKind.FULL if window is None else CacheKind.WINDOW
        query, kv = self.blueprint.share.heads(heads.query, heads.kv, what=f"{self.prefix}, heads")
        spec = CacheSpec(kind=kind, kv_heads=kv, head_dim=heads.dim, value_dim=heads.values, window=window)
        slot = self.cache(spec)
        op = ops.Attend(
            query,
            kv,
            heads.dim,
            heads.values,
            heads.dim**-0.5 if scale is None else scale,
            window=window,
            softcap=softcap,
            sinks=sinks is not None,
        )
        weights = (slot,) if sinks is None else (slot, sinks)
        return nn.CachedAttention(self.op(ops.CacheWrite(), slot), self.op(op, *weights))

    def latent_attention(
        self, name: str, *, heads: int, nope_dim: int, rope_dim: int, rank: int, value_dim: int, scale: float
    ) -> nn.LatentAttention:
        """The paged core of multi-head latent attention. ``name`` is the projection from the latent to all heads' keys
        and values; it is kept dense, since it is used along both of its axes."""
        slot = self.cache(CacheSpec(kind=CacheKind.LATENT, head_dim=rank + rope_dim))
        parts = {name: heads * (nope_dim + value_dim)}
        heads, _ = self.blueprint.share.heads(heads, heads, what=f"{self.prefix}, heads")
        matrix = self.matrix(name, rank, parts, split="out", uses="absorbed")
        op = ops.AttendLatent(
            heads=heads, nope_dim=nope_dim, rope_dim=rope_dim, rank=rank, value_dim=value_dim, scale=scale
        )
        return nn.LatentAttention(self.op(ops.LatentWrite(), slot), self.op(op, slot, matrix))

    def attention(
        self,
        name: str,
        hidden: int,
        heads: nn.Heads,
        *,
        rope: RopeConfig | None,
        qk_norm: float | None = None,
        bias: bool = False,
        out_bias: bool = False,
        window: int | None = None,
    ) -> nn.Attention:
        """The usual attention layer; a model with other needs composes ``merged``, ``rope`` and ``cached_attention``.

        ``qk_norm`` is the epsilon of RMS norms over each query and key head.
        """
        b = self.at(name)
        return nn.Attention(
            b.merged("qkv_proj", hidden, heads.projections, bias=bias),
            b.cached_attention(heads, window=window),
            b.linear("o_proj", heads.width, hidden, bias=out_bias, split="in"),
            heads,
            rope=None if rope is None else b.rope(rope, heads.dim),
            q_norm=None if qk_norm is None else b.norm("q_norm", heads.dim, qk_norm),
            k_norm=None if qk_norm is None else b.norm("k_norm", heads.dim, qk_norm),
        )

    def gated_mlp(self, name: str, hidden: int, intermediate: int, *, act: str, bias: bool = False) -> nn.GatedMlp:
        """``down(act(gate(x)) * up(x))`` with gate and up fused."""
        b = self.at(name)
        gate_up = b.merged("gate_up_proj", hidden, {"gate_proj": intermediate, "up_proj": intermediate}, bias=bias)
        down = b.linear("down_proj", intermediate, hidden, bias=bias, split="in")
        return nn.GatedMlp(gate_up, b.op(ops.GatedActivate(act)), down)

    def mlp(self, name: str, hidden: int, intermediate: int, *, act: str, bias: bool, names: tuple[str, str]) -> nn.Mlp:
        """``down(act(up(x)))``; ``names`` are the two layers' names."""
        b = self.at(name)
        up = b.linear(names[0], hidden, intermediate, bias=bias, split="out")
        return nn.Mlp(up, b.op(ops.Activate(act)), b.linear(names[1], intermediate, hidden, bias=bias, split="in"))

    # --- mixtures of experts ------------------------------------------------------------------------------------------

    def router(
        self, name: str, hidden: int, experts: int, routing: ops.Router, *, correction: str = "e_score_correction_bias"
    ) -> BoundOp:
        """The choice of experts. ``correction`` is the field of its additive correction, where ``routing`` has one."""
        matrix = self.matrix(name, hidden, {name: experts}, uses="router")
        vectors = [self.biases(matrix)] if routing.bias else []
        if routing.correction:
            vectors.append(self.param(name, (experts,), field=correction, dtype=torch.float32))
        return self.op(routing, matrix, *vectors, name=name)

    def experts(
        self, name: str, hidden: int, intermediate: int, count: int, gate: ops.Gate, *, bias: bool = False
    ) -> nn.Experts:
        """All experts of a layer, stacked: ``name.gate_proj``, ``name.up_proj`` and ``name.down_proj``."""
        b, share = self.at(name), self.blueprint.share
        halves = {"gate_proj": intermediate, "up_proj": intermediate}
        rows: Split = "expert" if share.by_expert else "out"
        columns: Split = "expert" if share.by_expert else "in"
        gate_up = b.matrix("gate_up_proj", hidden, halves, experts=count, split=rows, uses="experts")
        down = b.matrix("down_proj", intermediate, {"down_proj": hidden}, experts=count, split=columns, uses="experts")
        vectors = (b.biases(gate_up), b.biases(down)) if bias else ()
        op = self.op(ops.Experts(hidden, gate, bias=bias), gate_up, down, *vectors, name=name)
        own = None
        if share.parted and share.by_expert:
            cut = share.experts(count, what=op.path)
            own = self.op(ops.OwnExperts(cut.first, cut.length), name=name)
        return nn.Experts(op, own, self._total(name))

    def moe(self, name: str, hidden: int, intermediate: int, count: int, routing: ops.Router, *, act: str) -> nn.Moe:
        """The usual mixture: router ``gate`` and ``experts``; a model with other names composes the two."""
        b = self.at(name)
        experts = b.experts("experts", hidden, intermediate, count, ops.GatedActivate(act))
        return nn.Moe(b.router("gate", hidden, count, routing), experts)

    def with_shared(self, routed: nn.Moe, shared: nn.GatedMlp, gate: nn.Linear | None = None) -> nn.SharedMoe:
        """Add a feed-forward layer that every token takes, times the sigmoid of ``gate`` (one output) where given."""
        weighted = None
        if gate is not None:
            weighted = (gate, self.op(ops.Activate("sigmoid")), self.op(ops.Multiply()))
        return nn.SharedMoe(routed, shared, self.op(ops.Add()), weighted)
