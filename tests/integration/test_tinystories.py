# SPDX-License-Identifier: Apache-2.0
"""A trained model gives exactly the ids that were recorded for it, however it is asked and whatever runs beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tramontane import LLM, AsyncLLM, SamplingParams

MODEL = Path(__file__).resolve().parents[3] / "shared" / "data" / "models" / "tinystories-656k-hf"

pytestmark = pytest.mark.skipif(
    not (MODEL / "greedy_expected.json").exists(), reason=f"the shared test data is not there: {MODEL}"
)

OPENINGS = (
    "Once upon a time",
    "The dog",
    "Lily and Tom",
    "One day a",
    "There was",
    "A big red",
    "Mom said",
    "In the park",
)
GREEDY = SamplingParams(max_tokens=None, temperature=0)


@pytest.fixture(scope="module")
def expected() -> tuple[list[int], list[int]]:
    """Prompt ids and the ids that follow them, EOS included."""
    recorded = json.loads((MODEL / "greedy_expected.json").read_text())
    prompt: list[int] = recorded["prompt_ids"]
    assert recorded["ids"][: len(prompt)] == prompt
    return prompt, recorded["ids"][len(prompt) :]


@pytest.fixture(scope="module")
def logprobs() -> list[float]:
    found: list[float] = json.loads((MODEL / "greedy_expected.json").read_text())["logprobs"]
    return found


def _others() -> list[Any]:
    """31 other prompts of many lengths, as text and as ids; some begin like the recorded one."""
    texts: list[Any] = [f"{OPENINGS[i % 8]} {'and ' * (i % 5)}" for i in range(20)]
    return texts + [[1, 147, 201, 282][: 1 + i % 4] + [300 + 7 * i] * (i % 3 * 20) for i in range(11)]


CONFIGURATIONS = {
    "captured": {"capture": True},
    "eager": {"capture": False},
    "captured, chunks of 16": {"capture": True, "max_batched_tokens": 16},
    "eager, chunks of 16": {"capture": False, "max_batched_tokens": 16},
    "captured, overlapped": {"capture": True, "overlap": True},
    "eager, overlapped, chunks of 16": {"capture": False, "overlap": True, "max_batched_tokens": 16},
    "captured, no prefix cache": {"capture": True, "prefix_cache": False},
    "reference backend": {"backend": "reference"},
}


@pytest.fixture(scope="module", params=CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    with LLM(MODEL, block_tokens=16, **request.param) as llm:
        yield llm


def test_alone(llm: LLM, expected: tuple[list[int], list[int]]) -> None:
    prompt, ids = expected
    out = llm.generate(prompt, GREEDY)
    assert list(out.token_ids) == ids
    assert list(out.prompt_token_ids) == prompt
    assert list(llm.generate("", GREEDY).token_ids) == ids


def test_with_prefix_hits(llm: LLM, expected: tuple[list[int], list[int]]) -> None:
    """From many places of its own text the model goes on as before, whether the beginning was cached or not."""
    prompt, ids = expected
    whole = [*prompt, *ids]
    hits = []
    for cut in (100, 100, 33, 64, len(whole) - 2):
        out = llm.generate(whole[:cut], GREEDY)
        assert list(out.token_ids) == whole[cut:]
        hits.append(out.usage.cached_tokens)
    caching = llm.stats().blocks_cached > 0
    assert (hits[1] >= 96 and hits[2] == 32) if caching else not any(hits)


@pytest.mark.parametrize(
    "place", [13, pytest.param(0, marks=pytest.mark.full), pytest.param(31, marks=pytest.mark.full)]
)
def test_in_a_batch_of_32(llm: LLM, expected: tuple[list[int], list[int]], place: int) -> None:
    """The others end at many times, so that the recorded one runs in company of many sizes."""
    prompt, ids = expected
    prompts, params = _others(), [SamplingParams(max_tokens=5 + 4 * i, temperature=0) for i in range(31)]
    prompts.insert(place, prompt)
    params.insert(place, GREEDY)
    outs = llm.generate(prompts, params)
    assert len(outs) == 32
    assert list(outs[place].token_ids) == ids


def test_the_log_probabilities_are_the_recorded_ones(
    llm: LLM, expected: tuple[list[int], list[int]], logprobs: list[float]
) -> None:
    prompt, ids = expected
    out = llm.generate(prompt, SamplingParams(max_tokens=None, temperature=0, logprobs=1))
    assert list(out.token_ids) == ids
    assert out.logprobs is not None
    assert [entry.logprob for entry in out.logprobs] == pytest.approx(logprobs, abs=2e-4)
    assert {entry.rank for entry in out.logprobs} == {1}


def test_logits_agree_with_the_greedy_path(llm: LLM, expected: tuple[list[int], list[int]]) -> None:
    prompt, ids = expected
    logits = llm.logits([*prompt, *ids])
    assert logits.shape == (len(prompt) + len(ids), llm.vocab_size)
    assert logits.argmax(axis=1)[len(prompt) - 1 : -1].tolist() == ids


async def test_through_the_event_loop(expected: tuple[list[int], list[int]]) -> None:
    prompt, ids = expected
    async with await AsyncLLM.load(MODEL) as llm:
        streamed = [token async for delta in llm.generate(prompt, GREEDY) for token in delta.token_ids]
    assert streamed == ids


@pytest.mark.parametrize(
    "arguments",
    [["-p", ""], ["-p", "", "--no-capture", "--max-batched-tokens", "16", "--no-prefix-cache"]],
    ids=["captured", "eager, chunks of 16"],
)
def test_through_the_command_line(expected: tuple[list[int], list[int]], arguments: list[str]) -> None:
    prompt, ids = expected
    command = [sys.executable, "-m", "tramontane", "run", "-m", str(MODEL), "--temperature", "0", "--json", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env={**os.environ})
    answer = json.loads(ended.stdout)
    assert list(answer) == ["text", "token_ids", "prompt_token_ids", "finish_reason", "usage"]
    assert answer["token_ids"] == ids
    assert answer["prompt_token_ids"] == prompt
    assert answer["finish_reason"] == "stop"
    assert answer["text"].startswith("Once upon a time, there was a little girl named Lily.")
    assert answer["usage"].keys() == {"prompt_tokens", "completion_tokens", "ttft_s", "prompt_tps", "decode_tps"}
    assert answer["usage"]["completion_tokens"] == len(ids)
    assert "no chat template" in ended.stderr
