# SPDX-License-Identifier: Apache-2.0
"""Penalties against hand-written oracles and against the processors of ``transformers``."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.requests import SamplingParams
from tramontane.sampler import Sampler

VOCAB = 12


def changed(
    logits: np.ndarray,
    prompt: list[int],
    output: list[int],
    breakers: frozenset[int] = frozenset(),
    neighbour: int = 40,
    **params: Any,
) -> np.ndarray:
    """The logits as the sampler sees them after all penalties, read through a logits processor."""
    seen: list[torch.Tensor] = []

    def spy(_history: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        seen.append(row.clone())
        return row

    sampler = Sampler(logits.size)
    # A neighbour with another history and other parameters, so that rows are padded and masked.
    other = SamplingParams(repetition_penalty=3.0, frequency_penalty=1.0, dry_multiplier=2.0)
    sampler.start("other", [1, 2] * neighbour, other, seed=0, breakers=[1])
    sampler.start("row", prompt, SamplingParams(**params), seed=0, breakers=breakers, processors=[spy])
    sampler._states["row"].drawn = len(output)
    sampler.drop("row")
    sampler.start(
        "row", prompt, SamplingParams(**params), seed=0, breakers=breakers, processors=[spy], output_ids=output
    )
    batch = torch.tensor(np.stack([np.zeros_like(logits), logits]), dtype=torch.float32)
    sampler.sample(batch, ["other", "row"], [80, len(prompt) + len(output)])
    return seen[0].numpy()


def repeats_oracle(logits: np.ndarray, prompt: list[int], output: list[int], **p: float) -> np.ndarray:
    found = logits.astype(np.float64).copy()
    for token in set(prompt) | set(output):
        r = p.get("repetition_penalty", 1.0)
        found[token] = found[token] / r if found[token] > 0 else found[token] * r
    for token, count in Counter(output).items():
        found[token] -= count * p.get("frequency_penalty", 0.0) + p.get("presence_penalty", 0.0)
    return found


def dry_oracle(
    logits: np.ndarray, ids: list[int], breakers: frozenset[int], multiplier: float, base: float, allowed: int
) -> np.ndarray:
    """p-e-w's loop, written out."""
    found = logits.astype(np.float64).copy()
    if ids[-1] in breakers:
        return found
    longest: dict[int, int] = {}
    for at, token in enumerate(ids[:-1]):
        follower = ids[at + 1]
        if token != ids[-1] or follower in breakers:
            continue
        length = 1
        while length < 50:
            if at - length < 0:
                break
            earlier = ids[-1 - length]
            if ids[at - length] != earlier or earlier in breakers:
                break
            length += 1
        longest[follower] = max(longest.get(follower, 0), length)
    for token, length in longest.items():
        if length >= allowed:
            found[token] -= multiplier * base ** (length - allowed)
    return found


ids_lists = st.lists(st.integers(0, 4), min_size=1, max_size=70)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30),
    output=st.lists(st.integers(0, VOCAB - 1), max_size=30),
    repetition=st.sampled_from([1.0, 1.3, 0.7]),
    frequency=st.sampled_from([0.0, 0.5, -0.25]),
    presence=st.sampled_from([0.0, 1.5]),
)
def test_repeats_equal_the_oracle(
    prompt: list[int], output: list[int], repetition: float, frequency: float, presence: float
) -> None:
    logits = np.linspace(-3, 3, VOCAB)
    params = {"repetition_penalty": repetition, "frequency_penalty": frequency, "presence_penalty": presence}
    found = changed(logits, prompt, output, **params)
    assert found == pytest.approx(repeats_oracle(logits, prompt, output, **params), abs=1e-5)


