# SPDX-License-Identifier: Apache-2.0
"""A host whose engines are processes of their own: the same answers, the same errors, and a death that costs little."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tramontane import AsyncLLM, SamplingParams
from tramontane.api import Completion
from tramontane.errors import (
    ConfigError,
    EngineClosedError,
    EngineDiedError,
    GrammarError,
    ModelNotFoundError,
    PlanError,
    PromptTooLongError,
    UnknownNameError,
)
from tramontane.grammar import Constraint
from tramontane.host import Host, ModelState

pytest.importorskip("tramontane_loader_demo", reason="runs the demo model")

PROMPTS = ["Once upon a time", "There was a king", "A dog and a cat"]
GREEDY = SamplingParams(max_tokens=24, temperature=0)
SEEDED = SamplingParams(max_tokens=16, seed=7, n=2, logprobs=2, prompt_logprobs=1, stop=("the",))
ENDLESS = SamplingParams(max_tokens=None, ignore_eos=True)
ZOMBIE = "it has ended, and nobody waited for it"
POSTED: dict[str, Any] = {
    "/v1/completions": {"model": "demo", "max_tokens": 8, "prompt": PROMPTS[0]},
    "/v1/messages": {"model": "demo", "max_tokens": 8, "messages": [{"role": "user", "content": PROMPTS[0]}]},
}
SETTINGS: dict[str, Any] = {"num_blocks": 300, "dtype": "float32"}


@pytest.fixture(scope="module")
def apart() -> Iterator[Host]:
    before = children()
    host = Host(apart=True)
    host.add("demo", **SETTINGS)
    yield host
    host.close()
    left = {number: line for number, line in children().items() if number not in before}
    assert [line for line in left.values() if line == ZOMBIE or "tramontane.child" in line] == []


@pytest.fixture(scope="module")
def here() -> Iterator[Host]:
    host = Host()
    host.add("demo", **SETTINGS)
    yield host
    host.close()


def children() -> dict[int, str]:
    """The command lines of this process's children, by number; those that ended and were not waited for have none."""
    found = {}
    for one in psutil.Process().children():
        try:
            found[one.pid] = " ".join(one.cmdline())
        except psutil.ZombieProcess:
            found[one.pid] = ZOMBIE
        except psutil.NoSuchProcess:
            pass
    return found


def process_of(llm: AsyncLLM) -> int:
    """The number of the process that a model's engine is in."""
    found: int = llm._service.running.pid  # type: ignore[attr-defined]
    return found


