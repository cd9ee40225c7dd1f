# SPDX-License-Identifier: Apache-2.0
"""The Builder: what a model file talks to instead of choosing classes.

A model's constructor declares what it wants, by the checkpoint's canonical names; nothing is allocated. The builder
notes every matrix, vector, constant, cache and op in its :class:`Blueprint`. Afterwards the plan decides, once and for
all of them, how weights are stored, sharded and adapted and which kernel runs each op. A model never finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.cache.spec import CacheKind, CacheSpec
from tramontane.config import RopeConfig
from tramontane.errors import PlanError
from tramontane.nn.rope import rope_table, rotary_dim
from tramontane.ops import BoundOp, Op, Runtime
from tramontane.weights import CacheSlot, Constant, Matrix, Param, Part, Source, Split


@define(eq=False)
class Blueprint:
    """Everything one model declared, in order."""

    runtime: Runtime
    dtype: torch.dtype
    """Type of the activations."""
    cache_dtype: torch.dtype
    """Type of keys and values in the cache."""
    max_positions: int
    """Longest sequence the engine will run; rope tables are made for it."""
    matrices: dict[str, Matrix] = field(factory=dict)
    params: dict[str, Param] = field(factory=dict)
    constants: dict[object, Constant] = field(factory=dict)
    caches: dict[str, CacheSlot] = field(factory=dict)
    ops: list[BoundOp] = field(factory=list)
    tied: list[tuple[str, str]] = field(factory=list)
    """Pairs of module paths that share one matrix."""


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


@frozen
class Builder:
    """Declares a model's parts under a path prefix. ``b.at("layers.3")`` is the same builder one scope deeper."""

    blueprint: Blueprint
    prefix: str = ""

    def at(self, name: str) -> Builder:
        """The builder of a sub-module."""
        return evolve(self, prefix=_join(self.prefix, name))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations."""
        return self.blueprint.dtype

    # --- the primitives: weights, caches, ops -------------------------------------------------------------------------

    def matrix(
        self,
        name: str,
        in_features: int,
        parts: Mapping[str, int],
        *,
        experts: int | None = None,
        split: Split | None = None,
        uses: str = "linear",
    ) -> Matrix:
        """Declare a matrix whose parts are stacked along its outputs. ``parts`` maps names beside ``name`` to sizes."""
        path = _join(self.prefix, name)
        members = tuple(Part(_join(self.prefix, part), size) for part, size in parts.items())
        made = Matrix(path, members, in_features, experts=experts, split=split, uses={uses})
        return self._declare(self.blueprint.matrices, path, made)

    def param(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        field: str = "weight",
        offset: float = 0.0,
        dtype: torch.dtype | None = None,
        split: Split | None = None,
    ) -> Param:
        """Declare a plain tensor, stored in the checkpoint as ``<path>.<field>`` (``<path>`` if ``field`` is empty)."""
        path = _join(self.prefix, name)
        source = Source(path, field, shape)
        made = Param(_join(path, field), (source,), dtype or self.dtype, offset=offset, split=split)
        return self._declare(self.blueprint.params, made.path, made)

    def constant(self, key: object, make: Callable[[], Tensor]) -> Constant:
        """Declare a computed tensor; equal keys share it."""
        return self.blueprint.constants.setdefault(key, Constant(str(key), make))

    def cache(self, spec: CacheSpec) -> CacheSlot:
        """Declare this layer's place in the paged cache."""
        slot = CacheSlot(self.prefix, evolve(spec, dtype=self.blueprint.cache_dtype))
        return self._declare(self.blueprint.caches, slot.path, slot)

    def op(self, op: Op, *weights: Any, name: str = "") -> BoundOp:
        """Declare an op over the given weights."""
        made = BoundOp(op, weights, self.blueprint.runtime, path=_join(self.prefix, name or op.name))
        self.blueprint.ops.append(made)
        return made

    @staticmethod
    def _declare(table: dict[str, Any], path: str, made: Any) -> Any:
        if path in table:
            raise PlanError(f"the model declares {path!r} twice")
        table[path] = made
        return made

    # --- linear layers ------------------------------------------------------------------------------------------------

    def linear(
        self, name: str, in_features: int, out_features: int, *, bias: bool = False, split: Split | None = None
    ) -> nn.Linear:
        """One linear layer. ``split`` says along which axis ranks share it: ``out`` (column) or ``in`` (row)."""
        matrix = self.matrix(name, in_features, {name: out_features}, split=split)
        return nn.Linear(self._linear_op(name, matrix, (name,) if bias else ()))

    def merged(
        self, name: str, in_features: int, parts: Mapping[str, int], *, bias: bool = False, split: Split | None = "out"
    ) -> nn.Merged:
        """Several linears of one input as one: the only place where a fusion is stated."""
        matrix = self.matrix(name, in_features, parts, split=split)
        op = self._linear_op(name, matrix, tuple(parts) if bias else ())
        return nn.Merged(op, list(parts.values()))

    def _linear_op(self, name: str, matrix: Matrix, biased: tuple[str, ...], **options: Any) -> BoundOp:
        weights: tuple[Any, ...] = (matrix,)
        if biased:
            sizes = {part.path: part.out_features for part in matrix.parts}
            paths = [_join(self.prefix, part) for part in biased]
            sources = tuple(Source(path, "bias", (sizes[path],)) for path in paths)
            split: Split | None = "out" if matrix.split == "out" else None
            param = Param(f"{matrix.path}.bias", sources, self.dtype, split=split)
            weights = (matrix, self._declare(self.blueprint.params, param.path, param))
        op = ops.Linear(matrix.out_features, bias=bool(biased), **options)
        return self.op(op, *weights, name=name)

    def embedding(self, name: str, vocab_size: int, features: int, *, scale: float | None = None) -> nn.Embedding:
        """Token embedding; ``scale`` multiplies its output (Gemma)."""
        matrix = self.matrix(name, features, {name: vocab_size}, uses="rows")
        return nn.Embedding(self.op(ops.Embed(features, self.dtype, scale), matrix, name=name), matrix)

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
            matrix = self.matrix(name, features, {name: vocab_size}, split="out")
        else:
            matrix = tied.matrix
            matrix.uses.add("linear")
            self.blueprint.tied.append((matrix.path, _join(self.prefix, name)))
        op = self._linear_op(name, matrix, (name,) if bias else (), out_dtype=torch.float32)
        steps: list[BoundOp] = []
        if scale is not None and scale != 1.0:
            steps.append(self.op(ops.Scale(scale), name=name))
        if softcap is not None:
            steps.append(self.op(ops.Softcap(softcap), name=name))
        return nn.Head(op, tuple(steps))

    # --- norms, rope, attention, feed-forward -------------------------------------------------------------------------

    def rms_norm(self, name: str, features: int, eps: float, *, offset: float = 0.0) -> nn.ResidualNorm:
        """RMS norm at a residual junction. ``offset`` is added to the stored weight, then used in float32 (Gemma)."""
        weight, late = self._norm_weight(name, features, offset)
        plain = self.op(ops.RmsNorm(eps, late_cast=late), weight, name=name)
        return nn.ResidualNorm(plain, self.op(ops.AddRmsNorm(eps, late_cast=late), weight, name=name))

    def norm(self, name: str, features: int, eps: float, *, offset: float = 0.0) -> nn.Norm:
        """RMS norm alone: of queries and keys per head, or after a sub-layer."""
        weight, late = self._norm_weight(name, features, offset)
        return nn.Norm(self.op(ops.RmsNorm(eps, late_cast=late), weight, name=name))

    def _norm_weight(self, name: str, features: int, offset: float) -> tuple[Param, bool]:
        wide = torch.float32 if offset else None
        return self.param(name, (features,), offset=offset, dtype=wide), bool(offset)

    def layer_norm(self, name: str, features: int, eps: float, *, bias: bool = True) -> nn.Norm:
        """Layer norm, with optional shift."""
        weights = [self.param(name, (features,))]
        if bias:
            weights.append(self.param(name, (features,), field="bias"))
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
        spec = CacheSpec(kind=kind, kv_heads=heads.kv, head_dim=heads.dim, value_dim=heads.values, window=window)
        slot = self.cache(spec)
        op = ops.Attend(
            heads.query,
            heads.kv,
            heads.dim,
            heads.values,
            heads.dim**-0.5 if scale is None else scale,
            window=window,
            softcap=softcap,
            sinks=sinks is not None,
        )
        weights = (slot,) if sinks is None else (slot, sinks)
        return nn.CachedAttention(self.op(ops.CacheWrite(), slot), self.op(op, *weights))

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
        sizes = {
            "q_proj": heads.query * heads.dim,
            "k_proj": heads.kv * heads.dim,
            "v_proj": heads.kv * heads.values,
        }
        return nn.Attention(
            b.merged("qkv_proj", hidden, sizes, bias=bias),
            b.cached_attention(heads, window=window),
            b.linear("o_proj", heads.query * heads.values, hidden, bias=out_bias, split="in"),
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