@settings(max_examples=150, deadline=None)
@given(
    prompt=ids_lists,
    output=ids_lists,
    breakers=st.frozensets(st.integers(0, 4), max_size=2),
    multiplier=st.sampled_from([0.8, 2.0]),
    base=st.sampled_from([1.0, 1.2]),
    allowed=st.integers(0, 5),
    neighbour=st.sampled_from([1, 80]),
)
def test_dry_equals_the_oracle(
    prompt: list[int], output: list[int], breakers: frozenset[int], multiplier: float, base: float, allowed: int,
    neighbour: int,
) -> None:  # fmt: skip
    logits = np.linspace(-3, 3, VOCAB)
    found = changed(
        logits, prompt, output, breakers, neighbour,
        dry_multiplier=multiplier, dry_base=base, dry_allowed_length=allowed,
    )  # fmt: skip
    expected = dry_oracle(logits, prompt + output, breakers, multiplier, base, allowed)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_dry_punishes_the_continuation_of_a_loop_and_breakers_end_it() -> None:
    logits = np.zeros(VOCAB)
    loop = [1, 2, 3, 4, 9, 1, 2, 3]
    assert changed(logits, loop, [], dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=2)[4] == -2.0
    assert changed(logits, loop, [], frozenset([2]), dry_multiplier=1.0, dry_base=2.0)[4] == 0.0
    assert changed(logits, loop, [], frozenset([4]), dry_multiplier=1.0, dry_base=2.0)[4] == 0.0
    assert changed(logits, loop, [], frozenset([9]), dry_multiplier=1.0, dry_base=2.0)[4] == -2.0


def test_long_matches_stay_finite() -> None:
    found = changed(np.zeros(VOCAB), [1] * 300, [], dry_multiplier=100.0, dry_base=100.0)
    assert np.isfinite(found).all()
    assert found[1] < -1e29
    limited = changed(np.zeros(VOCAB), [1] * 300, [], dry_multiplier=1.0, dry_base=1.1, dry_allowed_length=2)
    assert limited[1] == pytest.approx(-(1.1**48), rel=1e-4)


def test_bias_comes_before_penalties() -> None:
    found = changed(np.zeros(VOCAB), [3], [], repetition_penalty=2.0, logit_bias={3: 4.0})
    assert found[3] == 2.0


@pytest.mark.parametrize("seed", range(2))
def test_filters_equal_transformers(seed: int) -> None:
    transformers = pytest.importorskip("transformers")
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 500, generator=generator) * 3
    ids = torch.randint(0, 500, (1, 60), generator=generator)
    expected = transformers.RepetitionPenaltyLogitsProcessor(1.4)(ids, logits.clone())
    found = changed(logits[0].numpy(), ids[0].tolist(), [], repetition_penalty=1.4)
    assert found == pytest.approx(expected[0].numpy(), abs=1e-5)

    warpers = [
        ({"top_k": 40}, [transformers.TopKLogitsWarper(40)]),
        ({"top_p": 0.8}, [transformers.TopPLogitsWarper(0.8)]),
        ({"min_p": 0.1}, [transformers.MinPLogitsWarper(0.1)]),
        (
            {"temperature": 1.5, "top_k": 50, "top_p": 0.9, "min_p": 0.05},
            [
                transformers.TemperatureLogitsWarper(1.5),
                transformers.TopKLogitsWarper(50),
                transformers.TopPLogitsWarper(0.9),
                transformers.MinPLogitsWarper(0.05),
            ],
        ),
    ]
    for params, chain in warpers:
        scores = logits.clone()
        for warper in chain:
            scores = warper(ids, scores)
        allowed = set(scores[0].isfinite().nonzero()[:, 0].tolist())
        sampler = Sampler(500)
        keys = list(range(100))
        for key in keys:
            sampler.start(key, [0], SamplingParams(**params), seed=seed, index=key)
        batch = logits.repeat(len(keys), 1)
        drawn = {token for at in range(60) for token in sampler.sample(batch, keys, [at] * 100).tokens.tolist()}
        assert drawn <= allowed
        likely = {token for token in allowed if scores.softmax(-1)[0, token] > 0.002}
        assert likely <= drawn
