# SPDX-License-Identifier: Apache-2.0
"""A run of planes as the kernels take it, and the shapes of launches. Legend: M tokens, O outputs, I inputs."""

from __future__ import annotations

from typing import Any

import torch
import triton
from attrs import evolve, frozen
from torch import Tensor

from tramontane.backends.base import DenseStored
from tramontane.ops.activations import Span, spans
from tramontane.weights import Matrix
from tramontane_backend_cuda.codes import LANES, VECTOR
from tramontane_backend_cuda.decoders import Pieces, tile_inputs
from tramontane_backend_cuda.planes import DenseForm, Form
from tramontane_backend_cuda.product import expand, product
from tramontane_backend_cuda.storage import PlaneStored
from tramontane_backend_cuda.tasks import PROGRAMS

MAX_FEW = 64
"""Up to so many tokens a product reads the planes; above, the matrix is expanded and cuBLAS multiplies."""
MAX_MANY = 256
"""The same for bytes whose pieces are whole."""
MAX_SLOW = 32
"""The same for small pieces, and for layouts without."""
MAX_SPLITS = 16
PIECE_PROGRAMS = 528
"""Programs worth having with pieces: four on each multiprocessor, since one waits for its copies in turns."""
PIECE_BYTES = 128
"""Bytes of a row that a program reads at a time: a line of the cache, where a scale belongs to so many."""
ONE_SHAPE = (64, 4, 3)
"""Outputs, warps and tiles under way where one token's groups are columns. Not measured on a card."""
FEW_SHAPES = {
    (False, 16, True): (32, 2, 3), (False, 32, True): (64, 4, 3), (False, 64, True): (64, 4, 4),
    (False, 16, False): (32, 2, 3), (False, 32, False): (64, 4, 3), (False, 64, False): (32, 2, 4),
    (True, 16, True): (64, 4, 3), (True, 32, True): (64, 4, 3), (True, 64, True): (128, 8, 3),
    (True, 16, False): (64, 4, 3), (True, 32, False): (64, 4, 3), (True, 64, False): (64, 4, 3),
}  # fmt: skip
"""The same for several tokens, by whether they are 32 or more, codes of a piece, and whether codes share bytes: as
sweeps on a card found them, before scales were read ahead. Wide tiles hold as much as registers do, so that activations
are read by as few programs as possible."""
ONE_CHUNKS = 128
"""Chunks of a tile for one token: as many as a program has threads. With fewer, a thread would hold less than a chunk
of the activations but whole chunks of codes, and the two would meet through shared memory."""


@frozen
class Tiles:
    """Shape of a launch: tokens and outputs of a tile, its chunks of inputs, splits, chunks of a split."""

    bm: int
    bn: int
    bg: int
    splits: int
    reach: int


def few_chunks(chunks: int, *, packed: bool) -> int:
    """Chunks of a tile for several tokens, where there are no pieces. With more of packed codes the compiler runs out
    of registers."""
    return max(2, min(8 if packed else 16, triton.next_power_of_2(chunks)))


