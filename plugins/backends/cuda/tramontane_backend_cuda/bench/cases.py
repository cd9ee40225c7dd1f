# SPDX-License-Identifier: Apache-2.0
"""Single ops to time: each several times over memory of its own, bound as a model binds them.

Legend: T tokens, I inputs, O outputs, D hidden size, H query heads, G key heads, K head dimension, N unrotated and P
rotated features of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from attrs import define, evolve, frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.backends.base import Backend
from tramontane.batch import Ctx, GroupCtx, HostRows
from tramontane.build import Blueprint, Builder
from tramontane.cache.entries import encode, entry_elements, entry_features
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.load.program import bind
from tramontane.ops import BoundOp, Runtime
from tramontane.plugins import Plugins
from tramontane.schemes import Affine, Dense, Float8, Ggml, Scheme
from tramontane_backend_cuda.bench.clock import copies_for
from tramontane_backend_cuda.bench.weights import fill_random

BLOCK = 32
HALF = torch.bfloat16
MOST_KEYS = 1024
"""Keys up to which attention is held against its reference."""
MOST_STEPS = 512
"""Tokens of a row up to which a recurrent layer is."""
MOST_COMPARED = 64
"""Tokens up to which experts are held against their reference."""

FORMATS: Mapping[str, Scheme] = {
    "bf16": Dense(HALF),
    "fp8": Float8("e4m3", "channel"),
    "fp8 128x128": Float8("e4m3", "block", (128, 128)),
    "q8_0": Ggml("q8_0"),
    "q6_k": Ggml("q6_k"),
    "q5_k": Ggml("q5_k"),
    "q4_k": Ggml("q4_k"),
    "q4_0": Ggml("q4_0"),
    "affine8 g128": Affine(bits=8, group=128),
    "affine4 g128": Affine(bits=4, group=128),
}
"""Formats of weights by the name in the table."""


@define(eq=False)
class Case:
    """One op of one size."""

    name: str
    works: Sequence[Callable[[], Any]]
    """The op over each copy of its weights."""
    nbytes: float
    """Read and written by one of them."""
    flops: float
    compare: Callable[[], float] | None
    """Largest difference from the reference in float64, relative to the largest number, outputs poisoned before; or
    nothing, where the reference takes too long."""


@frozen
class Bench:
    """Where ops are made."""

    backend: Backend
    plugins: Plugins

    def builder(self, kept: torch.dtype = HALF) -> Builder:
        """A builder over a blueprint of its own; ``kept``: of cache entries."""
        return Builder(Blueprint(Runtime(self.backend.device), HALF, kept, max_positions=32768))

    def fill(self, b: Builder, scheme: Scheme) -> None:
        """Random weights for everything that was declared, then a kernel for every op."""
        fill_random(b.blueprint, lambda _: scheme, self.backend)
        slots = list(b.blueprint.caches.values())
        if slots:
            layout = plan_layout({slot.path: slot.spec for slot in slots}, BLOCK)
            self.backend.make_cache(layout, slots, self.blocks)
        bind(b.blueprint, self.backend, self.plugins)

    blocks: int = 2

    def normal(self, *shape: int) -> Tensor:
        """Random activations."""
        return torch.randn(*shape, device=self.backend.device).to(HALF)


def difference(call: BoundOp, inputs: Sequence[Tensor], ctx: Ctx | None = None, wanted: Tensor | None = None) -> float:
    """How far a kernel is from the op's reference; 1 where it left something unwritten."""
    outputs = call.allocate(inputs)
    for one in outputs:
        one.fill_(float("nan") if one.is_floating_point() else -1)
    call.run(ctx, inputs, outputs)
    if wanted is None:
        wanted = call.op.reference(ctx, call.weights, *inputs)[0]
    made, exact = outputs[0].double(), wanted.double()
    if not bool(torch.isfinite(made).all()):
        return 1.0
    return float((made - exact).abs().max() / exact.abs().max().clamp(min=1e-30))


def linears(
    bench: Bench, name: str, outputs: int, inputs: int, tokens: Sequence[int], *, gated: bool
) -> Iterator[Case]:
    """Products of a matrix [O, I] in one format with several numbers of tokens."""
    scheme = FORMATS[name]
    nbytes = scheme.nbytes((outputs, inputs))
    b, calls = bench.builder(), []
    for copy in range(copies_for(nbytes)):
        matrix = b.matrix(f"w{copy}", inputs, {f"w{copy}": outputs})
        plain = ops.Linear(outputs)
        op: ops.Op = ops.LinearGated(plain, ops.GatedActivate("silu")) if gated else plain
        calls.append(b.op(op, matrix))
    bench.fill(b, scheme)
    for count in tokens:
        x_TI = bench.normal(count, inputs)
        yield Case(
            f"{'gate+up' if gated else 'linear'} {name} {outputs}x{inputs} T={count}",
            [_call(call, x_TI) for call in calls],
            nbytes + 2.0 * count * (inputs + outputs),
            2.0 * count * outputs * inputs,
            partial(_off_exact, calls[0], x_TI),
        )


