# SPDX-License-Identifier: Apache-2.0
"""What a failure costs: the requests it touches, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tramontane.errors import RequestError
from tramontane.requests import FinishReason
from tramontane.sequence import StepPlan
from tramontane.testing.mock_engine import Outcome, ask, finish, right, runner_of, small_engine


@pytest.mark.parametrize(("overlap", "behind"), [(False, False), (True, False), (True, True)])
def test_a_failed_step_ends_its_requests_only(overlap: bool, behind: bool) -> None:
    core = small_engine("mixed", overlap=overlap, behind=behind, max_num_seqs=2)
    runner_of(core).fail = lambda plan: ValueError("at 0x7fff12345678 in /home/me") if plan.serial == 3 else None
    asked = [ask(name, range(i, i + 20), max_tokens=10, n=2) for i, name in enumerate("abc")]
    for one in asked:
        core.add(one)
    outcome = finish(core)
    failed = {name for (name, _), end in outcome.ends.items() if end.finish_reason is FinishReason.ERROR}
    assert failed == {"a", "b"}
    error = outcome.ends["a", 0].error
    assert error is not None
    assert "ValueError" in error
    assert "0x7fff" not in error
    for index in range(2):
        assert outcome.tokens["c", index] == right(core, asked[2], index)
    assert core.stats().failed_steps == 1


def test_what_a_failed_step_wrote_is_not_found_later() -> None:
    core = small_engine("full")
    runner_of(core).fail = lambda plan: RequestError("no") if plan.serial == 1 else None
    core.add(ask("a", range(20)))
    assert finish(core).ends["a", 0].error == "no"
    core.add(ask("b", range(20)))
    assert finish(core).first["b", 0].cached_tokens == 0


def test_a_launch_that_raises_is_a_failed_step() -> None:
    core = small_engine("full", overlap=True)
    launch = core.runner.launch

    def explode(plan: StepPlan) -> object:
        if plan.serial == 2:
            raise MemoryError
        return launch(plan)

    core.runner.launch = explode
    core.add(ask("a", range(5)))
    assert finish(core).reason("a") is FinishReason.ERROR
    core.add(ask("b", range(5)))
    assert finish(core).reason("b") is FinishReason.LENGTH


def test_a_sequence_that_cannot_start_fails_alone() -> None:
    core = small_engine("full", max_num_seqs=1)
    started = core.runner.started

    def refuse(sequence: object) -> None:
        started(sequence)
        if sequence.request.id == "bad":
            raise RequestError("the grammar does not compile")

    core.runner.started = refuse
    core.add(ask("bad", range(5), n=2))
    core.add(ask("good", range(5)))
    outcome = finish(core)
    assert [outcome.ends["bad", index].error for index in range(2)] == ["the grammar does not compile"] * 2
    assert outcome.reason("good") is FinishReason.LENGTH


def test_a_row_that_cannot_be_sampled_fails_alone() -> None:
    core = small_engine("full")
    asked = [ask(name, range(i, i + 5)) for i, name in enumerate("abc")]
    run = runner_of(core)._run

    def with_fault(plan: StepPlan, ctx: Any) -> Any:
        result = run(plan, ctx)
        if plan.serial == 4:
            result.faults[1] = "the grammar allows no token"
        return result

    runner_of(core)._run = with_fault
    for one in asked:
        core.add(one)
    outcome = finish(core)
    assert outcome.ends["b", 0].error == "the grammar allows no token"
    assert outcome.tokens["a", 0] == right(core, asked[0])
    assert outcome.tokens["c", 0] == right(core, asked[2])


def test_a_request_that_cannot_make_progress_ends_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    core = small_engine("full")
    core.add(ask("a", range(5)))
    core.add(ask("b", range(5)))
    monkeypatch.setattr(core.cache, "allocate", lambda holding, tokens: False)
    outcome = Outcome()
    outcome.take(core.next_deltas())
    monkeypatch.undo()
    finish(core, outcome)
    assert outcome.ends["a", 0].error == "the cache has no room for this request"
    assert outcome.reason("b") is FinishReason.LENGTH


def test_after_a_fault_of_its_own_the_engine_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    core = small_engine("full", overlap=True, behind=True)
    for name in "ab":
        core.add(ask(name, range(20), n=2))
    outcome = Outcome()
    for _ in range(3):
        outcome.take(core.next_deltas())
    broken = KeyError("bookkeeping")
    outcome.take(core.recover(broken))
    assert {end.finish_reason for end in outcome.ends.values()} == {FinishReason.ERROR}
    assert len(outcome.ends) == 4
    asked = ask("c", range(20))
    core.add(asked)
    assert finish(core, outcome).tokens["c", 0] == right(core, asked)


def test_stats_add_up() -> None:
    core = small_engine("full")
    core.add(ask("a", range(10), max_tokens=4))
    core.add(ask("b", range(20, 30), max_tokens=4))
    core.next_deltas()
    stats = core.stats()
    assert (stats.running, stats.waiting, stats.requests, stats.blocks, stats.blocks_used) == (2, 0, 2, 199, 6)
    finish(core)
    stats = core.stats()
    assert (stats.prompt_tokens, stats.sampled_tokens, stats.steps, stats.failed_steps) == (20, 8, 4, 0)
    assert stats.step_s > 0
    assert stats.usage == 0.0


def test_aborting_the_unknown_is_no_error() -> None:
    core = small_engine()
    core.abort("nobody")
    assert not core.has_work


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("overlap", [False, True])
def test_abort_frees_at_any_moment(steps: int, overlap: bool) -> None:
    core = small_engine("mixed", overlap=overlap, behind=overlap, max_batched_tokens=10)
    core.add(ask("a", range(24), n=2, max_tokens=20))
    core.add(ask("b", range(24), max_tokens=20))
    outcome = Outcome()
    for _ in range(steps):
        outcome.take(core.next_deltas())
    core.abort("a")
    finish(core, outcome)
    assert outcome.reason("a") is FinishReason.CANCELED
    assert outcome.reason("a", 1) is FinishReason.CANCELED
    assert outcome.reason("b") is FinishReason.LENGTH
