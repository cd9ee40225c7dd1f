# SPDX-License-Identifier: Apache-2.0
"""Routing: a product for the logits, then one launch for scores, groups, choice and weights.

Equal scores go to the expert with the lower number. Legend: T tokens, D hidden size, X experts, K experts of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import Kernel, Op, Router
from tramontane.ops.moe import TINY
from tramontane_backend_cuda.codes import VECTOR
from tramontane_backend_cuda.planes import DenseForm
from tramontane_backend_cuda.rows import exact, rows_of
from tramontane_backend_cuda.source import MAX_FEW, Source


@triton.jit
def _most(x):
    """The largest of a tile."""
    return tl.max(tl.max(x, axis=1), axis=0)


@triton.jit
def _first(x, value, place):
    """The lowest place of a tile that holds a value."""
    return tl.min(tl.min(tl.where(x == value, place, 1 << 30), axis=1), axis=0)


@triton.jit
def _best_groups(
    wanted, g, i, GROUPS: tl.constexpr, TOP_GROUPS: tl.constexpr, TWO: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """The same numbers, and minus infinity outside the best groups. ``g`` [BG, 1], ``i`` [1, BE]."""
    score = tl.max(wanted, axis=1)[:, None]
    if TWO:
        once = tl.min(tl.where(wanted == score, i, 1 << 30), axis=1)[:, None]
        score += tl.max(tl.where(i == once, float("-inf"), wanted), axis=1)[:, None]
    score = tl.where(g < GROUPS, score, float("-inf"))
    kept = g < 0
    for _ in tl.static_range(TOP_GROUPS):
        best = tl.min(tl.where(score == _most(score), g, 1 << 30))
        kept = kept | (g == best)
        score = tl.where(g == best, float("-inf"), score)
    return tl.where(kept, wanted, float("-inf"))


@triton.jit
def choose_experts(
    logits, bias, correction, weights, ids, experts, each, scale, jitter, tiny,
    SCORING: tl.constexpr, NORMALIZE: tl.constexpr, BIAS: tl.constexpr, CORRECTION: tl.constexpr,
    GROUPS: tl.constexpr, TOP_GROUPS: tl.constexpr, TWO: tl.constexpr, K: tl.constexpr,
    BG: tl.constexpr, BE: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The experts of one token. ``each``: experts of a group."""
    token = tl.program_id(0).to(tl.int64)
    g, i, j = tl.arange(0, BG)[:, None], tl.arange(0, BE)[None, :], tl.arange(0, BK)
    inside = (g < GROUPS) & (i < each)
    place = tl.where(inside, g * each + i, 1 << 29)
    x = tl.load(logits + token * experts + place, mask=inside, other=0.0)
    if BIAS:
        x += tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    x = tl.where(inside, x, float("-inf"))
    scores = x
    if SCORING == "softmax":
        scores = tl.exp(x - _most(x))
        scores = scores / tl.sum(tl.sum(scores, axis=1), axis=0)
    elif SCORING == "sigmoid":
        scores = 1.0 / (1.0 + tl.exp(-x))
    wanted = scores
    if CORRECTION:
        wanted += tl.load(correction + place, mask=inside, other=0.0).to(tl.float32)
    wanted = tl.where(inside, wanted, float("-inf"))
    if GROUPS > 1:
        wanted = _best_groups(wanted, g, i, GROUPS, TOP_GROUPS, TWO, BG)
    taken = tl.zeros((BK,), tl.float32)
    chosen = tl.zeros((BK,), tl.int32)
    for k in tl.static_range(K):
        best = _most(wanted)
        index = tl.minimum(_first(wanted, best, place), experts - 1)
        if SCORING == "sparsemixer":
            far = (best - x) / tl.maximum(tl.abs(x), best) > 2.0 * jitter
            near = tl.where(far | (wanted == float("-inf")), 0.0, tl.exp(wanted - best))
            weight = 1.0 / tl.sum(tl.sum(near, axis=1), axis=0)
        else:
            weight = tl.sum(tl.sum(tl.where(place == index, scores, 0.0), axis=1), axis=0)
        taken = tl.where(j == k, weight, taken)
        chosen = tl.where(j == k, index, chosen)
        wanted = tl.where(place == index, float("-inf"), wanted)
    if NORMALIZE:
        taken = taken / (tl.sum(taken, axis=0) + tiny)
    tl.store(weights + token * K + j, taken * scale, mask=j < K)
    tl.store(ids + token * K + j, chosen, mask=j < K)


def router(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Logits in float32, then the choice."""
    if not isinstance(op, Router):
        return f"made for router, not {op.name}"
    weight_XD, vectors = weights[0].dequantize().contiguous(), [one.tensor for one in weights[1:]]
    experts = weight_XD.shape[0]
    if experts % op.groups:
        return f"{experts} experts are not {op.groups} equal groups"
    logits = _Logits(weight_XD)
    bias, correction = vectors[0] if op.bias else None, vectors[-1] if op.correction else None
    each = experts // op.groups

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        x_TD = rows_of(inputs[0])
        tokens = x_TD.shape[0]
        if not tokens:
            return
        logits_TX = logits(x_TD)
        choose_experts[(tokens,)](
            logits_TX, logits_TX if bias is None else bias, logits_TX if correction is None else correction, *outputs,
            experts, each, op.scale, op.jitter, TINY,
            SCORING=op.scoring, NORMALIZE=op.normalize, BIAS=bias is not None, CORRECTION=correction is not None,
            GROUPS=op.groups, TOP_GROUPS=op.top_groups, TWO=op.group_score == "best_two", K=op.top_k,
            BG=triton.next_power_of_2(op.groups), BE=triton.next_power_of_2(each),
            BK=triton.next_power_of_2(op.top_k), num_warps=2 if experts <= 128 else 4,
        )  # fmt: skip

    return run


class _Logits:
    """``x W^T`` in float32, whatever the types: a router decides between near ties."""

    def __init__(self, weight_XD: Tensor) -> None:
        experts, features = weight_XD.shape
        self.wide_DX = weight_XD.float().t()
        self.kind, self.source = weight_XD.dtype, None
        if features % (VECTOR // weight_XD.element_size()) == 0:
            form = DenseForm(codes="dense", scale="none")
            self.source = Source.of(form, {"codes": weight_XD}, 0, experts, features)

    def __call__(self, x_TD: Tensor) -> Tensor:
        tokens = x_TD.shape[0]
        few = tokens <= 4 or (tokens <= MAX_FEW and x_TD.dtype is self.kind)  # above 4 the matrix takes x's type
        if self.source is None or not few or exact(x_TD):
            return torch.mm(x_TD.float(), self.wide_DX)
        logits_TX = x_TD.new_empty(tokens, self.wide_DX.shape[1], dtype=torch.float32)
        self.source.few(x_TD, logits_TX)
        return logits_TX
