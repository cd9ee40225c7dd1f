# SPDX-License-Identifier: Apache-2.0
"""Linear ops on planes: which kernel, which tiles, how many splits. Legend: M tokens, O outputs, I inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import GatedActivate, Kernel, Linear, LinearGated, Op
from tramontane_backend_cuda.decode import FUNCTIONS
from tramontane_backend_cuda.product import expand, finish, product
from tramontane_backend_cuda.rows import rows_of
from tramontane_backend_cuda.storage import PlaneStored, Run

MAX_FEW = 64
"""Up to so many tokens a product reads the planes; above, the matrix is expanded and cuBLAS multiplies."""
PROGRAMS = 264
"""Programs worth having at once: two on each of the 132 multiprocessors of a Hopper card."""
MAX_SPLITS = 16


@frozen
class Tiles:
    """Shape of a launch: tokens, outputs and codes of a tile, splits of the inputs, steps of a split."""

    bm: int
    bn: int
    bk: int
    splits: int
    reach: int


def choose_tiles(tokens: int, outputs: int, inputs: int, *, pairs: bool) -> Tiles:
    """Tiles from the shape alone, so that equal steps give equal bits. Token buckets: 1, 2-4, 5-16, 17-32, 33-64."""
    steps = -(-inputs // 2) if pairs else inputs
    bm = next(size for size in (1, 4, 16, 32, 64) if tokens <= size)
    bn, bk = {1: (16, 256), 4: (16, 128)}.get(bm, (32, 64))
    bk = max(16, min(bk, triton.next_power_of_2(steps)))
    programs = triton.cdiv(outputs, bn)
    tiles = triton.cdiv(steps, bk)
    splits = max(1, min(MAX_SPLITS, PROGRAMS // programs, tiles))
    each = triton.cdiv(tiles, splits)
    return Tiles(bm, bn, bk, triton.cdiv(tiles, each), each * bk)


@frozen(eq=False)
class _Source:
    """A run as the kernels take it."""

    first: int
    outputs: int
    inputs: int
    pointers: tuple[Tensor, ...]
    strides: tuple[int, int]
    rules: dict[str, Any]

    @classmethod
    def of(cls, run: Run, inputs: int) -> _Source:
        form, planes = run.form, run.planes
        some = planes["codes"]
        names = ("codes", "high", "scale", "zero", "factor", "low_factor")
        groups = planes["scale"].shape[-1]
        supers = planes["factor"].shape[-1] if "factor" in planes else 0
        rules = {
            "CODES": form.codes, "RULE": form.rule, "GROUP": form.group, "ROWS": form.rows, "MIDDLE": form.middle,
            "LOW": form.low, "PAIRS": form.pairs,
        }  # fmt: skip
        # A plane that a form does not have is never read; any pointer stands for it.
        return cls(
            run.first, run.outputs, inputs, tuple(planes.get(name, some) for name in names), (groups, supers), rules
        )

    def few(self, x_MI: Tensor, bias: Tensor | None, y: Tensor, tiles: Tiles, *, partial: bool) -> None:
        """Multiply by the planes, into ``y`` [M, O] or partial sums [S, M, O]."""
        product[(triton.cdiv(self.outputs, tiles.bn), tiles.splits)](
            x_MI, *self.pointers, x_MI if bias is None else bias, y,
            x_MI.shape[0], self.inputs, self.outputs, x_MI.stride(0), y.stride(-2), *self.strides, tiles.reach,
            **self.rules, BIAS=bias is not None, PARTIAL=partial, BM=tiles.bm, BN=tiles.bn, BK=tiles.bk,
        )  # fmt: skip

    def expanded(self, dtype: torch.dtype) -> Tensor:
        """The weight [O, I]."""
        y = torch.empty(self.outputs, self.inputs, dtype=dtype, device=self.pointers[0].device)
        steps = -(-self.inputs // 2) if self.rules["PAIRS"] else self.inputs
        grid = (triton.cdiv(self.outputs, 16), triton.cdiv(steps, 128))
        expand[grid](*self.pointers, y, self.inputs, self.outputs, *self.strides, **self.rules, BN=16, BK=128)
        return y


def _add_up(parts: Tensor, bias: Tensor | None, y: Tensor, gate: str) -> None:
    splits, tokens, outputs = parts.shape
    half = outputs // 2
    grid = (tokens, triton.cdiv(half if gate else outputs, 256))
    finish[grid](
        parts, parts if bias is None else bias, y, tokens, outputs, y.stride(0), splits, half,
        BIAS=bias is not None, GATE=gate, BN=256,
    )  # fmt: skip


def _multiply(source: _Source, x_MI: Tensor, bias: Tensor | None, y_MO: Tensor) -> None:
    """One run into its columns of the output."""
    tokens = x_MI.shape[0]
    if tokens > MAX_FEW:
        made = torch.mm(x_MI, source.expanded(x_MI.dtype).t())
        y_MO.copy_(made if bias is None else made.add_(bias))
        return
    tiles = choose_tiles(tokens, source.outputs, source.inputs, pairs=source.rules["PAIRS"])
    if tiles.splits == 1:
        source.few(x_MI, bias, y_MO, tiles, partial=False)
        return
    parts = torch.empty(tiles.splits, tokens, source.outputs, dtype=torch.float32, device=x_MI.device)
    source.few(x_MI, None, parts, tiles, partial=True)
    _add_up(parts, bias, y_MO, "")


def _sources(weights: Sequence[Any]) -> list[_Source] | str:
    stored = weights[0].storage()
    if not isinstance(stored, PlaneStored):
        return f"its matrix is stored {stored.layout}, not in planes"
    return [_Source.of(run, stored.matrix.in_features) for run in stored.runs]


def linear(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """One launch per run of equal parts, each into its columns of the output."""
    if not isinstance(op, Linear):
        return f"made for linear, not {op.name}"
    sources = _sources(weights)
    if isinstance(sources, str):
        return sources
    shift = weights[1].tensor if op.bias else None

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        x_MI, y_MO = rows_of(inputs[0]), outputs[0].view(-1, outputs[0].shape[-1])
        for source in sources:
            place = slice(source.first, source.first + source.outputs)
            _multiply(source, x_MI, None if shift is None else shift[place], y_MO[:, place])

    return run


def linear_gated(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """The gate in the step that adds the partial sums."""
    if not isinstance(op, LinearGated) or op.linear.out_dtype is not None:
        return "made for a linear that keeps its input's type"
    sources = _sources(weights)
    if isinstance(sources, str):
        return sources
    shift, gate = weights[1].tensor if op.linear.bias else None, FUNCTIONS[op.gate.act]
    if len(sources) > 1:
        return "gate and up are stored by different schemes"
    (source,), width = sources, op.linear.out_features
    if width % 2:
        return "gate and up differ in size"
    apart = GatedActivate(op.gate.act)

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        x_MI, y_MO = rows_of(inputs[0]), outputs[0].view(-1, outputs[0].shape[-1])
        tokens = x_MI.shape[0]
        if tokens > MAX_FEW:
            both = torch.empty(tokens, width, dtype=x_MI.dtype, device=x_MI.device)
            _multiply(source, x_MI, shift, both)
            y_MO.copy_(apart.reference(ctx, (), both)[0])
            return
        tiles = choose_tiles(tokens, width, source.inputs, pairs=source.rules["PAIRS"])
        parts = torch.empty(tiles.splits, tokens, width, dtype=torch.float32, device=x_MI.device)
        source.few(x_MI, None, parts, tiles, partial=True)
        _add_up(parts, shift, y_MO, gate)

    return run
