# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts: which experts a token goes to, and what they make of it.

Two ops, so that shared experts, gates on them and other ways of mixing are plain composition. No shape depends on the
routing: a token has always ``top_k`` experts.

Legend: T tokens, D hidden size, F intermediate size, X experts, K experts per token, G groups of experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.errors import PlanError
from tramontane.ops.base import Meta, Op, op
from tramontane.ops.pointwise import Gate

TINY = 1e-20
"""Keeps the sum of weights above zero where every score of a token underflows."""


@op("router")
@frozen(kw_only=True)
class Router(Op):
    """Experts of each token and their weights: x [T, D] -> (float32 [T, K], int32 [T, K]).

    Scores are made of ``x W^T + bias`` in float32, whatever the types: near ties between experts are common, and the
    matrix is small. The ``top_k`` experts with the highest scores are taken; their weights are those scores, divided by
    their sum if ``normalize``, times ``scale``. (A softmax over the chosen logits alone is ``softmax`` normalized.)
    ``correction`` adds a learned number to each score for the choice alone (DeepSeek-V3). With ``groups``, experts come
    from the ``top_groups`` best groups; a group is as good as its best expert, or as its best two together.

    Weights: a :class:`~tramontane.weights.Matrix` [X, D], then vectors [X]: ``bias`` and ``correction`` where set.
    """

    top_k: int
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    normalize: bool = False
    scale: float = 1.0
    bias: bool = False
    correction: bool = False
    groups: int = 1
    top_groups: int = 1
    group_score: Literal["best", "best_two"] = "best"

    roles = ("weight", "bias", "correction")

    def __attrs_post_init__(self) -> None:
        if self.top_k < 1 or not 1 <= self.top_groups <= self.groups or self.scoring not in ("softmax", "sigmoid"):
            raise PlanError(f"no such routing: {self!r}")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        (x_TD,) = inputs
        shape = (x_TD.shape[0], self.top_k)
        return ((shape, torch.float32), (shape, torch.int32))

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (x_TD,) = inputs
        logits_TX = x_TD.float() @ weights[0].dequantize().float().T
        vectors = [one.tensor.float() for one in weights[1:]]
        if self.bias:
            logits_TX = logits_TX + vectors[0]
        return self.choose(logits_TX, vectors[-1] if self.correction else None)

    def choose(self, logits_TX: Tensor, correction_X: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights and ids from the logits, by the rules above."""
        scores_TX = logits_TX.softmax(-1) if self.scoring == "softmax" else logits_TX.sigmoid()
        wanted_TX = scores_TX if correction_X is None else scores_TX + correction_X
        if self.groups > 1:
            wanted_TX = self._within_groups(wanted_TX)
        ids_TK = wanted_TX.topk(self.top_k, dim=-1).indices
        weights_TK = scores_TX.gather(-1, ids_TK)
        if self.normalize:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + TINY)
        return weights_TK * self.scale, ids_TK.to(torch.int32)

    def _within_groups(self, wanted_TX: Tensor) -> Tensor:
        """The same numbers, and minus infinity outside each token's best groups."""
        each_TGE = wanted_TX.unflatten(-1, (self.groups, -1))
        best = 1 if self.group_score == "best" else 2
        group_TG = each_TGE.topk(best, dim=-1).values.sum(-1)
        chosen = group_TG.topk(self.top_groups, dim=-1).indices
        outside_TG = torch.ones_like(group_TG, dtype=torch.bool).scatter(-1, chosen, value=False)
        inside_TGE: Tensor = each_TGE.masked_fill(outside_TG.unsqueeze(-1), float("-inf"))
        return inside_TGE.flatten(-2)


@op("experts")
@frozen
class Experts(Op):
    """Gated feed-forward by each token's experts: (x [T, D], weights [T, K], ids [T, K]) -> [T, D].

    ``y[t] = sum over k of weights[t, k] * (down[e] gate(gate_up[e] x[t] + b[e]) + c[e])`` with ``e = ids[t, k]``; the
    sum is float32 and is rounded once.

    Weights: matrices ``gate_up`` [X, 2F, D] (gate rows first) and ``down`` [X, D, F]; with ``bias``, ``b`` [X, 2F] and
    ``c`` [X, D].
    """

    features: int
    gate: Gate = field()
    bias: bool = False

    roles = ("gate_up", "down", "gate_up_bias", "down_bias")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        x_TD = inputs[0]
        return (((x_TD.shape[0], self.features), x_TD.dtype),)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        x_TD, weights_TK, ids_TK = inputs
        total_TD = torch.zeros(x_TD.shape[0], self.features, dtype=torch.float32, device=x_TD.device)
        for expert in ids_TK.unique().tolist():
            token_N, slot_N = (ids_TK == expert).nonzero(as_tuple=True)
            made_ND = self.one(expert, x_TD[token_N].float(), weights)
            total_TD = total_TD.index_add(0, token_N, made_ND * weights_TK[token_N, slot_N].unsqueeze(1))
        return (total_TD.to(x_TD.dtype),)

    def one(self, expert: int, x_ND: Tensor, weights: Sequence[Any]) -> Tensor:
        """What one expert makes of its tokens, in float32: [N, D]."""
        both = x_ND @ weights[0].expert(expert).float().T
        if self.bias:
            both = both + weights[2].tensor[expert].float()
        (h_NF,) = self.gate.reference(None, (), both)
        y_ND: Tensor = h_NF @ weights[1].expert(expert).float().T
        return y_ND + weights[3].tensor[expert].float() if self.bias else y_ND