def _off_exact(call: BoundOp, x_TI: Tensor) -> float:
    return difference(call, [x_TI], wanted=_exact(call, x_TI))


def _exact(call: BoundOp, x_TI: Tensor) -> Tensor:
    y_TO = x_TI.double() @ call.weights[0].dequantize().double().T
    if not isinstance(call.op, ops.LinearGated):
        return y_TO
    gate, up = y_TO.to(x_TI.dtype).double().chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def _call(call: BoundOp, *inputs: Tensor, ctx: Ctx | None = None) -> Callable[[], Any]:
    return lambda: call(*inputs, ctx=ctx)


def norms(bench: Bench, features: int, tokens: Sequence[int]) -> Iterator[Case]:
    """The norm at a residual junction."""
    b = bench.builder()
    norm = b.rms_norm("norm", features, 1e-5)
    added = norm.added
    if not isinstance(added, BoundOp):
        raise TypeError("a norm whose width is known is added by one op")
    bench.fill(b, Dense(HALF))
    for count in tokens:
        x_TD, residual_TD = bench.normal(count, features), bench.normal(count, features)
        yield Case(
            f"add+norm {features} T={count}",
            [_call(added, x_TD, residual_TD)],
            8.0 * count * features,
            0.0,
            partial(difference, added, [x_TD, residual_TD]),
        )


def fill_cache(b: Builder) -> None:
    """Random entries, everywhere."""
    for slot in b.blueprint.caches.values():
        for plane in slot.planes:
            shape = (*plane.shape[:-1], entry_features(plane.shape[-1], plane.dtype))
            plane.copy_(encode(torch.randn(shape, device=plane.device), plane.dtype))


