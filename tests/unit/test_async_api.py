# SPDX-License-Identifier: Apache-2.0
"""``AsyncLLM``: streams, hundreds at a time, cancellation, errors, and the blocking face of the same model."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tramontane import AsyncLLM, SamplingParams
from tramontane.api import Completion
from tramontane.engine import EngineConfig
from tramontane.errors import EngineClosedError, PromptTooLongError, RequestError
from tramontane.requests import FinishReason
from tramontane.testing.answering import answering_service

ALL = SamplingParams(max_tokens=None)


@pytest.fixture
async def llm() -> AsyncIterator[AsyncLLM]:
    async with AsyncLLM.over(answering_service(lambda prompt: f"<{prompt}>")) as llm:
        yield llm


@pytest.fixture
async def endless() -> AsyncIterator[AsyncLLM]:
    async with AsyncLLM.over(answering_service(lambda prompt: "word " * 190, step_s=0.001)) as llm:
        yield llm


async def _wait(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def _idle(llm: AsyncLLM) -> bool:
    stats = llm.stats()
    return stats.running == 0 and stats.waiting == 0 and stats.blocks_used == 0


async def test_a_stream(llm: AsyncLLM) -> None:
    deltas = [delta async for delta in llm.generate("hi", ALL)]
    assert "".join(delta.text for delta in deltas) == "<hi>"
    assert deltas[-1].completion is not None
    assert deltas[-1].completion.usage.completion_tokens == 5


async def test_the_whole_answer(llm: AsyncLLM) -> None:
    out = await llm.generate("hi", ALL)
    assert isinstance(out, Completion)
    assert out.text == "<hi>"
    outs = await llm.generate(["a", "b"], ALL)
    assert [out.text for out in outs] == ["<a>", "<b>"]
    out = await llm.chat([{"role": "user", "content": "hi"}], ALL)
    assert out.text == "<<user>hi\n<assistant>>"
    assert (await llm.logits([3, 4])).argmax(axis=1).tolist() == [3, 4]
    assert (await llm.embed(["a", "b"])).shape == (2, 2)


async def test_hundreds_at_a_time(llm: AsyncLLM) -> None:
    """Each gets its own answer, and the loop stays free between the steps."""

    async def one(number: int) -> bool:
        text = ""
        async for delta in llm.generate(f"prompt {number}", ALL):
            text += delta.text
        return text == f"<prompt {number}>"

    lags = []

    async def pulse() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - before - 0.01)

    heart = asyncio.create_task(pulse())
    assert all(await asyncio.gather(*(one(number) for number in range(300))))
    heart.cancel()
    assert sorted(lags)[len(lags) // 2] < 0.1
    await _wait(lambda: _idle(llm))


async def test_small_pools_and_random_departures() -> None:
    """Some readers leave at once, some later, some stay; the cache is too small for all; nobody gets another's text."""
    service = answering_service(
        lambda prompt: f"{prompt}:" + "abcdefgh" * 12,
        num_blocks=40,
        engine=EngineConfig(block_tokens=16, max_num_seqs=16, max_batched_tokens=64, num_blocks=40),
    )
    choose = random.Random(7)

    async def one(number: int, stay: int) -> None:
        text = ""
        async for delta in llm.generate(f"p{number}", ALL):
            text += delta.text
            if len(text) >= stay:
                break
        whole = f"p{number}:" + "abcdefgh" * 12
        assert whole.startswith(text)
        assert text == whole or len(text) >= stay

    async with AsyncLLM.over(service) as llm:
        await asyncio.gather(*(one(number, choose.choice([0, 1, 20, 1000])) for number in range(120)))
        gc.collect()
        await _wait(lambda: _idle(llm))


async def test_cancelling_the_reader_ends_the_request(endless: AsyncLLM) -> None:
    async def read() -> None:
        async for _ in endless.generate("a", ALL):
            pass

    task = asyncio.create_task(read())
    await _wait(lambda: endless.stats().running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _wait(lambda: _idle(endless))


async def test_time_limits_and_leaving_end_the_request(endless: AsyncLLM) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(endless.generate("a", ALL).completions(), 0.1)
    await _wait(lambda: _idle(endless))
    async for _ in endless.generate("b", ALL):
        break
    await _wait(lambda: _idle(endless))
    async with endless.generate("c", ALL) as stream:
        await anext(stream)
    await _wait(lambda: _idle(endless))
    assert [delta async for delta in stream] == []


async def test_errors_come_with_the_first_wait(llm: AsyncLLM) -> None:
    stream = llm.generate([1, 99999])
    with pytest.raises(RequestError, match="token id 99999"):
        await stream
    with pytest.raises(PromptTooLongError):
        await llm.generate("x" * 2000)
    with pytest.raises(RequestError, match="list of messages"):
        await llm.chat("hi")  # type: ignore[arg-type]
    assert (await llm.generate("ok", ALL)).text == "<ok>"


async def test_closing_ends_streams(endless: AsyncLLM) -> None:
    stream = endless.generate("a", ALL)
    await anext(stream)
    await endless.aclose()
    with pytest.raises(EngineClosedError):
        async for _ in stream:
            pass
    with pytest.raises(EngineClosedError):
        await endless.generate("b")


async def test_stop_strings(llm: AsyncLLM) -> None:
    out = await llm.generate("abcSTOPdef", SamplingParams(max_tokens=None, stop=["STOP"]))
    assert out.text == "<abc"
    assert out.finish_reason is FinishReason.STOP
    await _wait(lambda: _idle(llm))


def test_a_loop_that_ended_leaves_nothing_behind() -> None:
    service = answering_service(lambda prompt: "word " * 190, step_s=0.001)
    llm = AsyncLLM.over(service)

    async def begin() -> object:
        stream = llm.generate("a", ALL)
        await anext(stream)
        return stream

    stream = asyncio.run(begin())
    deadline = time.monotonic() + 5
    while not _idle(llm):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    del stream
    blocking = llm.blocking()
    assert blocking.generate("b", SamplingParams(max_tokens=4)).text == "word"
    assert asyncio.run(llm.generate("c", SamplingParams(max_tokens=4)).completions())[0].text == "word"
    blocking.close()