async def reached(state: Callable[[], bool], patience: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + patience
    while not state():
        assert time.monotonic() < end, f"not within {patience:g} s"
        await asyncio.sleep(0.02)


async def alive(host: Host, patience: float = 120.0) -> AsyncLLM:
    """The model once its engine runs again."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        llm = await host.acquire()
        if llm.failure is None:
            return llm
        await asyncio.sleep(0.05)
    raise AssertionError("the engine was not started anew")


def client_of(host: Host) -> httpx.AsyncClient:
    """Asks the server over a host, within this process."""
    http = pytest.importorskip("tramontane_frontend_http", reason="the server is not installed")
    transport = httpx.ASGITransport(http.make_app(host))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=120)


async def test_answers_are_those_of_an_engine_in_this_process(apart: Host, here: Host) -> None:
    one, other = await apart.acquire(), await here.acquire()
    assert process_of(one) != os.getpid()
    assert (one.max_model_len, one.vocab_size) == (other.max_model_len, other.vocab_size)
    for params in (GREEDY, SEEDED):
        ours, theirs = await one.generate(PROMPTS, params), await other.generate(PROMPTS, params)
        for mine, right in zip(ours, theirs, strict=True):
            for name in ("text", "token_ids", "finish_reason"):
                assert [getattr(one, name) for one in mine.choices] == [getattr(one, name) for one in right.choices]
            # Requests that come one by one may share other steps, and rows of other batches round otherwise.
            assert figures(mine) == pytest.approx(figures(right), abs=1e-3)
            assert mine.usage.completion_tokens == right.usage.completion_tokens
    assert np.allclose(await one.embed(PROMPTS), await other.embed(PROMPTS), atol=1e-3)
    assert np.allclose(await one.logits(PROMPTS[0]), await other.logits(PROMPTS[0]), atol=1e-3)
    held = evolved(GREEDY, Constraint.regex("(yes|no)!"))
    assert (await one.generate("Is it?", held)).text == (await other.generate("Is it?", held)).text
    async with one.generate(PROMPTS[0], GREEDY) as stream:
        pieces = [delta.text async for delta in stream]
    assert len(pieces) > 1
    assert "".join(pieces) == (await other.generate(PROMPTS[0], GREEDY)).text


async def test_what_is_asked_turn_by_turn_begins_in_one_step(apart: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tramontane.child.process.BURST_S", 30.0)
    llm = await apart.acquire()
    await asyncio.sleep(0.2)  # what was told last of the engine is at most a tenth of a second old
    before = llm.stats()
    params, asked = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True), []
    for number in range(12):
        asked.append(asyncio.create_task(llm.generate(f"{number} boats", params).completions()))
        await asyncio.sleep(0)
        time.sleep(0.01)  # other threads may run, as while another request is read
    await asyncio.gather(*asked)
    await reached(lambda: llm.stats().requests == before.requests + 12 and not llm.stats().running)
    assert llm.stats().steps - before.steps <= 3  # one after the other they take two each


def figures(completion: Completion) -> list[float]:
    """Every log-probability of an answer and of its prompt."""
    told = [one for choice in completion.choices for one in choice.logprobs or ()]
    told += [one for one in completion.prompt_logprobs or () if one is not None]
    return [value for one in told for value in (one.logprob, *(logprob for _, logprob in one.top))]


def evolved(params: SamplingParams, constraint: Constraint) -> SamplingParams:
    return SamplingParams(max_tokens=params.max_tokens, temperature=0, constraint=constraint)


async def test_errors_are_those_of_an_engine_in_this_process(apart: Host) -> None:
    llm = await apart.acquire()
    with pytest.raises(PromptTooLongError):
        await llm.generate([[1] * (llm.max_model_len + 1)])
    with pytest.raises(GrammarError, match="unclosed group"):
        await llm.generate("x", SamplingParams(constraint=Constraint.regex("(")))
    with pytest.raises(UnknownNameError, match="q99"):
        await llm.requantize("q99")
    with pytest.raises(PlanError, match="process"):
        _ = llm.plan
    assert (await llm.generate(PROMPTS[0], GREEDY)).text


async def test_what_is_left_or_cancelled_holds_nothing(apart: Host) -> None:
    llm = await apart.acquire()
    before = llm.stats().sampled_tokens
    async with llm.generate(PROMPTS[0], ENDLESS) as stream:
        await anext(stream)
    await reached(lambda: llm.stats().sampled_tokens > before and not (llm.stats().running or llm.stats().blocks_used))


async def test_weights_are_exchanged_there(apart: Host) -> None:
    llm, seen = await apart.acquire(), []
    right = (await llm.generate(PROMPTS[0], GREEDY)).text
    await llm.requantize("q4k", progress=seen.append)
    assert llm._service.info.quant
    assert {event.phase for event in seen} == {"quantize"}
    await llm.requantize(None)
    assert llm._service.info.quant is None
    assert (await llm.generate(PROMPTS[0], GREEDY)).text == right


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
async def test_an_engine_that_dies_ends_its_requests_and_is_started_anew(
    apart: Host, caplog: pytest.LogCaptureFixture
) -> None:
    llm = await apart.acquire()
    right = (await llm.generate(PROMPTS[0], GREEDY)).text
    streams = [llm.generate(prompt, ENDLESS) for prompt in PROMPTS]
    for stream in streams:
        await anext(stream)
    os.kill(process_of(llm), signal.SIGSTOP)  # the next requests are not answered before it dies
    async with client_of(apart) as client:
        asked = [asyncio.create_task(client.post(path, json=body)) for path, body in POSTED.items()]
        await reached(lambda: len(llm._service.running._mail._boxes) == len(streams) + len(asked))  # type: ignore[attr-defined]
        os.kill(process_of(llm), signal.SIGKILL)
        for answer in await asyncio.gather(*asked):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert "try again" in answer.json()["error"]["message"]
    for stream in streams:
        with pytest.raises(EngineDiedError, match="SIGKILL"):
            async for _ in stream:
                pass
    with pytest.raises(EngineDiedError):
        await llm.generate(PROMPTS[0])
    with pytest.raises(EngineDiedError):
        await llm.requantize("q8_0")
    again = await alive(apart)
    assert process_of(again) != process_of(llm)
    assert (await again.generate(PROMPTS[0], GREEDY)).text == right
    assert apart.model("demo").state is ModelState.READY
    assert "SIGKILL" in caplog.text


async def test_unloading_ends_the_process_and_its_requests(apart: Host) -> None:
    llm = await apart.acquire()
    stream = llm.generate(PROMPTS[0], ENDLESS)
    await anext(stream)
    await apart.unload("demo")
    with pytest.raises(EngineClosedError):
        async for _ in stream:
            pass
    assert not psutil.pid_exists(process_of(llm))
    assert apart.model("demo").state is ModelState.CONFIGURED


@pytest.mark.full
async def test_an_engine_that_dies_again_and_again_is_left_alone() -> None:
    host = Host(apart=True)
    host.add("demo", **SETTINGS)
    try:
        for _ in range(3):
            os.kill(process_of(await alive(host)), signal.SIGKILL)
            await asyncio.sleep(0.5)
        await reached(lambda: host.model("demo").state is ModelState.FAILED)
        await asyncio.sleep(1)
        assert host.model("demo").state is ModelState.FAILED
        assert (await (await host.acquire()).generate(PROMPTS[0], GREEDY)).text, "whoever asks starts it"
    finally:
        host.close()


async def test_what_cannot_be_loaded_fails_as_it_does_here(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(apart=True)
    host.add("missing", "/there/is/no/such/folder")
    host.add("small", "demo", kv_memory=1)
    host.add("wrong", "demo", max_num_seqs=0)
    with pytest.raises(ModelNotFoundError):
        await host.acquire("missing")
    with caplog.at_level(logging.INFO), pytest.raises(PlanError):
        await host.acquire("small")
    with pytest.raises(ConfigError, match="max_num_seqs"):
        await host.acquire("wrong")
    assert host.model("small").error
    host.close()
