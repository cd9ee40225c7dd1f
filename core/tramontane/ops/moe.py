# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts: which experts a token goes to, and what they make of it.

Two ops, so that shared experts, gates on them and other ways of mixing are plain composition. No shape depends on the
routing: a token has always ``top_k`` experts.

Legend: T tokens, D hidden size, F intermediate size, X experts, K experts per token, G groups of experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.errors import PlanError
from tramontane.ops.activations import product
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
    ``sparsemixer`` (Liu et al., 2023; Phi-3.5-MoE) takes expert after expert; the weight of each is its share in a
    softmax over the logits that are left and come within ``2 * jitter`` of it, relative to their magnitude.
    ``correction`` adds a learned number to each score for the choice alone (DeepSeek-V3). With ``groups``, experts come
    from the ``top_groups`` best groups; a group is as good as its best expert, or as its best two together.

    Weights: a :class:`~tramontane.weights.Matrix` [X, D], then vectors [X]: ``bias`` and ``correction`` where set.
    """

    top_k: int
    scoring: Literal["softmax", "sigmoid", "sparsemixer"] = "softmax"
    normalize: bool = False
    scale: float = 1.0
    bias: bool = False
    correction: bool = False
    groups: int = 1
    top_groups: int = 1
    group_score: Literal["best", "best_two"] = "best"
    jitter: float = 0.0

    roles = ("weight", "bias", "correction")

    def __attrs_post_init__(self) -> None:
        plain = self.scoring in ("softmax", "sigmoid")
        mixed = self.scoring == "sparsemixer" and self.groups == 1 and not self.correction
        if self.top_k < 1 or not 1 <= self.top_groups <= self.groups or not (plain or mixed):
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
        if self.scoring == "sparsemixer":
            weights_TK, ids_TK = self._one_after_another(logits_TX)
        else:
            weights_TK, ids_TK = self._best_at_once(logits_TX, correction_X)
        if self.normalize:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + TINY)
        return weights_TK * self.scale, ids_TK.to(torch.int32)

    def _one_after_another(self, logits_TX: Tensor) -> tuple[Tensor, Tensor]:
        left_TX, chosen = logits_TX, []
        for _ in range(self.top_k):
            best_T1, id_T1 = left_TX.max(-1, keepdim=True)
            far_TX = (best_T1 - logits_TX) / logits_TX.abs().maximum(best_T1) > 2 * self.jitter
            share_TX = left_TX.masked_fill(far_TX, float("-inf")).softmax(-1)
            chosen.append((share_TX.gather(-1, id_T1), id_T1))
            left_TX = left_TX.scatter(-1, id_T1, float("-inf"))
        weights, ids = zip(*chosen, strict=True)
        return torch.cat(weights, dim=-1), torch.cat(ids, dim=-1)

    def _best_at_once(self, logits_TX: Tensor, correction_X: Tensor | None) -> tuple[Tensor, Tensor]:
        scores_TX = logits_TX.softmax(-1) if self.scoring == "softmax" else logits_TX.sigmoid()
        wanted_TX = scores_TX if correction_X is None else scores_TX + correction_X
        if self.groups > 1:
            wanted_TX = self._within_groups(wanted_TX)
        ids_TK = wanted_TX.topk(self.top_k, dim=-1).indices
        return scores_TX.gather(-1, ids_TK), ids_TK

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

    def matrix_inputs(self, weights: Sequence[Any], *inputs: Tensor) -> Iterator[tuple[int, int | None, Tensor]]:
        """See :meth:`Op.matrix_inputs`."""
        x_TD, _, ids_TK = inputs
        for expert in ids_TK.unique().tolist():
            token_N, _ = (ids_TK == expert).nonzero(as_tuple=True)
            x_ND = x_TD[token_N].float()
            yield 0, expert, x_ND
            yield 1, expert, self.between(expert, x_ND, weights)

    def one(self, expert: int, x_ND: Tensor, weights: Sequence[Any]) -> Tensor:
        """What one expert makes of its tokens, in float32: [N, D]."""
        y_ND: Tensor = product(self.between(expert, x_ND, weights), weights[1], expert)
        return y_ND + weights[3].tensor[expert].float() if self.bias else y_ND

    def between(self, expert: int, x_ND: Tensor, weights: Sequence[Any]) -> Tensor:
        """What the second matrix of an expert is given, in float32: [N, F]."""
        both = product(x_ND, weights[0], expert)
        if self.bias:
            both = both + weights[2].tensor[expert].float()
        (h_NF,) = self.gate.reference(None, (), both)
        made: Tensor = h_NF
        return made
