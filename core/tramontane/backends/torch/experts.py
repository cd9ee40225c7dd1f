# SPDX-License-Identifier: Apache-2.0
"""Routing and experts with stock torch: tokens sorted by expert, one pair of products per expert that is hit.

Nothing is padded, and an expert that no token of the step goes to is not touched. Matrices that are not dense are made
so one expert at a time.

Legend: T tokens, D hidden size, F intermediate size, X experts, K experts per token, N = T * K pairs sorted by expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from attrs import define, frozen
from torch import Tensor

from tramontane.backends.base import DenseStored
from tramontane.backends.torch.linear import multiply
from tramontane.backends.torch.pointwise import gate_into
from tramontane.batch import Ctx
from tramontane.ops import Experts, GatedActivate, Kernel, Op, Router
from tramontane.ops.activations import Span, spans
from tramontane.weights import Matrix

MAX_PAIRS = 8192
"""Pairs of token and expert at a time: bounds the memory between the products."""


def router(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Logits in float32, then the op's own choice."""
    if not isinstance(op, Router):
        return f"made for router, not {op.name}"
    weight_DX = weights[0].dequantize().float().t()
    vectors = [one.tensor.float() for one in weights[1:]]
    shift_X = vectors[0] if op.bias else None
    correction_X = vectors[-1] if op.correction else None

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        x_TD = inputs[0].float()
        logits_TX = torch.mm(x_TD, weight_DX) if shift_X is None else torch.addmm(shift_X, x_TD, weight_DX)
        for out, value in zip(outputs, op.choose(logits_TX, correction_X), strict=True):
            out.copy_(value)

    return run


def experts(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Grouped products over the experts that are hit."""
    if not isinstance(op, Experts):
        return f"made for experts, not {op.name}"
    shifts = [one.tensor for one in weights[2:]] if op.bias else [None, None]
    gate_up, down = (_Stack(matrix, shift, spans(matrix)) for matrix, shift in zip(weights[:2], shifts, strict=True))
    return _GroupedMlp(op, gate_up, down)


@frozen(eq=False)
class _Stack:
    """A matrix per expert, and what goes with it."""

    matrix: Matrix
    shift_XO: Tensor | None
    rules: Sequence[Span]

    def products(self, x_NI: Tensor, counts: Sequence[int]) -> Tensor:
        """Each run of rows times its expert's matrix: [N, O]."""
        y_NO = torch.empty(x_NI.shape[0], self.matrix.out_features, dtype=x_NI.dtype, device=x_NI.device)
        start = 0
        for expert, count in enumerate(counts):
            if not count:
                continue
            end, first = start + count, 0
            for x, piece_OI in self._pieces(x_NI[start:end], expert):
                last = first + piece_OI.shape[0]
                shift = None if self.shift_XO is None else self.shift_XO[expert, first:last]
                multiply(x, piece_OI, shift, y_NO[start:end, first:last])
                first = last
            start = end
        return y_NO

    def _pieces(self, x_NI: Tensor, expert: int) -> Iterator[tuple[Tensor, Tensor]]:
        """An expert's matrix as it lies, and what each piece sees: joining its parts would copy them for every use."""
        stored = self.matrix.storage()
        if isinstance(stored, DenseStored):
            yield from ((x_NI, piece_OI) for piece_OI in stored.expert_pieces(expert))
            return
        weight_OI = stored.expert(expert)
        for span in self.rules:
            yield span.seen(x_NI, expert), weight_OI[span.first : span.last]


@define(eq=False)
class _GroupedMlp:
    """The kernel of one layer."""

    op: Experts
    gate_up: _Stack
    down: _Stack
    reads_host: ClassVar[bool] = True

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (x_TD, weights_TK, ids_TK), (out_TD,) = inputs, outputs
        step = max(1, MAX_PAIRS // ids_TK.shape[1])
        for start in range(0, x_TD.shape[0], step):
            part = slice(start, start + step)
            self._tokens(x_TD[part], weights_TK[part], ids_TK[part], out_TD[part])

    def _tokens(self, x_TD: Tensor, weights_TK: Tensor, ids_TK: Tensor, out_TD: Tensor) -> None:
        tokens, top_k = ids_TK.shape
        order_N = ids_TK.flatten().argsort(stable=True)
        counts = torch.bincount(ids_TK.flatten(), minlength=self.gate_up.matrix.experts or 0).tolist()
        x_ND = x_TD[order_N // top_k]
        both_NF = self.gate_up.products(x_ND, counts)
        y_ND = self.down.products(self._gated(both_NF), counts)
        y_TKD = torch.empty_like(y_ND)
        y_TKD[order_N] = y_ND
        made_TKD = y_TKD.view(tokens, top_k, self.op.features).float()
        out_TD.copy_(torch.bmm(weights_TK.unsqueeze(1), made_TKD)[:, 0])

    def _gated(self, both_NF: Tensor) -> Tensor:
        if not isinstance(self.op.gate, GatedActivate):
            return self.op.gate.reference(None, (), both_NF)[0]
        gate, up = both_NF.chunk(2, dim=-1)
        h_NF = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
        gate_into(self.op.gate.act)(gate, up, h_NF)
        return h_NF