def choose_tiles(tokens: int, outputs: int, source: Source, *, gated: bool = False) -> Tiles:
    """Tiles from the shape alone, so that equal steps give equal bits. Token buckets: 1, 2-16, 17-32, 33-64; with
    pieces 1-8, 9-16, 17-32, 33-64, and tiles of 128 above."""
    bm = source.rows_of_a_tile(tokens)
    bg = source.chunks_of_a_tile(bm)
    bn = source.shape_of_a_tile(bm)[0]
    if gated and source.in_pieces(bm):
        bn //= 2
    programs, steps = triton.cdiv(outputs, bn), triton.cdiv(source.chunks, bg)
    wanted = PIECE_PROGRAMS if source.in_pieces(bm) else PROGRAMS
    splits = max(1, min(MAX_SPLITS, wanted // programs, steps)) if tokens <= bm else 1
    each = triton.cdiv(steps, splits)
    return Tiles(bm, bn, bg, triton.cdiv(steps, each), each * bg)


@frozen(kw_only=True, eq=False)
class Extras:
    """What comes before and after a product.

    Attributes:
        bias: [O].
        gate: The activation by which the first half of the outputs gates the other.
        residual: Added to the rounded result: [M, O].
        norm: Weights [I] by which rows are multiplied, after division by their root mean square over ``eps``.
    """

    bias: Tensor | None = None
    gate: str = ""
    residual: Tensor | None = None
    norm: Tensor | None = None
    eps: float = 0.0
    late: bool = False
    """The norm's result is multiplied by the weights before it is rounded; of no account where the two are fused."""


PLAIN = Extras()


@frozen(eq=False)
class Source:
    """A run, or a range of its outputs, and what its matrix sees of the activations."""

    first: int
    outputs: int
    inputs: int
    chunks: int
    pointers: tuple[Tensor, ...]
    """codes, high, scale, zero, factor, low_factor, table. What a form does not have is never read."""
    strides: tuple[int, int]
    rules: dict[str, Any]
    """What kernels that decode have to know of the layout."""
    pieces: dict[str, Any]
    """What those have to know besides that multiply in pieces."""
    one: dict[str, Any]
    """The same for one token."""
    span: Span | None = None
    """The rule for activations, where there is one."""
    dense: Tensor | None = None
    """The weight, where it is numbers."""
    arrived: Tensor | None = None
    """Splits of each tile that are done, int32: zero between launches."""

    @classmethod
    def of(cls, form: Form, planes: dict[str, Tensor], first: int, outputs: int, inputs: int) -> Source:
        """Of planes."""
        codes = planes["codes"]
        dense = codes if isinstance(form, DenseForm) else None
        lanes = LANES if dense is None else VECTOR // dense.element_size()
        names = ("codes", "high", "scale", "zero", "factor", "low_factor")
        table = torch.tensor(form.values, dtype=torch.float32, device=codes.device) if form.values else codes
        rules = {
            "CODES": form.codes, "TABLE": form.table, "LOW": form.packing.low, "HIGH": form.packing.high,
            "LANES": lanes, "SCALE": form.scale, "ZERO": form.zero, "GROUP": form.group, "ROWS": form.rows,
            "MIDDLE": form.middle, "SUPERS": form.supers,
        }  # fmt: skip
        pieces, one = Pieces.of(form, inputs).rules, Pieces.of_one(form, inputs).rules
        chunks = triton.cdiv(inputs, lanes) if dense is not None else codes.shape[-1] // LANES
        groups = planes["scale"].shape[-1] if "scale" in planes else 0
        supers = planes["factor"].shape[-1] if "factor" in planes else 0
        pointers = (*(planes.get(name, codes) for name in names), table)
        arrived = torch.zeros(triton.cdiv(outputs, 4), dtype=torch.int32, device=codes.device)
        return cls(
            first, outputs, inputs, chunks, pointers, (groups, supers), rules, pieces, one, dense=dense, arrived=arrived
        )

    @property
    def most(self) -> int:
        """Tokens up to which the planes are read."""
        if self.pieces["PIECE"] < 64:
            return MAX_SLOW
        return MAX_FEW if self.packed or self.dense is not None else MAX_MANY

    @property
    def plain(self) -> Source:
        """The same matrix, multiplied without pieces."""
        return evolve(self, pieces=Pieces().rules, one=Pieces().rules)

    @property
    def packed(self) -> bool:
        """Several codes share a byte."""
        return bool(self.rules["LOW"] < 8)

    def rows_of_a_tile(self, tokens: int) -> int:
        """BM: a power of two that tensor cores take; 1 where they are not used, or a token's groups are its columns."""
        if tokens == 1 and (self.dense is not None or not self.pieces["PIECE"] or self.one["PIECE"]):
            return 1
        least = 8 if self.pieces["PIECE"] else 16
        return next((size for size in (least, 16, 32, 64) if tokens <= size), 128)

    def pieces_of(self, rows: int) -> dict[str, Any]:
        """What kernels have to know that multiply tiles of so many rows."""
        return self.pieces if rows > 1 else self.one

    def in_pieces(self, rows: int) -> bool:
        """Whether tensor cores multiply tiles of so many rows."""
        return bool(self.pieces_of(rows)["PIECE"])

    def shape_of_a_tile(self, rows: int) -> tuple[int, int, int]:
        """BN, warps, and tiles under way at a time, for tiles of so many rows."""
        piece, packed = self.pieces["PIECE"], self.packed
        if not self.in_pieces(rows):
            return (32, 4, 3) if rows > 1 else (8 if self.rules["LOW"] == 4 else 4, 4, 3)
        return ONE_SHAPE if rows == 1 else FEW_SHAPES[rows >= 32, piece, packed]

    def chunks_of_a_tile(self, rows: int) -> int:
        """BG, for tiles of so many rows."""
        piece, lanes = self.pieces["PIECE"], self.rules["LANES"]
        if not self.in_pieces(rows):
            return ONE_CHUNKS if rows == 1 else few_chunks(self.chunks, packed=self.packed)
        if rows == 1:
            chunk = lanes * 8 // self.rules["LOW"]
            return tile_inputs(self.rules["GROUP"], chunk, self.inputs) // chunk
        most = min(4, PIECE_BYTES // (piece * self.pointers[0].element_size())) if rows <= 64 else 1
        each = piece // lanes
        return next(count * each for count in (4, 2, 1) if count <= max(1, most) and self.chunks % (count * each) == 0)

    def few(self, x_MI: Tensor, y_MO: Tensor, extras: Extras = PLAIN) -> None:
        """Multiply by the planes, for at most :attr:`most` tokens."""
        tokens, width = x_MI.shape[0], self.outputs // 2 if extras.gate else self.outputs
        tiles = choose_tiles(tokens, width, self, gated=bool(extras.gate))
        programs, split = triton.cdiv(width, tiles.bn), tiles.splits > 1
        _, warps, stages = self.shape_of_a_tile(tiles.bm)
        room = programs * tiles.splits * tiles.bm * (2 * tiles.bn + 1) if split else 1
        parts = x_MI.new_empty(room, dtype=torch.float32)
        bias, residual, norm = (x_MI if one is None else one for one in (extras.bias, extras.residual, extras.norm))
        product[(programs, tiles.splits, triton.cdiv(tokens, tiles.bm))](
            x_MI, *self.pointers, norm, bias, residual, y_MO, parts, self.arrived,
            tokens, self.inputs, self.outputs, self.chunks, *self.strides, tiles.reach, width, extras.eps,
            x_MI.stride(0), residual.stride(0), y_MO.stride(0),
            **self.rules, **self.pieces_of(tiles.bm), NORM=extras.norm is not None, BIAS=extras.bias is not None,
            GATE=extras.gate, RESIDUAL=extras.residual is not None, SPLIT=split, BM=tiles.bm, BN=tiles.bn, BG=tiles.bg,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip

    def expanded(self, dtype: torch.dtype) -> Tensor:
        """The weight [O, I]; where it is numbers of that type, the tensor itself."""
        if self.dense is not None and self.dense.dtype is dtype:
            return self.dense
        y = self.pointers[0].new_empty(self.outputs, self.inputs, dtype=dtype)
        self.expand_into(y)
        return y

    def expand_into(self, y: Tensor, ids: Tensor | None = None, times: float | None = None) -> None:
        """Write the first rows of the weight, or those of ``ids``, times a factor."""
        count, bn = y.shape[0], 32 if self.pieces["PIECE"] else 8
        bg = self.chunks_of_a_tile(bn) if self.pieces["PIECE"] else min(32, triton.next_power_of_2(self.chunks))
        if count:
            expand[(triton.cdiv(count, bn), triton.cdiv(self.chunks, bg))](
                self.pointers[0] if ids is None else ids, *self.pointers, y, count, self.inputs, self.chunks,
                *self.strides, 1.0 if times is None else times,
                **self.rules, **self.pieces, GATHER=ids is not None, TIMES=times is not None, BN=bn, BG=bg,
            )  # fmt: skip

    def seen(self, x_MI: Tensor) -> Tensor:
        """The activations as these outputs see them."""
        return x_MI if self.span is None else self.span.seen(x_MI)


def sources(matrix: Matrix) -> list[Source] | str:
    """The runs of a loaded matrix, cut where another rule for activations begins; or why kernels cannot read it."""
    stored = matrix.storage()
    if isinstance(stored, DenseStored):
        return _dense(stored)
    if not isinstance(stored, PlaneStored):
        return f"its matrix is stored {stored.layout}, not in planes"
    inputs = matrix.in_features
    whole = [Source.of(run.form, run.planes, run.first, run.outputs, inputs) for run in stored.runs]
    rules = spans(matrix)
    if all(span.act.kind == "none" for span in rules):
        return whole
    found = []
    for run, source in zip(stored.runs, whole, strict=True):
        for span in rules:
            first, last = max(span.first, run.first), min(span.last, run.first + run.outputs)
            if first < last:
                if first == run.first and last == run.first + run.outputs:
                    found.append(evolve(source, span=span))
                elif (first - run.first) % run.form.rows:
                    return "its rules for activations change inside a block of outputs"
                else:
                    found.append(_cut(run.form, run.planes, first - run.first, first, last - first, inputs, span))
    return found


def _cut(
    form: Form, planes: dict[str, Tensor], start: int, first: int, outputs: int, inputs: int, span: Span
) -> Source:  # fmt: skip
    """A range of a run's outputs."""
    some = {
        name: one[start // form.rows :] if name == "scale" else one[start : start + outputs]
        for name, one in planes.items()
    }
    return evolve(Source.of(form, some, first, outputs, inputs), span=span)


def _dense(stored: DenseStored) -> list[Source] | str:
    found, first = [], 0
    for piece in stored.pieces:
        outputs, inputs = piece.shape[-2:]
        if piece.dim() != 2 or inputs % (VECTOR // piece.element_size()) or not piece.is_contiguous():
            return "its rows are not whole vectors of 16 bytes"
        found.append(Source.of(DenseForm(codes="dense", scale="none"), {"codes": piece}, first, outputs, inputs))
        first += outputs
    return found
