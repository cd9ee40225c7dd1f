# SPDX-License-Identifier: Apache-2.0
"""Ops with a state per sequence instead of a cache per token: a short convolution and the gated delta rule.

A sequence's state lives in the slot that the batch names; a row that starts afresh takes it as zero. Rows are
independent, and what a token gives depends only on the tokens of its row up to it.

Legend: T tokens, N tokens of one row, R rows, C channels, W width of the convolution, G key heads, H value heads,
K key dimension, V value dimension.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional as F

from tramontane.batch import Ctx
from tramontane.ops.attention import batch_of
from tramontane.ops.base import Meta, Op, op
from tramontane.ops.pointwise import ACTIVATIONS, known_activation

TINY = 1e-6
"""Keeps the lengths of queries and keys above zero."""


@frozen
class Recurrent(Op):
    """An op that carries a state along each row. Its first weight is a :class:`~tramontane.weights.CacheSlot` of kind
    ``state`` with one tensor."""

    reads = ("q_start", "state_slot_R", "state_fresh_R")
    effect = True

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Token by token: every product and sum has one shape, so a result does not depend on how rows are cut."""
        ctx = batch_of(ctx)
        if ctx.state_slot_R is None or ctx.state_fresh_R is None:
            raise TypeError("a recurrent op needs a batch with state slots")
        ((shape, dtype),) = self.outputs(weights, *inputs)
        out, (states,) = torch.zeros(shape, dtype=dtype, device=inputs[0].device), weights[0].states
        spans, slots, fresh = itertools.pairwise(ctx.q_start.tolist()), ctx.state_slot_R.tolist(), ctx.state_fresh_R
        for (first, last), slot, starts in zip(spans, slots, fresh.tolist(), strict=True):
            if starts:
                states[slot].zero_()
            for token in range(first, last):
                made, state = self.step(weights, states[slot], *(one[token : token + 1].contiguous() for one in inputs))
                out[token], states[slot] = made, state
        return (out,)

    def step(self, weights: Sequence[Any], state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What one token (inputs [1, ...]) gives, and the state after it."""
        raise NotImplementedError


@op("causal_conv")
@frozen
class CausalConv(Recurrent):
    """Each channel over its last W inputs, then ``act``: [T, C] -> [T, C]. Inputs before a row's start are zero.

    Weights: a state [C, W - 1] (the last inputs, in the input's type) and a matrix [C, W], the newest input last.
    """

    width: int
    act: str = field(validator=known_activation)

    roles = ("state", "weight")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x_TC,) = inputs
        return ((tuple(x_TC.shape), x_TC.dtype),)

    def step(self, weights: Sequence[Any], state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Recurrent.step`."""
        (x_1C,) = inputs
        inputs_CW = torch.cat((state, x_1C.T.to(state.dtype)), dim=1)
        made_C = (inputs_CW.float() * weights[1].tensor.float()).sum(-1)
        return ACTIVATIONS[self.act](made_C).to(x_1C.dtype), inputs_CW[:, 1:]


@op("gated_delta")
@frozen(kw_only=True)
class GatedDelta(Recurrent):
    """Linear attention by the gated delta rule (Yang et al., 2024), in float32 -> [T, H * V].

    Inputs: queries and keys [T, G * K], values [T, H * V], and for each value head the logits of what is written
    [T, H] and of what is kept [T, H]. Queries and keys are brought to unit length; each serves H / G value heads that
    follow one another. With ``beta = sigmoid(write)`` and ``decay = exp(-exp(a) * softplus(keep + shift))``::

        S = decay * S
        S = S + beta * k (v - S^T k)^T
        y = S^T q / sqrt(K)

    Weights: a state [H, K, V] in float32, then the vectors ``a`` and ``shift`` [H].
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int

    roles = ("state", "a", "shift")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        value = inputs[2]
        return ((tuple(value.shape), value.dtype),)

    def step(self, weights: Sequence[Any], state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Recurrent.step`."""
        q_HK, k_HK, v_HV, beta_H, decay_H = (one[0] for one in self.prepared(weights, *inputs))
        state_HKV = state * decay_H.exp()[:, None, None]
        known_HV = torch.einsum("hkv,hk->hv", state_HKV, k_HK)
        state_HKV = state_HKV + torch.einsum("hk,hv->hkv", k_HK, (v_HV - known_HV) * beta_H.unsqueeze(1))
        return torch.einsum("hkv,hk->hv", state_HKV, q_HK).flatten().to(inputs[2].dtype), state_HKV

    def prepared(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        """Queries and keys [T, H, K], values [T, H, V], beta [T, H] and the logarithm of the decay [T, H]."""
        query, key, value, write_TH, keep_TH = (one.float() for one in inputs)
        shared = self.value_heads // self.key_heads
        q_THK, k_THK = (
            unit(one.unflatten(-1, (self.key_heads, self.key_dim))).repeat_interleave(shared, dim=1)
            for one in (query, key)
        )
        decay_TH = -weights[1].tensor.float().exp() * F.softplus(keep_TH + weights[2].tensor.float())
        v_THV = value.unflatten(-1, (self.value_heads, self.value_dim))
        return q_THK * self.key_dim**-0.5, k_THK, v_THV, write_TH.sigmoid(), decay_TH


def unit(x: Tensor) -> Tensor:
    """Vectors of length one along the last axis."""
    return x * (x.square().sum(-1, keepdim=True) + TINY).rsqrt()
