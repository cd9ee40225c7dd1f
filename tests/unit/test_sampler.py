# SPDX-License-Identifier: Apache-2.0
"""The batched sampler: order, filters against plain numpy, distributions, invariance under batching, faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.requests import SamplingParams
from tramontane.sampler import Sampler
from tramontane.sampler import select as select_module

VOCAB = 97


def draw_one(logits: Sequence[float] | torch.Tensor, position: int = 1, seed: int = 0, **params: Any) -> int:
    row = torch.as_tensor(logits, dtype=torch.float32)[None].clone()
    sampler = Sampler(row.shape[1])
    sampler.start("a", [0], SamplingParams(**params), seed=seed)
    return int(sampler.sample(row, ["a"], [position]).tokens[0])


def draw_many(logits: torch.Tensor, draws: int, seed: int = 7, **params: Any) -> np.ndarray:
    """Draws from the same row under many uniforms: forty positions of as many choices as it takes."""
    sampler = Sampler(logits.shape[0])
    keys = list(range(draws // 40))
    for key in keys:
        sampler.start(key, [0], SamplingParams(**params), seed=seed, index=key)
    batch = logits.repeat(len(keys), 1)
    return np.concatenate([sampler.sample(batch, keys, [1 + at] * len(keys)).tokens.numpy() for at in range(40)])


def kept(logits: np.ndarray, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0):
    """The oracle: the filtered distribution, in plain float64."""
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    order = np.argsort(-logits, kind="stable")
    if top_k > 0:
        p[order[top_k:]] = 0
    if top_p < 1.0:
        running, limit = 0.0, top_p * p.sum()
        for token in order:
            if running >= limit:
                p[token] = 0
            running += p[token]
    p[p < min_p * p.max()] = 0
    return p / p.sum()


def chi_square_ok(tokens: np.ndarray, p: np.ndarray) -> None:
    counts = np.bincount(tokens, minlength=p.size)
    assert counts[p == 0].sum() == 0, "a filtered token was drawn"
    expected = p * tokens.size
    usual = expected >= 5
    statistic = ((counts[usual] - expected[usual]) ** 2 / expected[usual]).sum()
    degrees = max(1, usual.sum() - 1)
    assert statistic < degrees + 4.5 * np.sqrt(2 * degrees) + 8, (statistic, degrees)


LOGITS = torch.randn(VOCAB, generator=torch.Generator().manual_seed(3)) * 2.5


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.9},
        {"top_k": 5},
        {"top_k": 5, "top_p": 0.7},
        {"top_p": 0.6},
        {"top_p": 0.9, "temperature": 0.7},
        {"min_p": 0.1},
        {"min_p": 0.05, "temperature": 2.0},
        {"top_p": 0.8, "min_p": 0.1},
        {"top_k": 20, "top_p": 0.95, "min_p": 0.02, "temperature": 0.8},
        {"top_k": 10_000},
        {"top_k": -1, "top_p": 1.0},
    ],
)
def test_draws_follow_the_filtered_distribution(params: dict[str, Any]) -> None:
    expected = kept(LOGITS.numpy(), **{**params, "top_k": max(0, params.get("top_k", 0))})
    chi_square_ok(draw_many(LOGITS, 20_000, **params), expected)


def test_large_vocabularies_draw_from_the_tail_too() -> None:
    """Blocks of the CDF, padding, and the sort behind the first candidates."""
    logits = torch.randn(5003, generator=torch.Generator().manual_seed(1)) * 0.05
    for params in ({}, {"top_p": 0.9}, {"min_p": 0.9}, {"top_p": 0.05}):
        tokens = draw_many(logits, 2000, **params)
        p = kept(logits.numpy(), **params)
        groups = np.arange(5003) * 20 // 5003
        chi_square_ok(groups[tokens], np.bincount(groups, weights=p))
        assert p[tokens].min() > 0


@pytest.mark.parametrize("spread", [0.05, 1.0, 4.0])
@pytest.mark.parametrize(
    "params", [{"top_p": 0.7}, {"top_p": 0.95, "min_p": 0.01}, {"top_p": 0.999, "temperature": 1.4}]
)
def test_the_way_of_a_device_draws_the_same_tokens(
    params: dict[str, Any], spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Top-p sorts where it may not ask the host; on the host it usually need not."""
    logits = (torch.randn(4000, generator=torch.Generator().manual_seed(2)) * spread).round(decimals=1)
    on_host = draw_many(logits, 400, **params)
    monkeypatch.setattr(select_module, "_FIRST_CANDIDATES", 10**9)
    assert draw_many(logits, 400, **params).tolist() == on_host.tolist()


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    values=st.lists(st.sampled_from([-3.0, -1.5, -0.0, 0.0, 0.5, 1.0, 4.0, 9.0]), min_size=1, max_size=40),
    temperature=st.sampled_from([0.2, 1.0, 3.0]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_a_drawn_token_is_always_one_the_oracle_keeps(
    data: st.DataObject, values: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    params = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    position = data.draw(st.integers(1, 10_000))
    token = draw_one(values, position=position, **params)
    assert kept(np.array(values), **params)[token] > 0


def test_greedy_takes_the_lowest_id_of_equal_logits() -> None:
    assert draw_one([0.0, 3.0, 1.0, 3.0], temperature=0) == 1
    assert draw_one([0.0, 3.0, 1.0, 3.0], top_k=1) == 1
    wide = torch.zeros(4001)
    wide[[1999, 3000, 4000]] = 2.0
    assert draw_one(wide, temperature=0) == 1999


def test_top_keeps_the_lowest_ids_of_equal_logits_and_orders_them() -> None:
    row = torch.tensor([[1.0, 2.0, 1.0, 2.0, -0.0, 0.0, 1.0, -1.0]])
    values, ids = select_module.top(row, 6)
    assert ids.tolist() == [[1, 3, 0, 2, 6, 4]]
    assert values.tolist() == [[2.0, 2.0, 1.0, 1.0, 1.0, 0.0]]
    order = np.argsort(-LOGITS.numpy(), kind="stable")
    assert select_module.top(LOGITS[None], VOCAB)[1][0].tolist() == order.tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), distinct=st.sampled_from([1, 2, 30, 10_000]))
