# SPDX-License-Identifier: Apache-2.0
"""Norms, rotation and cache entries in one launch, against the references, by Triton's interpreter."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import batch, cache, close, draw, param, run

from tramontane.cache.entries import decode
from tramontane.ops import CacheWrite, LatentWrite, Op, RmsNorm, Rotate, RotateWrite
from tramontane.testing.grids import mostly_full
from tramontane.weights import CacheSlot

ROWS = ((1, 33), (3, 3), (1, 50))
KEPT = [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8]

NORMS = {"plain": None, "norm": RmsNorm(1e-5), "late": RmsNorm(1e-5, late_cast=True)}
FORMS = [(kept, *turn, norm) for kept in KEPT for turn in ((False, 16), (True, 16), (True, 6)) for norm in NORMS]
"""(entries, halves side by side, pairs that turn, norm before)"""
USUAL = FORMS[::5]
"""Every type of entry twice, every turn with every norm but one."""


def same_entries(
    op: Op, weights: tuple[object, ...], slots: tuple[CacheSlot, CacheSlot], *inputs: torch.Tensor
) -> None:
    """Ours and the reference's outputs and planes, both begun with the same contents."""
    ours, theirs = slots
    ctx = batch(ROWS)
    for one, other in zip(theirs.planes, ours.planes, strict=True):
        one.copy_(other)
    made = run(op, (ours, *weights), *inputs, ctx=ctx)
    for mine, wanted in zip(made, op.reference(ctx, (theirs, *weights), *inputs), strict=True):
        close(mine, wanted, 4e-2 if mine.dtype is torch.bfloat16 else None)
    for mine, wanted in zip(ours.planes, theirs.planes, strict=True):
        # The interpreter cuts bits off where the card rounds to bfloat16, three times in a row.
        step = {torch.float8_e4m3fn: 0.07, torch.int8: 0.02, torch.bfloat16: 4e-2}.get(mine.dtype, 2e-5)
        numbers, exact = decode(mine, torch.float32), decode(wanted, torch.float32)
        # What is rounded may fall to the neighbouring code where sums differ in their last bits.
        assert ((numbers - exact).abs() <= step * exact.abs().amax(-1, keepdim=True).clamp(min=1e-3)).all()
        assert (numbers == exact).float().mean() > 0.9


@pytest.mark.parametrize("form", mostly_full(FORMS, USUAL), ids=str)
def test_rotate_write(form: tuple[torch.dtype, bool, int, str]) -> None:
    kept, side, pairs, name = form
    norm = NORMS[name]
    tokens = sum(count for count, _ in ROWS)
    dtype = torch.bfloat16 if kept is torch.bfloat16 else torch.float32
    wide = draw(tokens, 9 * 32 + 3 * 16 * 3, dtype=dtype)  # nine and three heads of keys, values of another length
    q, k = wide[:, : 9 * 32].unflatten(1, (9, 32)), draw(tokens, 3, 32, dtype=dtype, seed=2)
    v = wide[:, 9 * 32 : 9 * 32 + 48].unflatten(1, (3, 16))
    angle = draw(tokens, pairs, seed=4)
    angles = torch.cat((angle.cos(), angle.sin()), dim=-1)
    weights = () if norm is None else (param(draw(32, dtype=dtype, seed=5)), param(draw(32, dtype=dtype, seed=6)))
    slots = cache(3, 32, 16, kept), cache(3, 32, 16, kept)
    same_entries(RotateWrite(Rotate(side), norm), weights, slots, q, k, v, angles)


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_writes_without_rotation(kept: torch.dtype) -> None:
    tokens = sum(count for count, _ in ROWS)
    k, v = draw(tokens, 3, 20), draw(tokens, 3, 12, seed=2) * 3
    same_entries(CacheWrite(), (), (cache(3, 20, 12, kept), cache(3, 20, 12, kept)), k, v)
    c, turned = draw(tokens, 64), draw(tokens, 1, 16, seed=2)
    slots = tuple(cache(1, 80, 0, kept, latent=True) for _ in range(2))
    same_entries(LatentWrite(), (), (slots[0], slots[1]), c, turned)


def test_rotation_alone() -> None:
    q, k, angle = draw(5, 10, 24), draw(5, 2, 24, seed=2), draw(5, 8, seed=3)
    angles = torch.cat((angle.cos(), angle.sin()), dim=-1)
    for side in (False, True):
        for mine, wanted in zip(
            run(Rotate(side), (), q, k, angles), Rotate(side).reference(None, (), q, k, angles), strict=True
        ):
            close(mine, wanted)


def test_bytes_of_floats_are_those_of_torch() -> None:
    """Every half between two codes, and what is too large; keys of one feature are written as they are."""
    codes = torch.arange(0, 0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    values = torch.cat((codes, (codes[1:] + codes[:-1]) / 2, torch.tensor([448.1, 1e6, 1e-9]), codes * 1.01))
    values = torch.cat((values, -values))
    ctx, slot = batch(((len(values) // 16, len(values) // 16),)), cache(1, 16, 16, torch.float8_e4m3fn, blocks=80)
    x = values[: len(values) // 16 * 16].view(-1, 1, 16)
    run(CacheWrite(), (slot,), x, x, ctx=ctx)
    kept = slot.planes[0].view(torch.uint8).flatten(0, 1)[ctx.groups[0].slot_T]
    assert torch.equal(kept & 0x7F, x.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8) & 0x7F)
