# SPDX-License-Identifier: Apache-2.0
"""The delta rule in chunks, by Triton's interpreter: against float64 token by token, against transformers, and against
itself with prompts cut at other places."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import draw, run
from test_cuda_recurrent import batch
from torch import Tensor

from tramontane.ops import GatedDelta
from tramontane_backend_cuda import chunks
from tramontane_backend_cuda.chunks import CHUNK, LEAST, places_for

OP = GatedDelta(key_heads=1, value_heads=2, key_dim=24, value_dim=20)
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
full = pytest.mark.full
BOUND = {BFLOAT16: 1.2e-2, FLOAT32: 3e-5}
"""Largest difference from float64 of results, relative to the largest one: three roundings to bfloat16 (queries' sight
of a chunk, its changes, the result), of which the interpreter cuts bits off where a card rounds."""
STATE_BOUND = {BFLOAT16: 2e-4, FLOAT32: 3e-5}
"""The same of states: nothing of them is rounded to 16 bits; two 16-bit numbers stand for one."""


def parts(tokens: int, dtype: torch.dtype, seed: int = 4) -> list[Tensor]:
    """Inputs: views of a wider tensor, as a fused projection gives them."""
    keys, values, heads = OP.key_heads * OP.key_dim, OP.value_heads * OP.value_dim, OP.value_heads
    widths = [keys, keys, values, heads, heads]
    return list(draw(tokens, sum(widths) + 8, dtype=dtype, seed=seed)[:, 8:].split(widths, dim=1))


def weights(slots: int = 5) -> list[Any]:
    """A state for each slot, and vectors."""
    state = draw(slots, OP.value_heads, OP.key_dim, OP.value_dim)
    vectors = (SimpleNamespace(tensor=draw(OP.value_heads, seed=seed) * 0.5) for seed in (2, 3))
    return [SimpleNamespace(states=(state,)), *vectors]


def exact(state: Tensor, vectors: Sequence[Any], inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One row in float64, by the definition: what its tokens give, and its state."""
    a, shift = (one.tensor.double() for one in vectors)
    query, key, value, write, keep = (one.double() for one in inputs)
    state, made = state.double(), []
    for token in range(len(query)):
        q, k = (one[token].view(OP.key_heads, -1).repeat_interleave(2, 0) for one in (query, key))
        q, k = (one / (one.square().sum(-1, keepdim=True) + 1e-6).sqrt() for one in (q, k))
        logit = keep[token] + shift
        state = state * (-a.exp() * torch.nn.functional.softplus(logit)).exp()[:, None, None]
        known = (state * k[:, :, None]).sum(1)
        change = (value[token].view(OP.value_heads, -1) - known) * write[token].sigmoid()[:, None]
        state = state + k[:, :, None] * change[:, None, :]
        made.append((state * q[:, :, None]).sum(1).flatten() / OP.key_dim**0.5)
    return torch.stack(made), state