def test_top_of_a_large_vocabulary_equals_a_stable_sort(seed: int, count: int, distinct: int) -> None:
    """Blocks are skipped, and equal values lie on both sides of the cut."""
    logits = np.random.default_rng(seed).integers(-distinct, distinct, size=(2, 2500 + seed % 70)).astype(np.float32)
    values, ids = select_module.top(torch.from_numpy(logits), count)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    assert ids.tolist() == order.tolist()
    assert values.tolist() == np.take_along_axis(logits, order, axis=1).tolist()


def test_top_takes_equal_values_by_id_and_not_by_block() -> None:
    logits = torch.zeros(1, 2000)
    logits[0, [320, 321, 128]] = torch.tensor([9.0, 7.0, 7.0])
    assert select_module.top(logits, 2)[1].tolist() == [[320, 128]]


def test_min_p_keeps_a_token_exactly_at_the_limit() -> None:
    logits = torch.tensor([0.0, 3.0, 3.0, 1.0])
    for params in ({"min_p": 1.0}, {"min_p": 1.0, "top_k": 3}, {"min_p": 1.0, "top_p": 0.99}):
        assert set(draw_many(logits, 200, **params).tolist()) == {1, 2}


def test_the_largest_uniform_draws_the_last_token_that_has_a_chance() -> None:
    """Rounding may bring the target up to the whole mass."""
    for seed in range(20):
        logits = torch.randn(1, 600, generator=torch.Generator().manual_seed(seed))
        logits[0, 300:] = -torch.inf
        knobs = select_module.Knobs(
            temperature_R=torch.ones(1),
            top_k_R=torch.tensor([500]),
            top_p_R=torch.ones(1, dtype=torch.float64),
            min_p_R=torch.zeros(1, dtype=torch.float64),
            most_k=500,
            any_min_p=False,
        )
        for draw in (select_module.draw_full, select_module.draw_top_k, select_module.draw_top_p):
            token = draw(logits, knobs, torch.ones(1, dtype=torch.float64))[0]
            assert logits[0, token].isfinite()


def test_top_k_is_exact_among_equal_logits() -> None:
    tokens = draw_many(torch.zeros(50), 400, top_k=3)
    assert set(tokens.tolist()) == {0, 1, 2}


def test_tiny_temperatures_do_not_overflow() -> None:
    for temperature in (1e-30, 1e-9, 1e-3):
        assert draw_one([1.0, 88.0, 87.0], temperature=temperature) == 1
        assert draw_one([1.0, 88.0, 87.0], temperature=temperature, top_k=2) == 1
        assert draw_one([1.0, 88.0, 87.0], temperature=temperature, top_p=0.5) == 1


