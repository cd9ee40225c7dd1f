# SPDX-License-Identifier: Apache-2.0
"""Experts: which launches make them. The kernels are in :mod:`.experts_kernels`.

Legend: T tokens, D hidden size, F intermediate size, X experts, K experts of a token, N = T * K pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from attrs import define, evolve, field
from torch import Tensor

from tramontane.backends.base import DenseStored
from tramontane.batch import Ctx
from tramontane.ops import ClampedSwiglu, Experts, GatedActivate, Kernel, Op
from tramontane.schemes import NO_ACT, Act
from tramontane.schemes.activations import rounded_activations
from tramontane.weights import Matrix
from tramontane_backend_cuda.codes import VECTOR
from tramontane_backend_cuda.decode import FUNCTIONS
from tramontane_backend_cuda.experts_kernels import count_pairs, down_pairs, down_token, mix_pairs, sort_pairs, up_pairs
from tramontane_backend_cuda.planes import DenseForm
from tramontane_backend_cuda.rows import exact, rows_of
from tramontane_backend_cuda.source import Source
from tramontane_backend_cuda.storage import PlaneStored

FEW_TOKENS = 4
"""Up to so many tokens each pair is multiplied by itself: experts that two tokens share are read twice."""
MAX_PAIRS = 32768
"""Pairs at a time: bounds the memory between the products."""


@define(eq=False)
class _Experts:
    """The kernel of one layer."""

    op: Experts
    up: Source
    down: Source
    acts: tuple[Act, Act]
    biases: Sequence[Tensor] = field(repr=False)
    gate: tuple[str, float, float]
    """The gate's name, and alpha and limit of a clamped one."""
    experts: int

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (x_TD, weights_TK, ids_TK), (y_TD,) = inputs, outputs
        x_TD, weights_TK, ids_TK = rows_of(x_TD), weights_TK.contiguous(), ids_TK.contiguous()
        step = max(1, MAX_PAIRS // ids_TK.shape[1])
        kernel = evolve(self, up=self.up.plain, down=self.down.plain) if exact(x_TD) else self
        for start in range(0, x_TD.shape[0], step):
            part = slice(start, start + step)
            kernel._tokens(x_TD[part], weights_TK[part], ids_TK[part], y_TD[part])

    def _tokens(self, x_TD: Tensor, weights_TK: Tensor, ids_TK: Tensor, y_TD: Tensor) -> None:
        x_TD = rounded_activations(self.acts[0], x_TD)
        if x_TD.shape[0] <= FEW_TOKENS:
            self._few(x_TD, weights_TK, ids_TK, y_TD)
        else:
            self._many(x_TD, weights_TK, ids_TK, y_TD)

    def _few(self, x_TD: Tensor, weights_TK: Tensor, ids_TK: Tensor, y_TD: Tensor) -> None:
        """Pair by pair."""
        tokens, top_k = ids_TK.shape
        h_NF = x_TD.new_empty(tokens * top_k, self.down.inputs)
        self._up(x_TD, ids_TK, ids_TK, ids_TK, h_NF, tokens * top_k, sorted_by=1)
        h_NF = rounded_activations(self.acts[1], h_NF)
        source, tile = self.down, _tile(self.down, 1)
        down_token[(tokens, triton.cdiv(source.outputs, tile["BN"]))](
            h_NF, ids_TK, weights_TK, self._bias(1, h_NF), y_TD, *source.pointers, top_k, source.inputs,
            source.outputs, source.chunks, *source.strides,
            **source.rules, **source.pieces_of(tile["BM"]), BIAS=self.op.bias, **tile,
        )  # fmt: skip

    def _many(self, x_TD: Tensor, weights_TK: Tensor, ids_TK: Tensor, y_TD: Tensor) -> None:
        """Sorted by expert, in tiles."""
        tokens, top_k = ids_TK.shape
        pairs, source = tokens * top_k, self.down
        bm = min(64, max(16, triton.next_power_of_2(pairs // self.experts)))
        tiles = min(pairs, triton.cdiv(pairs, bm) + self.experts)
        counts = ids_TK.new_empty(self.experts)
        order, experts_of = ids_TK.new_empty(tiles * bm), ids_TK.new_empty(tiles)
        count_pairs[(self.experts,)](ids_TK, counts, pairs, B=1024)
        sort_pairs[(self.experts,)](
            ids_TK, counts, order, experts_of, pairs, self.experts, tiles,
            BM=bm, BX=triton.next_power_of_2(self.experts), B=1024,
        )  # fmt: skip
        h_NF = x_TD.new_empty(pairs, source.inputs)
        self._up(x_TD, ids_TK, order, experts_of, h_NF, tiles, sorted_by=bm)
        h_NF = rounded_activations(self.acts[1], h_NF)
        made_ND = x_TD.new_empty(pairs, source.outputs)
        tile = _tile(source, bm)
        down_pairs[(tiles, triton.cdiv(source.outputs, tile["BN"]))](
            h_NF, order, experts_of, self._bias(1, h_NF), made_ND, *source.pointers, pairs, source.inputs,
            source.outputs, source.chunks, *source.strides,
            **source.rules, **source.pieces_of(tile["BM"]), BIAS=self.op.bias, **tile,
        )  # fmt: skip
        mix_pairs[(tokens, triton.cdiv(source.outputs, 1024))](
            made_ND, weights_TK, y_TD, source.outputs, top_k, B=min(1024, triton.next_power_of_2(source.outputs))
        )

    def _up(
        self, x_TD: Tensor, ids_TK: Tensor, order: Tensor, experts_of: Tensor, h_NF: Tensor, programs: int,
        sorted_by: int,
    ) -> None:  # fmt: skip
        """Gate and up, for so many pairs (``sorted_by`` 1) or tiles of ``sorted_by`` sorted pairs."""
        source, (gate, alpha, limit) = self.up, self.gate
        half, tile = source.outputs // 2, _tile(source, sorted_by, gated=True)
        up_pairs[(programs, triton.cdiv(half, tile["BN"]))](
            x_TD, ids_TK, order, experts_of, self._bias(0, x_TD), h_NF, *source.pointers,
            ids_TK.numel(), ids_TK.shape[1], source.inputs, half, source.chunks, *source.strides, alpha, limit,
            x_TD.stride(0),
            **source.rules, **source.pieces_of(tile["BM"]), BIAS=self.op.bias, GATE=gate, SORTED=sorted_by > 1, **tile,
        )  # fmt: skip

    def _bias(self, which: int, some: Tensor) -> Tensor:
        """A bias, or a pointer that is never read."""
        return self.biases[which] if self.op.bias else some


def _tile(source: Source, pairs: int, *, gated: bool = False) -> dict[str, int]:
    """The tile of a program that takes so many pairs of one expert."""
    bm = source.rows_of_a_tile(pairs)
    bg = source.chunks_of_a_tile(bm)
    bn, warps, stages = source.shape_of_a_tile(bm)
    if not source.in_pieces(bm):
        bn = 4 if bm == 1 else bn
    elif gated:
        bn //= 2
    return {"BM": bm, "BN": bn, "BG": bg, "num_warps": warps, "num_stages": stages}


def _stack(matrix: Matrix) -> tuple[Source, Act] | str:
    """A stack as one tall matrix, and the rule for its activations."""
    stored, outputs, inputs = matrix.storage(), matrix.out_features, matrix.in_features
    act = matrix.schemes[0].act if matrix.schemes else NO_ACT
    if any(scheme.act != act for scheme in matrix.schemes) or (act.kind != "none" and act.scale == "static"):
        return "its parts see different activations, or static scales differ by expert"
    if isinstance(stored, DenseStored):
        weight = stored.pieces[0] if len(stored.pieces) == 1 else torch.cat(stored.pieces, dim=-2)
        if inputs % (VECTOR // weight.element_size()):
            return "its rows are not whole vectors of 16 bytes"
        form = DenseForm(codes="dense", scale="none")
        return Source.of(form, {"codes": weight.contiguous().flatten(0, 1)}, 0, outputs, inputs), act
    if not isinstance(stored, PlaneStored):
        return f"its experts are stored {stored.layout}, not in planes"
    if len(stored.runs) != 1:
        return "its parts are stored by different schemes"
    (run,) = stored.runs
    return Source.of(run.form, run.planes, 0, outputs, inputs), act


def experts(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Gather for few tokens, tiles of sorted pairs for more."""
    if not isinstance(op, Experts):
        return f"made for experts, not {op.name}"
    up, down = _stack(weights[0]), _stack(weights[1])
    if isinstance(up, str) or isinstance(down, str):
        return up if isinstance(up, str) else str(down)
    if isinstance(op.gate, GatedActivate):
        gate = (FUNCTIONS[op.gate.act], 0.0, 0.0)
    elif isinstance(op.gate, ClampedSwiglu):
        gate = ("clamped", op.gate.alpha, op.gate.limit)
    else:
        return f"there is no kernel for the gate {op.gate.name}"
    biases = [one.tensor for one in weights[2:]]
    return _Experts(op, up[0], down[0], (up[1], down[1]), biases, gate, weights[0].experts)
