# SPDX-License-Identifier: Apache-2.0
"""How requests end, what is refused, and what tasks and log-probabilities bring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tramontane.engine import EngineConfig, EngineCore
from tramontane.errors import ConfigError, OutOfMemoryError, PromptTooLongError, RequestError
from tramontane.requests import Delta, FinishReason, Task
from tramontane.sequence import StepPlan
from tramontane.testing.mock import History, logits
from tramontane.testing.mock_engine import EOS, VOCABULARY, ask, finish, right, runner_of, small_engine


def outputs(core: EngineCore, **sampling: object) -> tuple[list[int], Delta]:
    core.add(ask("x", range(6), **sampling))
    outcome = finish(core)
    return outcome.tokens["x", 0], outcome.ends["x", 0]


def test_ends_by_length_eos_stop_id_and_context() -> None:
    free, end = outputs(small_engine(), max_tokens=60)
    assert (len(free), end.finish_reason, end.stop_token) == (60, FinishReason.LENGTH, None)
    stop = free[7]
    first = free.index(stop)
    tokens, end = outputs(small_engine(), max_tokens=60, stop_token_ids=[stop])
    assert (tokens, end.finish_reason, end.stop_token) == (free[: first + 1], FinishReason.STOP, stop)
    endless, end = outputs(small_engine(), max_tokens=None)
    assert (len(endless), end.finish_reason) == (160 - 6, FinishReason.LENGTH)
    assert EOS[0] in endless
    tokens, end = outputs(small_engine(), max_tokens=None, ignore_eos=False)
    assert tokens == endless[: endless.index(EOS[0]) + 1]
    assert (end.finish_reason, end.stop_token) == (FinishReason.STOP, EOS[0])


def test_min_tokens_puts_off_eos() -> None:
    core = small_engine()
    asked = ask("x", range(6), max_tokens=150, min_tokens=140, ignore_eos=False)
    core.add(asked)
    tokens = finish(core).tokens["x", 0]
    assert tokens == right(core, asked)
    assert EOS[0] not in tokens[:140]


def test_an_eos_before_min_tokens_does_not_end_even_if_sampled() -> None:
    core = small_engine()
    core.add(ask("x", range(6), max_tokens=9, min_tokens=4, ignore_eos=False))
    run = runner_of(core)._run

    def always_eos(plan: StepPlan, ctx: Any) -> Any:
        result = run(plan, ctx)
        result.token_ids = [EOS[0]] * len(result.token_ids)
        return result

    runner_of(core)._run = always_eos
    assert finish(core).tokens["x", 0] == [EOS[0]] * 5


def test_a_pool_shorter_than_the_model_ends_sequences_by_length() -> None:
    core = small_engine("full", blocks=11)
    assert core.max_len == 40
    tokens, end = outputs(core, max_tokens=None)
    assert (len(tokens), end.finish_reason) == (34, FinishReason.LENGTH)


@pytest.mark.parametrize(
    ("prompt", "blocks", "error", "message"),
    [
        (range(0), 200, RequestError, "no tokens"),
        ([1, 50], 200, RequestError, "token id 50 is not in the vocabulary of 50"),
        ([1, -1], 200, RequestError, "token id -1"),
        ([1] * 160, 200, PromptTooLongError, "has 160 tokens; model and cache hold at most 159"),
        ([1] * 40, 11, PromptTooLongError, "hold at most 39"),
    ],
)
def test_what_can_never_run_is_refused(prompt: list[int], blocks: int, error: type[Exception], message: str) -> None:
    core = small_engine("full", blocks=blocks)
    with pytest.raises(error, match=message):
        core.add(ask("a", prompt))
    assert not core.has_work
    core.add(ask("b", [1, 2]))
    assert finish(core).reason("b") is FinishReason.LENGTH


def test_a_cache_that_holds_nothing_is_refused() -> None:
    with pytest.raises(OutOfMemoryError, match="a cache of 2 blocks"):
        small_engine("mixed", blocks=2)


def test_the_longest_prompt_that_fits_runs() -> None:
    core = small_engine("full", blocks=11)
    core.add(ask("a", [1] * 39))
    core.add(ask("l", [1] * 40, task=Task.LOGITS))
    outcome = finish(core)
    assert len(outcome.tokens["a", 0]) == 1
    assert outcome.ends["l", 0].output is not None


def test_an_id_is_served_once_at_a_time() -> None:
    core = small_engine()
    core.add(ask("a", [1]))
    with pytest.raises(RequestError, match="'a' is being served"):
        core.add(ask("a", [2]))
    finish(core)
    core.add(ask("a", [2]))
    finish(core)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_num_seqs": 0},
        {"max_batched_tokens": 3},
        {"num_blocks": 1},
        {"prompt_seconds": float("nan")},
        {"block_tokens": True},
    ],
)
def test_wrong_settings_are_named(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        EngineConfig(**fields)


@pytest.mark.parametrize("chunk", [4, 64])
@pytest.mark.parametrize("overlap", [False, True])
def test_logits_and_embeddings_cover_every_token(chunk: int, overlap: bool) -> None:
    core = small_engine("mixed", max_batched_tokens=chunk, max_num_seqs=2, overlap=overlap)
    prompt = list(range(19))
    core.add(ask("g", prompt))
    finish(core)  # the prefix cache could be hit now
    core.add(ask("l", prompt, task=Task.LOGITS))
    core.add(ask("e", prompt, task=Task.EMBED))
    outcome = finish(core)
    history = History(core.runner.cache_layout)
    values = [history.value(prompt[: end + 1]) for end in range(19)]
    assert np.array_equal(outcome.ends["l", 0].output, [logits(value, VOCABULARY) for value in values])
    assert np.array_equal(outcome.ends["e", 0].output, logits(values[-1], 4))
    assert outcome.reason("l") is FinishReason.STOP
    assert outcome.tokens["l", 0] == []


def test_prompt_logprobs_come_whole_with_the_first_token() -> None:
    told = []
    for chunk in (5, 64):
        core = small_engine("full", max_batched_tokens=chunk, max_num_seqs=2, overlap=chunk == 5)
        core.add(ask("a", range(17), prompt_logprobs=0, logprobs=2, max_tokens=4))
        outcome = finish(core)
        first = outcome.first["a", 0]
        assert first.prompt_logprobs is not None
        assert first.prompt_logprobs[0] is None
        assert [one.token_id for one in first.prompt_logprobs[1:] if one] == list(range(1, 17))
        assert [one.token_id for one in first.logprobs] == outcome.tokens["a", 0][:1]
        assert outcome.ends["a", 0].prompt_logprobs is None
        told.append((first.prompt_logprobs, outcome.tokens["a", 0]))
    assert told[0] == told[1]


def test_tasks_survive_preemption() -> None:
    core = small_engine("full", max_batched_tokens=8)
    core.add(ask("l", range(20), task=Task.LOGITS))
    core.add(ask("p", range(20), prompt_logprobs=0))
    for _ in range(4):
        core.next_deltas()
        core.scheduler._preempt(core.scheduler.running[-1])
    outcome = finish(core)
    history = History(core.runner.cache_layout)
    values = [history.value(list(range(end + 1))) for end in range(20)]
    assert np.array_equal(outcome.ends["l", 0].output, [logits(value, VOCABULARY) for value in values])
    assert len(outcome.first["p", 0].prompt_logprobs or ()) == 20
