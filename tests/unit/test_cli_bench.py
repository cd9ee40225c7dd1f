# SPDX-License-Identifier: Apache-2.0
"""``tramontane bench``: which tests it runs, that its clocks tell the truth, what it prints."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tramontane.api import LLM
from tramontane.api.service import Service
from tramontane.api.settings import load_options
from tramontane.cli.app import run
from tramontane.cli.measure import EXTRAS, Bench, Case, Spread, cases
from tramontane.engine import EngineConfig
from tramontane.errors import RequestError
from tramontane.testing.answering import answering_llm, answering_service

STEP_S = 0.004


def test_names_are_those_of_llama_bench() -> None:
    planned = cases((512, 0), (128, 0), (0, 4096), (1, 8))
    assert [(case.name, case.concurrency) for case in planned] == [
        (name, count) for count in (1, 8) for name in ("pp512", "tg128", "pp512@d4096", "tg128@d4096")
    ]
    assert cases((0,), (0,), (0,), (1,)) == []
    further = cases((512,), (128,), (0,), (1,), ["a"], ["logprobs", "grammar"])
    names = ["pp512", "pp512+a", "tg128", "tg128+a", "tg128+logprobs", "tg128+grammar"]
    assert [case.name for case in further] == names
    assert [case.longest for case in cases((512,), (128,), (0, 10), (1,))] == [514, 130, 523, 139]


def test_mean_and_deviation() -> None:
    assert (Spread((1.0, 3.0)).mean, Spread((1.0, 3.0)).deviation) == (2.0, pytest.approx(2**0.5))
    assert (Spread((5.0,)).mean, Spread((5.0,)).deviation) == (5.0, 0.0)


def _llm(**settings: Any) -> LLM:
    """Each step takes ``STEP_S``; 64 tokens fit a step."""
    engine = EngineConfig(
        block_tokens=16, max_batched_tokens=64, max_num_seqs=8, max_prompt_tokens=64, prompt_seconds=60
    )
    return answering_llm(lambda prompt: "x" * 1000, step_s=STEP_S, engine=engine, **settings)


@pytest.mark.parametrize(
    ("case", "steps", "tokens"),
    [
        (Case(prompt=256, new=0, depth=0, concurrency=1), 4, 256),
        (Case(prompt=128, new=0, depth=0, concurrency=4), 8, 512),
        (Case(prompt=64, new=0, depth=256, concurrency=1), 1, 64),
        (Case(prompt=0, new=20, depth=0, concurrency=1), 20, 20),
        (Case(prompt=0, new=20, depth=0, concurrency=8), 20, 160),
        (Case(prompt=0, new=20, depth=100, concurrency=4), 20, 80),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else str(value),
)
def test_rates_follow_from_the_steps(case: Case, steps: int, tokens: int) -> None:
    """A step takes a known time, so the rate is known but for the work around it, which makes it smaller."""
    with _llm() as llm:
        began = time.monotonic()
        found = Bench(llm).measure(case, 2)
        spent = time.monotonic() - began
    ideal = tokens / (steps * STEP_S)
    assert len(found.tokens_per_s.samples) == 2
    best = max(found.tokens_per_s.samples)
    assert best <= ideal * 1.05
    assert best * spent >= tokens, "each sample took a part of the time alone"
    assert min(found.ttft_s.samples) >= STEP_S


def test_what_cannot_fit_is_refused_before_anything_runs() -> None:
    with _llm(max_model_len=600) as llm:
        bench = Bench(llm)
        bench.check(cases((512,), (128,), (0,), (1,)))
        with pytest.raises(RequestError, match="pp512@d128, tg128@d500: too long, a sequence may have 600 tokens"):
            bench.check([Case(512, 0, 128, 1), Case(0, 128, 500, 1), Case(0, 8, 0, 1)])
        assert llm.stats().requests == 0


def test_requests_that_cannot_run_together_are_refused() -> None:
    with _llm(num_blocks=9) as llm, pytest.raises(RequestError, match="ended before all 8 had begun"):
        Bench(llm).measure(Case(prompt=0, new=20, depth=100, concurrency=8), 1)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Loading makes an answering model with the asked engine; the settings are noted."""
    found: list[dict[str, Any]] = []

    def load(
        reference: str, given: Mapping[str, Any], plugins: Any, progress: object, name: str | None = None
    ) -> Service:
        found.append(dict(given))
        return answering_service(lambda prompt: "x" * 1000, engine=load_options(given).engine, name=reference)

    monkeypatch.setattr(Service, "load", load)
    return found


def test_json(settings: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "-m", "some", "-p", "16", "-g", "4", "-d", "0,32", "-c", "1,2", "-r", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["test"], row["concurrency"]) for row in rows] == [
        (name, count) for count in (1, 2) for name in ("pp16", "tg4", "pp16@d32", "tg4@d32")
    ]
    assert all(row["tokens_per_s"] > 0 and row["ttft_s"] > 0 and len(row["samples"]) == 2 for row in rows)
    assert {"stddev", "n_prompt", "n_gen", "n_depth", "repetitions", "model", "device", "dtype"} <= rows[0].keys()
    assert settings[0]["max_num_seqs"] == 2


def test_decoding_with_extras(settings: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    given = [part for extra in EXTRAS for part in ("--with", extra)]
    assert run(["bench", "-m", "some", "-p", "16", "-g", "4", "-r", "1", "--json", *given]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["extra"] for row in rows] == [None, None, *EXTRAS]
    assert all(row["tokens_per_s"] > 0 for row in rows)


def test_the_prefix_cache_is_off_unless_prefill_at_a_depth_needs_it(
    settings: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "-m", "some", "-p", "16", "-g", "4", "-r", "1"]) == 0
    assert run(["bench", "-m", "some", "-p", "0", "-g", "4", "-d", "16", "-r", "1"]) == 0
    assert run(["bench", "-m", "some", "-p", "16", "-g", "0", "-d", "16", "-r", "1"]) == 0
    assert [given["prefix_cache"] for given in settings] == [False, False, True]
    out = capsys.readouterr().out
    assert "pp16@d16" in out
    assert "tokens/s" in out


def test_wrong_usage(settings: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "-m", "some", "-p", "0", "-g", "0"]) == 2
    assert "nothing to measure" in capsys.readouterr().err
    assert run(["bench", "-m", "some", "-c", "8", "--max-num-seqs", "4"]) == 2
    assert "--concurrency 8 needs --max-num-seqs" in capsys.readouterr().err
    assert run(["bench", "-m", "some", "-p", "many"]) == 2
    assert settings == []
