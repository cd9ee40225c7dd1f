# SPDX-License-Identifier: Apache-2.0
"""Who runs, who waits and who gives way."""

from __future__ import annotations

import pytest

from tramontane.engine import EngineCore
from tramontane.sequence import StepPlan
from tramontane.testing.mock_engine import EOS, Outcome, ask, finish, right, small_engine


def watch(core: EngineCore) -> list[StepPlan]:
    """Keep every plan that is launched."""
    plans, launch = [], core.runner.launch

    def keep(plan: StepPlan) -> object:
        plans.append(plan)
        return launch(plan)

    core.runner.launch = keep
    return plans


def test_prompts_are_capped_beside_decoding_rows_only() -> None:
    core = small_engine("full", max_batched_tokens=64, max_prompt_tokens=10)
    plans = watch(core)
    core.add(ask("a", range(40), max_tokens=20))
    core.next_deltas()
    assert plans[-1].prompt_tokens == 40
    core.add(ask("b", range(10, 45), max_tokens=3))
    for _ in range(5):
        core.next_deltas()
    assert [plan.prompt_tokens for plan in plans[1:6]] == [10, 10, 10, 5, 0]
    assert all(plan.rows[0].seq.request.id == "a" for plan in plans)
    finish(core)


def test_prompts_are_capped_by_the_measured_time() -> None:
    core = small_engine("full", max_batched_tokens=64, prompt_seconds=0.5)
    plans = watch(core)
    core.add(ask("a", range(40), max_tokens=20))
    core.next_deltas()
    core.pace.token_s, core.pace.decode_s = 0.025, 0.1
    core.add(ask("b", range(10, 45), max_tokens=3))
    core.next_deltas()
    assert plans[-1].prompt_tokens == 20
    core.pace.token_s = 10.0
    assert core.pace.prompt_cap() == 16
    core.pace.token_s, core.pace.decode_s = 0.025, 0.4
    assert core.pace.prompt_cap() == 32
    finish(core)


def test_pace_learns_what_a_prompt_token_costs() -> None:
    core = small_engine("full")
    for _ in range(40):
        core.pace.observe(4, 0, 0.010)
        core.pace.observe(104, 100, 0.060)
    assert core.pace.decode_s == pytest.approx(0.010)
    assert core.pace.token_s == pytest.approx(0.0005)


def test_priority_then_arrival_decide_who_starts() -> None:
    core = small_engine("full", max_num_seqs=1)
    for name, priority in (("low", 0), ("first", 5), ("second", 5)):
        core.add(ask(name, [1, 2, 3], priority=priority))
    ends: list[str] = []
    while core.has_work:
        ends += [d.request_id for d in core.next_deltas() if d.finish_reason]
    assert ends == ["first", "second", "low"]


@pytest.mark.parametrize("overlap", [False, True])
def test_the_newest_is_preempted_and_answers_the_same(overlap: bool) -> None:
    core = small_engine("full", blocks=17, max_num_seqs=4, overlap=overlap, behind=overlap)
    asked = [ask(name, range(i, i + 8), max_tokens=30) for i, name in enumerate("abc")]
    for one in asked:
        core.add(one)
    outcome, counts = Outcome(), {}
    while core.has_work:
        for seqs in core.scheduler.requests.values():
            counts[seqs[0].request.id] = seqs[0].preemptions
        outcome.take(core.next_deltas())
    assert counts["a"] == 0
    assert counts["c"] > 0
    assert core.stats().preemptions <= 4
    for one in asked:
        assert outcome.tokens[one.id, 0] == right(core, one)


def test_nobody_is_let_in_who_would_be_preempted_at_the_next_block() -> None:
    core = small_engine("full", blocks=17, max_num_seqs=4)
    core.add(ask("a", range(32), max_tokens=4))  # 8 of 16 blocks, and a ninth at the next step
    core.add(ask("b", range(1, 32), max_tokens=5))  # the other 8
    core.next_deltas()
    assert [seq.request.id for seq in core.scheduler.running] == ["a"]
    finish(core)
    assert core.stats().preemptions == 0


def test_blocks_promised_to_a_prompt_in_chunks_are_not_given_away() -> None:
    core = small_engine("full", blocks=17, max_num_seqs=4, max_batched_tokens=8)
    core.add(ask("a", range(40), max_tokens=2))
    core.next_deltas()
    core.add(ask("b", range(1, 41), max_tokens=2))
    finish(core)
    assert core.stats().preemptions == 0


def test_a_preempted_sequence_finds_its_own_blocks_again() -> None:
    core = small_engine("full", blocks=30, max_num_seqs=4)
    for name in "ab":
        core.add(ask(name, range(10), max_tokens=30))
    for _ in range(12):
        core.next_deltas()
    victim = core.scheduler.running[-1]
    core.scheduler._preempt(victim)
    before = core.stats().prefix_hits
    core.next_deltas()
    assert core.stats().prefix_hits - before >= 16
    finish(core)


def test_a_finished_sequence_keeps_its_blocks_until_the_step_ahead_has_retired() -> None:
    core = small_engine("full", overlap=True, behind=True)
    asked = ask("a", range(6), max_tokens=50, ignore_eos=False)
    tokens = right(core, asked)
    assert tokens[-1] == EOS[0], "the mock must meet EOS for this test"
    core.add(asked)
    while core.scheduler.requests:
        core.next_deltas()
    assert core.has_work
    assert core.stats().blocks_used > 0
    finish(core)