MIXED = [
    {"temperature": 0.0},
    {"seed": 1},
    {"seed": 2, "top_k": 7},
    {"seed": 3, "top_p": 0.8},
    {"seed": 4, "min_p": 0.05, "temperature": 1.7},
    {"seed": 5, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    {"seed": 6, "dry_multiplier": 0.8, "top_k": 30},
    {"seed": 7, "logit_bias": {3: 4.0}, "logprobs": 3},
    {"seed": 8, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "logprobs": 0},
    {"seed": 9, "min_tokens": 5, "stop_token_ids": [1, 2, 3]},
]


def run(rows: list[int], steps: int) -> dict[int, list[int]]:
    """Ids each of the chosen rows of ``MIXED`` gets over some steps, all in one batch."""
    sampler = Sampler(VOCAB)
    for row in rows:
        params = SamplingParams(dry_sequence_breakers=(), **MIXED[row])
        sampler.start(row, [5, 6, 7, 5, 6], params, seed=params.seed or 0)
    found: dict[int, list[int]] = {row: [] for row in rows}
    for step in range(steps):
        logits = torch.stack(
            [torch.randn(VOCAB, generator=torch.Generator().manual_seed(1000 * row + step)) * 3 for row in rows]
        ).round(decimals=1)  # many equal logits
        tokens = sampler.sample(logits, rows, [5 + step] * len(rows)).tokens.tolist()
        for row, token in zip(rows, tokens, strict=True):
            found[row].append(token)
    return found


def test_what_else_is_in_the_batch_changes_nothing() -> None:
    rows = list(range(len(MIXED)))
    together = run(rows, 12)
    assert run(rows[::-1], 12) == together
    for row in rows:
        assert run([row], 12)[row] == together[row], MIXED[row]


def test_seed_and_choice_make_the_draw() -> None:
    logits = torch.zeros(2, 1000)
    sampler = Sampler(1000)
    for key, (seed, index) in {"a": (1, 0), "b": (1, 1)}.items():
        sampler.start(key, [0], SamplingParams(), seed=seed, index=index)
    first = sampler.sample(logits.clone(), ["a", "b"], [1, 1]).tokens.tolist()
    again = sampler.sample(logits.clone(), ["a", "b"], [1, 1]).tokens.tolist()
    assert first == again
    assert first[0] != first[1]


def test_a_preempted_sequence_goes_on_as_if_nothing_happened() -> None:
    params = SamplingParams(
        repetition_penalty=1.5, presence_penalty=0.5, dry_multiplier=1.0, dry_sequence_breakers=(), min_tokens=9
    )
    rows = [torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(step)) * 2 for step in range(10)]

    def drawn(preempt_at: int) -> list[int]:
        sampler, tokens = Sampler(VOCAB), []
        sampler.start("a", [1, 2, 3], params, seed=11, eos_ids=[4])
        for step, row in enumerate(rows):
            if step == preempt_at:
                sampler.drop("a")
                sampler.start("a", [1, 2, 3], params, seed=11, eos_ids=[4], output_ids=tokens)
            tokens.append(int(sampler.sample(row.clone(), ["a"], [3 + step]).tokens[0]))
        return tokens

    assert drawn(0) == drawn(5) == drawn(9)


def test_logit_bias_bans_and_forces() -> None:
    assert draw_one([0.0, 5.0, 1.0], temperature=0, logit_bias={1: -100.0}) == 2
    assert draw_one([0.0, 5.0, 1.0], temperature=0, logit_bias={1: float("-inf")}) == 2
    assert draw_one([0.0, 5.0, 1.0], logit_bias={0: 1000.0}) == 0
    for params in ({}, {"top_k": 2}, {"top_p": 0.5}):
        assert draw_one([0.0, 5.0, 1.0], logit_bias={0: float("inf")}, **params) == 0


def test_min_tokens_bans_eos_and_stop_ids_until_reached() -> None:
    sampler = Sampler(4)
    sampler.start("a", [0], SamplingParams(temperature=0, min_tokens=2, stop_token_ids=[2]), seed=0, eos_ids=[3])
    row = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert [int(sampler.sample(row.clone(), ["a"], [1 + i]).tokens[0]) for i in range(3)] == [1, 1, 3]
    sampler.start("b", [0], SamplingParams(temperature=0, min_tokens=2, ignore_eos=True), seed=0, eos_ids=[3])
    assert int(sampler.sample(row.clone(), ["b"], [1]).tokens[0]) == 3


