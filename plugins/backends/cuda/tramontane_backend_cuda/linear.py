# SPDX-License-Identifier: Apache-2.0
"""Linear ops: which kernel multiplies, and what is fused into it. Legend: M tokens, O outputs, I inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import Embed, Kernel, Linear, LinearGated, Op
from tramontane_backend_cuda.decode import FUNCTIONS
from tramontane_backend_cuda.fused import LinearAdd, NormLinear
from tramontane_backend_cuda.norm import gate_rows, norm_rows
from tramontane_backend_cuda.rows import exact, rows_of
from tramontane_backend_cuda.source import PLAIN, Extras, Source, sources

CUBLAS_BYTES = 16 << 20
"""Dense matrices of this size or more are multiplied by cuBLAS, which reads them at 2.7 to 3.7 TB/s on an H200."""
CUBLAS_TOKENS = 16
"""So are dense matrices of any size for more tokens than this."""
FUSED_TOKENS = 16
"""Norms are fused for so many tokens: for more, what is done to every row in every program outweighs a launch."""


def by_planes(source: Source, x_MI: Tensor, extras: Extras) -> bool:
    """Whether Triton multiplies: quantized weights for few tokens, dense ones where cuBLAS is weak; not float32."""
    tokens = x_MI.shape[0]
    if exact(x_MI) or (extras.norm is not None and tokens > FUSED_TOKENS):
        return False
    if source.dense is None:
        return tokens <= source.most
    return tokens <= CUBLAS_TOKENS and source.dense.nbytes < CUBLAS_BYTES


@frozen(eq=False)
class Product:
    """A linear op of one layer: its sources, and what comes before and after."""

    sources: Sequence[Source]
    extras: Extras

    @classmethod
    def of(cls, weights: Sequence[Any], bias: bool, extras: Extras = PLAIN) -> Product | str:
        """Of a matrix and, with ``bias``, a vector; or why kernels cannot multiply."""
        found = sources(weights[0])
        if isinstance(found, str):
            return found
        return cls(found, evolve(extras, bias=weights[1].tensor if bias else None))

    @property
    def outputs(self) -> int:
        """O, before a gate."""
        return sum(source.outputs for source in self.sources)

    def __call__(self, x_MI: Tensor, y_MO: Tensor, residual_MO: Tensor | None = None) -> None:
        """Write the result."""
        extras = evolve(self.extras, residual=residual_MO)
        if not x_MI.shape[0]:
            return
        rounded = any(source.span is not None for source in self.sources)
        fused = not rounded and all(by_planes(source, x_MI, extras) for source in self.sources)
        if extras.norm is not None and not fused:
            x_MI, extras = norm_rows(x_MI, extras.norm, extras.eps, late=extras.late), evolve(extras, norm=None)
        if len(self.sources) == 1 and not rounded and by_planes(self.sources[0], x_MI, extras):
            self.sources[0].few(x_MI, y_MO, extras)
            return
        both = x_MI.new_empty(x_MI.shape[0], self.outputs) if extras.gate else y_MO
        for source in self.sources:
            place = slice(source.first, source.first + source.outputs)
            bias = None if extras.bias is None else extras.bias[place]
            residual = None if residual_MO is None or extras.gate else residual_MO[:, place]
            _multiply(source, x_MI, both[:, place], evolve(extras, bias=bias, gate="", residual=residual))
        if extras.gate:
            gate_rows(both, y_MO, extras.gate)


def _multiply(source: Source, x_MI: Tensor, y_MO: Tensor, extras: Extras) -> None:
    """One source, without a gate, into its columns of the result."""
    x_MI = source.seen(x_MI)
    if by_planes(source, x_MI, extras):
        source.few(x_MI, y_MO, extras)
        return
    weight_IO = source.expanded(x_MI.dtype).t()
    direct = y_MO.dtype is x_MI.dtype and y_MO.is_contiguous()
    made = y_MO if direct else x_MI.new_empty(y_MO.shape)
    if extras.bias is None:
        torch.mm(x_MI, weight_IO, out=made)
    else:
        torch.addmm(extras.bias, x_MI, weight_IO, out=made)
    if extras.residual is not None:
        made.add_(extras.residual)
    if not direct:
        y_MO.copy_(made)


def _kernel(product: Product | str) -> Kernel | str:
    """A kernel of one output, with the residual as its second input if it has two."""
    if isinstance(product, str):
        return product

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        residual = rows_of(inputs[1]) if len(inputs) == 2 else None
        product(rows_of(inputs[0]), outputs[0].view(-1, outputs[0].shape[-1]), residual)

    return run


def linear(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """One launch per run of equal parts, each into its columns of the output."""
    return _kernel(Product.of(weights, op.bias)) if isinstance(op, Linear) else f"made for linear, not {op.name}"


def linear_gated(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """The gate in the launch that multiplies, or in the one that adds partial sums."""
    if not isinstance(op, LinearGated) or op.linear.out_dtype is not None:
        return "made for a linear that keeps its input's type"
    if op.linear.out_features % 2:
        return "gate and up differ in size"
    return _kernel(Product.of(weights, op.linear.bias, Extras(gate=FUNCTIONS[op.gate.act])))


def linear_add(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """The residual in the launch that multiplies."""
    if not isinstance(op, LinearAdd):
        return f"made for linear_add, not {op.name}"
    return _kernel(Product.of(weights, op.linear.bias))


def norm_linear(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """The norm in the launch that multiplies."""
    if not isinstance(op, NormLinear):
        return f"made for norm_linear, not {op.name}"
    inner = op.linear.linear if isinstance(op.linear, LinearGated) else op.linear
    if inner.out_dtype is not None or weights[0].tensor.dim() != 1:
        return "made for a linear that keeps its input's type, after a norm with one weight a feature"
    gate = FUNCTIONS[op.linear.gate.act] if isinstance(op.linear, LinearGated) else ""
    if gate and inner.out_features % 2:
        return "gate and up differ in size"
    extras = Extras(gate=gate, norm=weights[0].tensor, eps=op.norm.eps, late=op.norm.late_cast)
    return _kernel(Product.of(weights[1:], inner.bias, extras))


def embed(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Rows of any layout, and the factor, in one launch."""
    if not isinstance(op, Embed):
        return f"made for embed, not {op.name}"
    found = sources(weights[0])
    if isinstance(found, str):
        return found
    if len(found) != 1:
        return "its rows are in several runs"
    (source,), dtype = found, op.dtype
    factor = None if op.scale is None else torch.tensor(op.scale, dtype=dtype).item()

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        source.expand_into(outputs[0], inputs[0], factor)

    return run