def off(ours: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((ours.double() - wanted.double()).abs().max() / wanted.abs().max())


def held(given: list[Any], inputs: Sequence[Tensor], lengths: Sequence[int], fresh: Sequence[bool]) -> Tensor:
    """What the kernel gives for rows of these lengths in the first slots, once it was compared."""
    before, dtype = given[0].states[0].clone(), inputs[0].dtype
    (ours,) = run(OP, given, *inputs, ctx=batch(lengths, range(len(lengths)), fresh))
    after = given[0].states[0]
    for row, (begin, end) in enumerate(itertools.pairwise([0, *itertools.accumulate(lengths)])):
        if begin == end:
            assert torch.equal(after[row], before[row])
            continue
        start = torch.zeros_like(before[row]) if fresh[row] else before[row]
        wanted, state = exact(start, given[1:], [one[begin:end] for one in inputs])
        assert off(ours[begin:end], wanted) < BOUND[dtype]
        assert off(after[row], state) < STATE_BOUND[dtype]
    assert not ours[sum(lengths) :].any(), "tokens of no row give zeros"
    return ours


@pytest.mark.parametrize("dtype", [BFLOAT16, pytest.param(FLOAT32, marks=full)], ids=str)
def test_rows_of_all_lengths_follow_the_definition(dtype: torch.dtype) -> None:
    lengths = (1, 70, 0, LEAST, LEAST - 1)
    assert places_for(sum(lengths) + 3, len(lengths))[1] == CHUNK
    held(weights(), parts(sum(lengths) + 3, dtype), lengths, (False, False, False, True, False))


def test_chunks_among_many_short_rows_follow_the_definition() -> None:
    """Places by runs of LEAST tokens, as a recorded step has them: rows that have none begin at the same place."""
    lengths = (1, 2, LEAST + 1, 0, 1)
    assert places_for(sum(lengths) + 2, len(lengths))[1] == LEAST
    held(weights(), parts(sum(lengths) + 2, BFLOAT16), lengths, (False, True, False, False, False))


@pytest.mark.parametrize("dtype", [pytest.param(BFLOAT16, marks=full), FLOAT32], ids=str)
@pytest.mark.parametrize(
    "kind",
    ["the same key", *(pytest.param(one, marks=full) for one in ("nothing forgotten", "all forgotten", "long keys"))],
)
def test_hard_inputs(kind: str, dtype: torch.dtype) -> None:
    """A chunk whose tokens all say the same is where an inverse by powers would lose everything."""
    inputs = parts(CHUNK + 20, dtype)
    query, key, _, write, keep = inputs
    if kind == "the same key":
        key[:] = key[:1].clone()
        write[:], keep[:] = 9.0, -20.0
    elif kind == "nothing forgotten":
        keep[:] = -30.0
    elif kind == "all forgotten":
        keep[:] = 30.0
    else:
        key.mul_(100.0)
        query.mul_(0.01)
    held(weights(), inputs, (CHUNK + 20,), (False,))


@pytest.mark.parametrize("dtype", [pytest.param(BFLOAT16, marks=full), FLOAT32], ids=str)
def test_results_do_not_depend_on_how_a_prompt_is_cut(dtype: torch.dtype) -> None:
    """Whole, in pieces that fall anywhere in chunks, and with single steps between."""
    tokens = 2 * CHUNK + 22
    inputs, whole = parts(tokens, dtype), weights()
    together = run(OP, whole, *inputs, ctx=batch([tokens], [0], [False]))[0]
    for cut in ((1, CHUNK, 1, LEAST, tokens - CHUNK - LEAST - 2), (CHUNK + 7, LEAST - 1, CHUNK)):
        given, made = weights(), []
        for begin, end in itertools.pairwise([0, *itertools.accumulate(cut)]):
            some = [one[begin:end] for one in inputs]
            made.append(run(OP, given, *some, ctx=batch([end - begin], [0], [False]))[0])
        assert sum(cut) == tokens
        assert off(torch.cat(made), together) < BOUND[dtype]
        assert off(given[0].states[0][0], whole[0].states[0][0]) < STATE_BOUND[dtype]


@full
def test_rows_give_the_same_alone_and_among_others() -> None:
    """Bit for bit: a chunk begins where its row does."""
    lengths, given, alone = (40, 3, 90), weights(), weights()
    inputs = parts(sum(lengths), BFLOAT16)
    together = run(OP, given, *inputs, ctx=batch(lengths, range(3), [False] * 3))[0]
    some = [one[43:] for one in inputs]
    assert torch.equal(run(OP, alone, *some, ctx=batch([90], [2], [False]))[0], together[43:])
    assert torch.equal(alone[0].states[0][2], given[0].states[0][2])


@full
def test_the_same_as_transformers() -> None:
    model = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next", reason="needs Qwen3-Next")
    inputs, given = parts(150, FLOAT32), weights()
    query, key, value, write, keep = (one.unflatten(-1, (heads, -1)).unsqueeze(0) for one, heads in zip(
        inputs, (1, 1, 2, 2, 2), strict=True))  # fmt: skip
    decay = -given[1].tensor.exp() * torch.nn.functional.softplus(keep[..., 0] + given[2].tensor)
    wanted, state = model.torch_chunk_gated_delta_rule(
        query.repeat_interleave(2, 2), key.repeat_interleave(2, 2), value, decay, write[..., 0].sigmoid(),
        initial_state=given[0].states[0][:1].clone(), output_final_state=True, use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    (ours,) = run(OP, given, *inputs, ctx=batch([150], [0], [False]))
    assert off(ours, wanted[0].flatten(1)) < BOUND[FLOAT32]
    assert off(given[0].states[0][0], state[0]) < STATE_BOUND[FLOAT32]


def test_every_chunk_has_a_place_of_its_own() -> None:
    """By both rules, for rows of any lengths; rows of fewer tokens have none."""
    drawn = torch.Generator().manual_seed(0)
    for turn in range(300):
        most = (3, 40, 700)[turn % 3]
        lengths = torch.randint(0, most, (1 + turn % 9,), generator=drawn, device="cpu").tolist()
        tokens, rows = sum(lengths), len(lengths)
        for count, unit, step in ((tokens // CHUNK + rows, CHUNK, 1), (tokens // LEAST + 1, LEAST, 0)):
            starts, seen = [0, *itertools.accumulate(lengths)], {}
            for row, (begin, end) in enumerate(itertools.pairwise(starts)):
                chunk_count = -(-(end - begin) // CHUNK) if end - begin >= LEAST else 0
                for chunk in range(chunk_count):
                    place = begin // unit + row * step + chunk
                    assert seen.setdefault(place, (row, chunk)) == (row, chunk)
                    found = max(r for r in range(rows) if starts[r] // unit + r * step <= place)
                    assert (found, place < count) == (row, True)
    assert places_for(512, 65) == (512 // LEAST + 1, LEAST, 0)
    assert places_for(4096, 2) == (66, CHUNK, 1)
    assert chunks.CHUNK.bit_count() == 1