def attention(
    bench: Bench, heads: nn.Heads, rows: int, keys: int, new: int = 1, kept: torch.dtype = HALF
) -> Iterator[Case]:
    """Rows of ``new`` tokens each, that see ``keys`` keys."""
    b = bench.builder(kept)
    nbytes = 2 * rows * keys * heads.kv * entry_elements(heads.dim, kept) * kept.itemsize
    layers = copies_for(nbytes)
    cores = [b.at(f"layers.{i}").cached_attention(heads) for i in range(layers)]
    blocks = rows * -(-keys // BLOCK)
    Bench(bench.backend, bench.plugins, blocks + 1).fill(b, Dense(HALF))
    fill_cache(b)
    ctx = batch(bench, rows, keys, new)
    q_THK = bench.normal(rows * new, heads.query, heads.dim)
    pairs = rows * new * (keys - (new - 1) / 2)
    yield Case(
        f"attention {heads.query}/{heads.kv}x{heads.dim} {str(kept).removeprefix('torch.')} rows={rows} keys={keys} "
        f"new={new}",
        [_call(core.attend, q_THK, ctx=ctx) for core in cores],
        nbytes + rows * new * heads.query * heads.dim * 4.0,
        4.0 * pairs * heads.query * heads.dim,
        (lambda: difference(cores[0].attend, [q_THK], ctx)) if rows * new <= 64 and keys <= MOST_KEYS else None,
    )


def latents(bench: Bench, heads: int, rows: int, keys: int) -> Iterator[Case]:
    """Decoding rows of latent attention, of DeepSeek's sizes: latents of 512 + 64, heads of 128."""
    b, (rank, rope, dim) = bench.builder(), (512, 64, 128)
    copies = copies_for(rows * keys * (rank + rope) * 2)
    sizes = {"heads": heads, "nope_dim": dim, "rope_dim": rope, "rank": rank, "value_dim": dim}
    cores = [b.at(f"layers.{i}").latent_attention("kv_b", scale=0.1, **sizes) for i in range(copies)]
    Bench(bench.backend, bench.plugins, rows * -(-keys // BLOCK) + 1).fill(b, Dense(HALF))
    fill_cache(b)
    ctx = batch(bench, rows, keys, 1)
    inputs = [bench.normal(rows, heads, dim), bench.normal(rows, heads, rope)]
    yield Case(
        f"latent attention {heads} heads rows={rows} keys={keys}",
        [_call(core.attend, *inputs, ctx=ctx) for core in cores],
        (rows * keys * (rank + rope) + heads * 2 * dim * rank) * 2.0,
        4.0 * rows * keys * heads * (rank + rope),
        (lambda: difference(cores[0].attend, inputs, ctx)) if keys <= MOST_KEYS else None,
    )


def deltas(bench: Bench, rule: ops.GatedDelta, rows: int, new: int) -> Iterator[Case]:
    """The gated delta rule over rows of ``new`` tokens; held against its definition from an empty state."""
    b, heads = bench.builder(), rule.value_heads
    shape = (heads, rule.key_dim, rule.value_dim)
    spec = CacheSpec(kind=CacheKind.STATE, states=((shape, torch.float32),))
    nbytes = 2.0 * rows * heads * rule.key_dim * rule.value_dim * 4
    calls = []
    for copy in range(copies_for(int(nbytes))):
        at = b.at(f"layers.{copy}")
        slot = at.cache(spec)
        slot.states = (torch.randn(rows, *shape, device=bench.backend.device),)
        calls.append(at.op(rule, slot, *(at.param(name, (heads,), dtype=torch.float32) for name in ("a", "shift"))))
    fill_random(b.blueprint, lambda _: Dense(HALF), bench.backend)
    bind(b.blueprint, bench.backend, bench.plugins)
    keys, values = rule.key_heads * rule.key_dim, heads * rule.value_dim
    inputs = [bench.normal(rows * new, width) for width in (keys, keys, values, heads, heads)]
    slots = torch.arange(rows, device=inputs[0].device)
    ctx = evolve(batch(bench, rows, new, new), state_slot_R=slots, state_fresh_R=slots < 0)
    fresh = evolve(ctx, state_fresh_R=slots >= 0)
    yield Case(
        f"delta rule {heads}x{rule.key_dim}x{rule.value_dim} rows={rows} new={new}",
        [_call(call, *inputs, ctx=ctx) for call in calls],
        nbytes + rows * new * 4.0 * (keys + values),
        rows * new * heads * rule.key_dim * rule.value_dim * 6.0,
        (lambda: difference(calls[0], inputs, fresh)) if new <= MOST_STEPS else None,
    )


def prologue(bench: Bench, heads: nn.Heads, tokens: int) -> Iterator[Case]:
    """Norms of queries and keys, rotation and cache write, as one op."""
    b = bench.builder()
    core = b.at("layers.0").cached_attention(heads)
    slot = next(iter(b.blueprint.caches.values()))
    norms = [b.param(f"{name}_norm", (heads.dim,)) for name in "qk"]
    call = b.op(ops.RotateWrite(ops.Rotate(), ops.RmsNorm(1e-6)), slot, *norms)
    Bench(bench.backend, bench.plugins, 2 + tokens).fill(b, Dense(HALF))
    ctx = batch(bench, tokens, 1, 1)
    q, k = bench.normal(tokens, heads.query, heads.dim), bench.normal(tokens, heads.kv, heads.dim)
    inputs = [q, k, k.clone(), torch.rand(tokens, heads.dim, device=q.device)]
    yield Case(
        f"norms+rope+write {heads.query}/{heads.kv}x{heads.dim} T={tokens}",
        [_call(call, *inputs, ctx=ctx)],
        tokens * heads.dim * (4.0 * heads.query + 8.0 * heads.kv + 4.0),
        0.0,
        lambda: difference(call, inputs, ctx),
    )
    del core


def experts(
    bench: Bench, name: str, hidden: int, width: int, count: int, top: int, tokens: Sequence[int]
) -> Iterator[Case]:
    """Router and experts of one layer."""
    b = bench.builder()
    layer = b.moe("mlp", hidden, width, count, ops.Router(top_k=top, normalize=True), act="silu")
    bench.fill(b, FORMATS[name])
    each = sum(matrix.storage().nbytes for matrix in b.blueprint.matrices.values() if matrix.experts) / count
    for rows in tokens:
        x_TD = bench.normal(rows, hidden)
        weights_TK, ids_TK = layer.router(x_TD)
        used = len(set(ids_TK.flatten().tolist()))
        inputs = [x_TD, weights_TK, ids_TK]
        yield Case(
            f"experts {name} {count}x{width} top {top} T={rows}",
            [_call(layer.experts.op, *inputs)],
            used * each + 4.0 * rows * hidden,
            6.0 * rows * top * hidden * width,
            partial(difference, layer.experts.op, inputs) if rows <= MOST_COMPARED else None,
        )
        yield Case(
            f"router {count} top {top} T={rows}", [_call(layer.router, x_TD)], 2.0 * hidden * (count + rows), 0.0,
            partial(difference, layer.router, [x_TD]),
        )  # fmt: skip


def batch(bench: Bench, rows: int, keys: int, new: int) -> Ctx:
    """Rows of equal length whose blocks are scattered."""
    device, width = bench.backend.device, -(-keys // BLOCK)
    table = (1 + torch.randperm(rows * width)).to(torch.int32).view(rows, width)
    position_T = torch.arange(keys - new, keys).repeat(rows)
    row_T = torch.arange(rows).repeat_interleave(new)
    slot_T = table[row_T, position_T // BLOCK].long() * BLOCK + position_T % BLOCK
    starts = [0, *accumulate([new] * rows)]
    on_card = device.type == "cuda"
    return Ctx(
        torch.zeros(rows * new, dtype=torch.int64, device=device),
        position_T.view(1, -1).to(device),
        row_T.to(torch.int32).to(device),
        torch.tensor(starts, dtype=torch.int32, device=device),
        torch.full((rows,), keys, dtype=torch.int32, device=device),
        torch.tensor(starts[1:], device=device) - 1,
        [GroupCtx(table.to(device), slot_T.to(device))],
        host=None if on_card and new == 1 else HostRows(starts, [keys] * rows, [table.tolist()]),
        counts=torch.tensor([rows * new, rows, rows], dtype=torch.int32, device=device),
    )
