# SPDX-License-Identifier: Apache-2.0
"""Two hundred requests at once on a pool too small for them: every answer is the answer given alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tramontane import LLM
from tramontane.requests import Delta, EngineRequest, FinishReason, SamplingParams
from tramontane.testing.harness import Harness

MODEL = Path(__file__).resolve().parents[3] / "shared" / "data" / "models" / "tinystories-656k-hf"
REQUESTS = 200
ABORTED = 40
SEED = 5
Answers = list[tuple[list[int], FinishReason | None]]
"""Tokens of each, and why it ended."""

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"needs {MODEL}")


def make_requests(harness: Harness, seed: int) -> list[EngineRequest]:
    """Random prompts (some share a beginning), lengths, samplers and stop ids."""
    draw = random.Random(seed)
    beginnings = [[1, *(draw.randrange(300, 2000) for _ in range(20))] for _ in range(5)]
    made = []
    for _ in range(REQUESTS):
        prompt = draw.choice(beginnings)[: draw.randint(1, 21)] + [
            draw.randrange(3, 2000) for _ in range(draw.randint(0, 12))
        ]
        sampling = SamplingParams(
            max_tokens=draw.randint(1, 24),
            temperature=draw.choice([0, 0, 0.8, 1.3]),
            top_p=draw.choice([1.0, 0.9]),
            seed=draw.randrange(2**32),
            repetition_penalty=draw.choice([1.0, 1.2]),
            stop_token_ids=tuple(draw.randrange(3, 2000) for _ in range(draw.choice([0, 200]))),
            ignore_eos=draw.random() < 0.5,
        )
        made.append(harness.request(prompt, sampling))
    return made


def run_with_aborts(
    harness: Harness, requests: list[EngineRequest], doomed: set[str], overlap: bool
) -> dict[str, list[Delta]]:
    """Run all, aborting the doomed ones after random numbers of steps."""
    draw = random.Random(9)
    found: dict[str, list[Delta]] = {request.id: [] for request in requests}
    for request in requests:
        harness.core.add(request)
    waiting = {request_id: draw.randint(0, 60) for request_id in doomed}
    steps = 0
    while harness.core.has_work:
        for request_id in [r for r, at in waiting.items() if at == steps]:
            harness.core.abort(request_id)
        for delta in harness.core.overlap_step() if overlap else harness.core.step():
            found[delta.request_id].append(delta)
        steps += 1
    return found


def answer(deltas: list[Delta]) -> tuple[list[int], FinishReason | None]:
    """Tokens and why they ended."""
    return [t for d in deltas for t in d.token_ids], deltas[-1].finish_reason if deltas else None


@pytest.fixture(scope="module")
def alone() -> Answers:
    """The answers to the requests, each given alone; they are the same for every crowd."""
    harness = Harness.load(MODEL, backend="reference-invariant", num_blocks=64, max_num_seqs=1, prefix_cache=False)
    return [answer(harness.run([request])[request.id]) for request in make_requests(harness, SEED)]


@pytest.mark.parametrize("overlap", [pytest.param(False, marks=pytest.mark.full), True])
def test_every_answer_equals_the_answer_given_alone(alone: Answers, overlap: bool) -> None:
    crowd = Harness.load(
        MODEL, backend="reference-invariant", num_blocks=14, block_tokens=8, max_num_seqs=32, max_batched_tokens=64
    )
    requests = make_requests(crowd, SEED)
    doomed = {request.id for request in random.Random(2).sample(requests, ABORTED)}
    together = run_with_aborts(crowd, requests, doomed, overlap)
    stats = crowd.core.stats()
    assert stats.preemptions > 0, "the pool was meant to be too small"
    assert stats.blocks_used == 0, "a block was leaked"
    canceled = 0
    for request, (expected, why) in zip(requests, alone, strict=True):
        tokens, reason = answer(together[request.id])
        if reason is FinishReason.CANCELED or reason is None:
            assert request.id in doomed
            assert tokens == expected[: len(tokens)]
            canceled += 1
        else:
            assert (tokens, reason) == (expected, why), request
    assert 0 < canceled <= ABORTED


def test_stop_strings_in_a_crowd_cut_where_they_cut_alone() -> None:
    draw = random.Random(4)
    openings = ["Once upon a time", "One day", "Lily", "The cat", "Tom and his", "There was a big"]
    prompts = [draw.choice(openings) + draw.choice(["", " there", " was a little", " in the park"]) for _ in range(60)]
    params = [
        SamplingParams(
            max_tokens=draw.randint(4, 40),
            temperature=draw.choice([0, 0.9]),
            seed=draw.randrange(2**32),
            stop=tuple(draw.sample([" the", "e w", ".", "ing", " and", "a lit", '"'], draw.randint(0, 3))),
        )
        for _ in prompts
    ]
    settings = {"backend": "reference-invariant", "block_tokens": 8}
    with LLM(str(MODEL), num_blocks=14, max_num_seqs=16, max_batched_tokens=48, **settings) as crowd:
        together = crowd.generate(prompts, params)
        assert crowd.stats().preemptions > 0, "the pool was meant to be too small"
    with LLM(str(MODEL), num_blocks=64, prefix_cache=False, **settings) as alone:
        for prompt, wanted, found in zip(prompts, params, together, strict=True):
            expected = alone.generate(prompt, wanted)
            assert (found.text, found.finish_reason) == (expected.text, expected.finish_reason), (prompt, wanted)
            assert not any(stop in found.text for stop in wanted.stop)
    assert {one.finish_reason for one in together} >= {FinishReason.STOP, FinishReason.LENGTH}
