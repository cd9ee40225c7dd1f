# SPDX-License-Identifier: Apache-2.0
"""The engine core over a mock that reads its past through the block tables: same tokens in any company."""

from __future__ import annotations

import random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.requests import FinishReason
from tramontane.testing.mock_engine import SPECS, Outcome, ask, finish, right, runner_of, similar_prompts, small_engine


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("overlap", "behind"), [(False, False), (True, False), (True, True)])
def test_every_answer_equals_the_answer_given_alone(name: str, overlap: bool, behind: bool) -> None:
    draw = random.Random(f"{name}{overlap}")
    core = small_engine(name, blocks=70, behind=behind, overlap=overlap, state_snapshots=6)
    asked = [
        ask(str(i), prompt, max_tokens=draw.randint(1, 40), min_tokens=1, ignore_eos=draw.random() < 0.5)
        for i, prompt in enumerate(similar_prompts(draw, 40))
    ]
    outcome = Outcome()
    for number, one in enumerate(asked):
        core.add(one)
        if number % 3 == 0:
            outcome.take(core.next_deltas())
    finish(core, outcome)
    for one in asked:
        assert outcome.tokens[one.id, 0] == right(core, one)
    assert core.stats().prefix_hits > 0


# Windows need so little that the small pool is seldom short of blocks: there, a preemption is not asked for.
LONG_RUNS = [pytest.param(name, seed, marks=pytest.mark.full) for name in SPECS for seed in range(4)]


@pytest.mark.parametrize(("name", "seed"), [("mixed", 11), *LONG_RUNS])
@pytest.mark.parametrize("overlap", [False, True])
def test_two_hundred_requests_with_aborts_on_a_small_pool(name: str, seed: int, overlap: bool) -> None:
    draw = random.Random(seed)
    blocks = {"full": 36, "latent": 36, "states": 36, "window": 24}.get(name, 60)
    core = small_engine(name, blocks, behind=overlap, overlap=overlap, max_num_seqs=16, state_snapshots=5)
    asked = [
        ask(str(i), prompt, max_tokens=draw.randint(1, 60), min_tokens=0, ignore_eos=False, n=draw.choice([1, 1, 1, 3]))
        for i, prompt in enumerate(similar_prompts(draw, 200, 50))
    ]
    outcome, aborted = Outcome(), {one.id for one in asked if draw.random() < 0.2}
    for one in asked:
        core.add(one)
    steps = 0
    while core.has_work:
        if draw.random() < 0.5 and aborted - {name for name, _ in outcome.ends}:
            core.abort(draw.choice(sorted(aborted)))
        outcome.take(core.next_deltas())
        steps += 1
        if steps % 20 == 0 and not overlap:
            core.check_integrity()
    finish(core, outcome)
    assert core.stats().preemptions >= {"mixed": 10, "window": 0, "sizes": 0}.get(name, 5)
    canceled = 0
    for one in asked:
        for index in range(one.sampling.n):
            tokens, whole = outcome.tokens[one.id, index], right(core, one, index)
            if outcome.reason(one.id, index) is FinishReason.CANCELED:
                assert one.id in aborted
                assert tokens == whole[: len(tokens)]
                canceled += 1
            else:
                assert tokens == whole
    assert canceled > 10


def test_step_and_overlap_step_give_the_same_tokens_and_ends() -> None:
    draw = random.Random(5)
    asked = [
        ask(str(i), p, max_tokens=draw.randint(1, 30), min_tokens=0, ignore_eos=False, stop_token_ids=[7, 8])
        for i, p in enumerate(similar_prompts(draw, 30))
    ]
    outcomes = []
    for overlap in (False, True):
        core = small_engine("mixed", blocks=64, behind=overlap, overlap=overlap)
        for one in asked:
            core.add(one)
        outcomes.append(finish(core))
    plain, ahead = outcomes
    assert plain.tokens == ahead.tokens
    assert {k: (d.finish_reason, d.stop_token) for k, d in plain.ends.items()} == {
        k: (d.finish_reason, d.stop_token) for k, d in ahead.ends.items()
    }
    assert {reason.finish_reason for reason in plain.ends.values()} == {FinishReason.STOP, FinishReason.LENGTH}


def test_overlap_launches_a_step_before_the_last_one_is_read() -> None:
    core = small_engine(overlap=True, behind=True)
    core.add(ask("a", [1, 2], max_tokens=5))
    launched_at = []
    while core.has_work:
        read = sum(len(d.token_ids) for d in core.next_deltas())
        launched_at.append((runner_of(core).launched, read))
    # Launches run one ahead of tokens, and no step is launched beyond the last token.
    assert launched_at == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 1), (5, 1)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_operations(data: st.DataObject) -> None:
    random_operations(data)


@pytest.mark.full
@settings(max_examples=3_000, deadline=None)
@given(data=st.data())
def test_many_random_operations(data: st.DataObject) -> None:
    random_operations(data)