def words(allowed: Sequence[int], vocab: int) -> torch.Tensor:
    mask = np.zeros(-(-vocab // 32), dtype=np.uint32)
    for token in allowed:
        mask[token // 32] |= np.uint32(1 << (token % 32))
    return torch.from_numpy(mask.view(np.int32))


def test_masks_allow_only_their_tokens() -> None:
    sampler = Sampler(VOCAB)
    for key in range(3):
        sampler.start(key, [0], SamplingParams(), seed=key)
    masks = {0: words([31, 32, 63, 96], VOCAB), 2: words([95], VOCAB)}
    seen: list[set[int]] = [set(), set(), set()]
    for position in range(1, 80):
        tokens = sampler.sample(torch.zeros(3, VOCAB), [0, 1, 2], [position] * 3, masks).tokens.tolist()
        for key, token in enumerate(tokens):
            seen[key].add(token)
    assert seen[0] == {31, 32, 63, 96}
    assert seen[2] == {95}
    assert len(seen[1]) > 20


def test_a_grammar_that_only_allows_the_end_may_end_before_min_tokens() -> None:
    sampler = Sampler(VOCAB)
    sampler.start("a", [0], SamplingParams(min_tokens=10), seed=0, eos_ids=[5])
    assert int(sampler.sample(torch.zeros(1, VOCAB), ["a"], [1], {"a": words([5], VOCAB)}).tokens[0]) == 5
    both = {"a": words([5, 9], VOCAB)}
    assert int(sampler.sample(torch.zeros(1, VOCAB), ["a"], [2], both).tokens[0]) == 9


def test_processors_see_the_history_and_change_the_row() -> None:
    seen: list[list[int]] = []

    def forbid_last(history: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        seen.append(history.tolist())
        row[history[-1]] = -torch.inf
        return row

    sampler = Sampler(3)
    sampler.start("a", [1, 2], SamplingParams(temperature=0), seed=0, processors=[forbid_last])
    row = torch.tensor([[0.0, 1.0, 2.0]])
    tokens = [int(sampler.sample(row.clone(), ["a"], [2 + i]).tokens[0]) for i in range(3)]
    assert tokens == [1, 2, 1]
    assert seen == [[1, 2], [1, 2, 1], [1, 2, 1, 2]]


@pytest.mark.parametrize("params", [{"temperature": 0}, {}, {"top_k": 3}, {"top_p": 0.5}, {"repetition_penalty": 2.0}])
def test_a_bad_row_is_reported_and_spoils_no_other(params: dict[str, Any]) -> None:
    sampler = Sampler(VOCAB)
    for key in range(4):
        sampler.start(key, [0], SamplingParams(**params), seed=key)
    sampler.start(4, [0], SamplingParams(**params), seed=4, processors=[lambda _history, row: 1 / 0])
    sampler.start(5, [0], SamplingParams(**params), seed=5, processors=[lambda _history, row: row[:3]])
    good = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(0))
    batch = good.repeat(6, 1)
    batch[1, 17] = torch.nan
    batch[2] = -torch.inf
    sampled = sampler.sample(batch, list(range(6)), [1] * 6)
    faults = sampled.faults
    assert sorted(faults) == [1, 2, 4, 5]
    assert "NaN" in str(faults[1])
    assert "forbidden" in str(faults[2])
    assert "division" in str(faults[4])
    assert "shape" in str(faults[5])
    alone = Sampler(VOCAB)
    alone.start(0, [0], SamplingParams(**params), seed=0)
    alone.start(3, [0], SamplingParams(**params), seed=3)
    assert alone.sample(good.repeat(2, 1), [0, 3], [1, 1]).tokens.tolist() == sampled.tokens[[0, 3]].tolist()
    assert sampled.tokens.min() >= 0
    assert sampled.tokens.max() < VOCAB


def test_infinite_logits_win_without_spoiling_the_row() -> None:
    row = [0.0, float("inf"), 2.0, float("-inf")]
    for params in ({"temperature": 0}, {}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}):
        assert draw_one(row, **params) == 1
    several = torch.tensor([float("inf"), 0.0, float("inf"), 2.0])
    for params in ({}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}):
        assert set(draw_many(several, 200, **params).tolist()) == {0, 2}
