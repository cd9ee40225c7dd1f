# SPDX-License-Identifier: Apache-2.0
"""Every kernel against its limit: bytes over bandwidth, or operations over the rate of matrix products."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from attrs import evolve

from tramontane import nn, ops
from tramontane_backend_cuda import attention as attending
from tramontane_backend_cuda import source
from tramontane_backend_cuda.bench.cases import (
    FORMATS,
    Bench,
    Case,
    attention,
    deltas,
    experts,
    latents,
    linears,
    norms,
    prologue,
)
from tramontane_backend_cuda.bench.clock import Clock
from tramontane_backend_cuda.bench.draws import draws
from tramontane_backend_cuda.bench.inputs import step_inputs
from tramontane_backend_cuda.bench.jobs import Job
from tramontane_backend_cuda.bench.limits import Card, Line

CLOSE = 0.02
"""Largest relative difference from float64 that counts as right: bfloat16 results, perhaps rounded twice."""
SHAPES = ((4096, 4096), (6144, 4096), (4096, 14336))
GATED = (28672, 4096)
TOKENS = (1, 4, 16, 64, 512)


Maker = tuple[str, Callable[[], Iterator[Case]]]
"""Makes cases; and what it is called if it fails."""


def _named(name: str, make: Callable[..., Iterator[Case]], *args: object, **options: object) -> Maker:
    return name, partial(make, *args, **options)


def jobs(bench: Bench, clock: Clock, card: Card, match: str = "") -> Iterator[Job]:
    """One job per group of cases whose name matches."""
    for name, make in _makers(bench, smoke=not clock.real):
        if re.search(match, name):
            yield Job("kernel", name, "us", partial(_lines, make, clock, card))


TRIED = ((64, 4, 3), (64, 4, 4), (64, 2, 3), (32, 2, 3), (32, 2, 4), (128, 4, 3), (128, 8, 3))
"""Outputs, warps and tiles under way to try for one token, and for a few."""
FEW = (4, 16, 64)
"""How many a few are."""


def sweeps(bench: Bench, clock: Clock, card: Card, match: str = "") -> Iterator[Job]:
    """Tiles of several shapes: a job per format and matrix, for one token and for a few; then where the tasks of a tile
    are joined."""
    shapes = ((48, 256),) if not clock.real else (*SHAPES, GATED)
    for name in FORMATS:
        for shape in shapes if name != "bf16" else ():
            for what, tokens in (("sweep", (1,)), ("sweep few", FEW if clock.real else FEW[:1])):
                job = f"{what} {name} {shape[0]}x{shape[1]}"
                if re.search(match, job):
                    yield Job("sweep", job, "us", partial(_swept, bench, clock, card, name, shape, tokens))
    for name, make in _joins(bench, smoke=not clock.real):
        if re.search(match, f"sweep {name}"):
            yield Job("sweep", f"sweep {name}", "us", partial(_joined, make, clock, card))


def _swept(
    bench: Bench, clock: Clock, card: Card, name: str, shape: tuple[int, int], tokens: Sequence[int]
) -> Iterator[Line]:
    one, few = source.ONE_SHAPE, dict(source.FEW_SHAPES)
    try:
        for tried in TRIED if clock.real else TRIED[:1]:
            source.ONE_SHAPE = tried
            source.FEW_SHAPES.update(dict.fromkeys(few, tried))
            outputs, warps, stages = tried
            for case in linears(bench, name, *shape, tokens, gated=shape == GATED):
                line = _line(case, clock, card)
                yield evolve(
                    line, section="sweep", what=f"{line.what}: {outputs} outputs, {warps} warps, {stages} tiles"
                )
    finally:
        source.ONE_SHAPE = one
        source.FEW_SHAPES.update(few)


def _joins(bench: Bench, *, smoke: bool) -> Iterator[Maker]:
    """Rows that are cut along their keys, with few and many features to join."""
    for query, kv, dim in ((4, 2, 16),) if smoke else ((32, 8, 128), (64, 8, 128), (32, 4, 128), (16, 2, 256)):
        for rows, keys in ((1, 140),) if smoke else ((1, 1024), (1, 4096), (1, 16384), (8, 4096)):
            name = f"join {query}/{kv}x{dim} rows={rows} keys={keys}"
            yield _named(name, attention, bench, nn.Heads(query, kv, dim), rows, keys)
    for keys in () if smoke else (1024, 16384):
        yield _named(f"join latents keys={keys}", latents, bench, 16, 1, keys)


def _joined(make: Callable[[], Iterator[Case]], clock: Clock, card: Card) -> Iterator[Line]:
    usual = attending.JOIN_ELEMENTS
    try:
        for how, most in (("by the last task", 1 << 16), ("by a launch", 0)):
            attending.JOIN_ELEMENTS = most
            for line in _lines(make, clock, card):
                yield evolve(line, section="sweep", what=f"{line.what}: joined {how}")
    finally:
        attending.JOIN_ELEMENTS = usual


def _lines(make: Callable[[], Iterator[Case]], clock: Clock, card: Card) -> Iterator[Line]:
    for case in make():
        yield _line(case, clock, card)


def _line(case: Case, clock: Clock, card: Card) -> Line:
    off = case.compare() if case.compare else None
    check = "not compared" if off is None else "ok" if off <= CLOSE else f"off by {off:.2g}"
    seconds = clock.seconds(case.works)
    limit = max(case.nbytes / card.bytes_per_s, case.flops / card.flops_per_s)
    return Line(
        section="kernel", what=case.name, value=seconds * 1e6, unit="us", limit=limit * 1e6, lower_is_better=True,
        check=check,
    )  # fmt: skip


def _makers(bench: Bench, *, smoke: bool) -> Iterator[Maker]:
    formats = ("bf16", "fp8", "q8_0", "affine4 g128") if smoke else tuple(FORMATS)
    shapes, gated = (((48, 256),), (64, 256)) if smoke else (SHAPES, GATED)
    tokens = (1, 3) if smoke else TOKENS
    for name in formats:
        for outputs, inputs in shapes:
            yield _named(
                f"linear {name} {outputs}x{inputs}", linears, bench, name, outputs, inputs, tokens, gated=False
            )
        yield _named(f"gate+up {name}", linears, bench, name, *gated, tokens, gated=True)
    yield _named("norms", norms, bench, 64 if smoke else 4096, tokens)
    heads = nn.Heads(4, 2, 16) if smoke else nn.Heads(32, 8, 128)
    lengths = ((1, 40, 1), (3, 20, 4)) if smoke else (
        (1, 1024, 1), (1, 16384, 1), (16, 1024, 1), (256, 1024, 1), (8, 8192, 1), (1, 4096, 4096), (8, 1024, 64)
    )  # fmt: skip
    for rows, keys, new in lengths:
        yield _named(f"attention rows={rows} keys={keys}", attention, bench, heads, rows, keys, new)
    for rows, keys in ((1, 40),) if smoke else ((1, 1024), (1, 16384), (64, 4096)):
        for kept in (torch.float8_e4m3fn, torch.int8):
            yield _named(f"attention {kept} rows={rows} keys={keys}", attention, bench, heads, rows, keys, kept=kept)
    for count, rows, keys in ((3, 2, 40),) if smoke else ((16, 1, 1024), (16, 1, 16384), (128, 16, 1024)):
        yield _named(f"latents heads={count} rows={rows} keys={keys}", latents, bench, count, rows, keys)
    size = {"key_heads": 2, "value_heads": 4, "key_dim": 16, "value_dim": 16} if smoke else {
        "key_heads": 16, "value_heads": 32, "key_dim": 128, "value_dim": 128}  # fmt: skip
    for rows, new in ((2, 1), (1, 70)) if smoke else ((1, 1), (64, 1), (1, 8), (1, 16), (1, 64), (8, 64), (1, 512),
                                                      (1, 4096)):  # fmt: skip
        yield _named(f"delta rule rows={rows} new={new}", deltas, bench, ops.GatedDelta(**size), rows, new)
    for count in (3,) if smoke else (1, 64, 256):
        yield _named("norms+rope+write", prologue, bench, heads, count)
    moe = (64, 32, 4, 2) if smoke else (2048, 768, 128, 8)
    for name in ("bf16",) if smoke else ("bf16", "fp8", "q4_k"):
        yield _named(f"experts {name}", experts, bench, name, *moe, (1, 3) if smoke else (1, 4, 16, 64, 1024))
    for rows, vocab in ((2, 300),) if smoke else ((1, 151_936), (16, 151_936), (256, 128_256)):
        yield _named(f"draws rows={rows}", draws, bench, rows, vocab)
    for rows, keys, longest in ((3, 40, 96),) if smoke else ((1, 1024, 4096), (64, 1024, 4096), (256, 4096, 32768)):
        yield _named(f"inputs rows={rows}", step_inputs, bench, rows, keys, longest)