def random_operations(data: st.DataObject) -> None:
    """Any order of adding, aborting, resetting and stepping, on any small pool."""
    name = data.draw(st.sampled_from(sorted(SPECS)))
    overlap, behind = data.draw(st.booleans()), data.draw(st.booleans())
    core = small_engine(
        name,
        blocks=data.draw(st.integers(26, 80)),
        behind=behind and overlap,
        overlap=overlap,
        max_num_seqs=data.draw(st.integers(1, 6)),
        max_batched_tokens=data.draw(st.integers(6, 40)),
        max_prompt_tokens=data.draw(st.integers(1, 40)),
        prefix_cache=data.draw(st.booleans()),
        state_snapshots=data.draw(st.integers(0, 4)),
    )
    draw, outcome, asked = random.Random(data.draw(st.integers(0, 2**20))), Outcome(), {}
    lengths = similar_prompts(draw, 40, 30)
    for number, operation in enumerate(data.draw(st.lists(st.sampled_from("aaasssssxr"), max_size=60))):
        if operation == "a":
            one = ask(
                str(number), lengths[number % 40][: core.max_len - 1], max_tokens=draw.randint(1, 25),
                n=draw.choice([1, 1, 2]), ignore_eos=draw.random() < 0.5, priority=draw.randint(0, 2),
            )  # fmt: skip
            asked[one.id] = one
            core.add(one)
        elif operation == "s":
            outcome.take(core.next_deltas())
        elif operation == "x" and asked:
            core.abort(draw.choice(sorted(asked)), draw.choice([None, None, 0, 1]))
        elif operation == "r":
            core.reset_prefix_cache()
    finish(core, outcome)
    for one in asked.values():
        for index in range(one.sampling.n):
            tokens, whole = outcome.tokens[one.id, index], right(core, one, index)
            canceled = outcome.reason(one.id, index) is FinishReason.CANCELED
            assert tokens == (whole[: len(tokens)] if canceled else whole)


@pytest.mark.parametrize("chunk", [1, 5, 16, 1000])
def test_a_prompt_in_chunks_is_the_prompt(chunk: int) -> None:
    core = small_engine("mixed", max_batched_tokens=chunk if chunk < 1000 else 256, max_num_seqs=1)
    asked = ask("a", range(45), max_tokens=5)
    core.add(asked)
    assert finish(core).tokens["a", 0] == right(core, asked)
    assert core.stats().steps == -(-45 // chunk) + 4


def test_window_blocks_come_back_while_the_sequence_runs() -> None:
    core = small_engine("window", blocks=9)
    asked = ask("a", range(40), max_tokens=100)
    core.add(asked)
    used, outcome = [], Outcome()
    while core.has_work:
        outcome.take(core.next_deltas())
        used.append(core.stats().blocks_used)
    assert outcome.tokens["a", 0] == right(core, asked)
    assert len(outcome.tokens["a", 0]) == 100
    assert max(used) <= 8


@pytest.mark.parametrize("chunk", [16, 64])
def test_choices_share_the_prompt(chunk: int) -> None:
    core = small_engine("full", max_num_seqs=8, max_batched_tokens=chunk)
    asked = ask("a", range(41), n=5, max_tokens=6)
    core.add(asked)
    outcome = finish(core)
    for index in range(5):
        assert outcome.tokens["a", index] == right(core, asked, index)
        assert outcome.first["a", index].cached_tokens == (40 if index else 0)
    assert len({tuple(outcome.tokens["a", i]) for i in range(5)}) == 5
    assert runner_of(core).computed_tokens == 41 + 4 * 1 + 5 * 5


def test_choices_without_a_prefix_cache_compute_for_themselves() -> None:
    core = small_engine("full", prefix_cache=False)
    asked = ask("a", range(20), n=3, max_tokens=4)
    core.add(asked)
    outcome = finish(core)
    assert [outcome.tokens["a", index] for index in range(3)] == [right(core, asked, index) for index in range(3)]


@pytest.mark.parametrize("index", [0, 1, None])
def test_one_choice_can_be_aborted(index: int | None) -> None:
    core = small_engine("full")
    asked = ask("a", range(10), n=3, max_tokens=6)
    core.add(asked)
    outcome = Outcome()
    core.abort("a", index)
    finish(core, outcome)
    for choice in range(3):
        if index in (None, choice):
            assert outcome.reason("a", choice) is FinishReason.CANCELED
        else:
            assert outcome.tokens["a", choice] == right(core, asked, choice)


def test_an_equal_prompt_hits_and_is_told_once() -> None:
    core = small_engine("mixed")
    core.add(ask("a", range(30)))
    finish(core)
    core.add(ask("b", range(30)))
    outcome = Outcome()
    told = []
    while core.has_work:
        deltas = core.next_deltas()
        outcome.take(deltas)
        told += [delta.cached_tokens for delta in deltas]
    assert told == [28] + [0] * 7
    assert core.stats().prefix_hit_rate == pytest.approx(28 / 60)
    core.reset_prefix_cache()
    core.add(ask("c", range(30)))
    assert finish(core).first["c", 0].cached_tokens == 0


def test_salt_keeps_tenants_apart() -> None:
    core = small_engine("full")
    core.add(evolve(ask("a", range(30)), salt=b"one"))
    finish(core)
    core.add(evolve(ask("b", range(30)), salt=b"two"))
    assert finish(core).first["b", 0].cached_tokens == 0
