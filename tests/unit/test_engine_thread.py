# SPDX-License-Identifier: Apache-2.0
"""The engine in its thread: many clients, slow and dead ones, failures, shutdown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tramontane.engine import AsyncSink, EngineThread, QueueSink
from tramontane.engine.sinks import MOST_DELTAS, merge
from tramontane.errors import EngineClosedError, PromptTooLongError, RequestError
from tramontane.requests import Delta, EngineRequest, FinishReason, TokenLogprobs
from tramontane.sequence import StepPlan
from tramontane.testing.mock_engine import ask, right, runner_of, small_engine

PATIENCE = 20.0


@pytest.fixture(params=[False, True], ids=["step", "overlap"])
def engine(request: pytest.FixtureRequest) -> Iterator[EngineThread]:
    thread = EngineThread(small_engine("mixed", overlap=request.param, behind=request.param))
    yield thread
    thread.close(timeout=PATIENCE)
    assert not thread._thread.is_alive()


def gather(sink: QueueSink) -> tuple[list[int], Delta]:
    tokens: list[int] = []
    last = None
    while deltas := sink.get(PATIENCE):
        for delta in deltas:
            tokens += delta.token_ids
            last = delta
    assert last is not None
    return tokens, last


def generate(engine: EngineThread, asked: EngineRequest) -> list[int]:
    sink = QueueSink(asked.sampling.n)
    engine.submit([asked], sink)
    return gather(sink)[0]


def slow_down(engine: EngineThread, seconds: float = 0.002) -> None:
    """Make every step take a while."""
    runner_of(engine._core).fail = lambda plan: time.sleep(seconds)


def test_many_threads_get_their_own_answers(engine: EngineThread) -> None:
    asked = [ask(str(i), range(i, i + 20), max_tokens=10 + i) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: generate(engine, one), asked))
    assert answers == [right(engine._core, one) for one in asked]


async def test_many_coroutines_get_their_own_answers(engine: EngineThread) -> None:
    async def one(asked: EngineRequest) -> list[int]:
        sink = AsyncSink()
        engine.submit([asked], sink)
        return [token async for delta in sink for token in delta.token_ids]

    asked = [ask(str(i), range(i, i + 20), max_tokens=10 + i) for i in range(24)]
    answers = await asyncio.wait_for(asyncio.gather(*(one(a) for a in asked)), PATIENCE)
    assert answers == [right(engine._core, a) for a in asked]


async def test_a_step_costs_an_event_loop_one_call(engine: EngineThread, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, calls = asyncio.get_running_loop(), []
    post = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a, **k: (calls.append(a), post(*a, **k))[1])
    sinks = [AsyncSink() for _ in range(8)]
    engine.call(lambda core: [core_submit(engine, index, sink) for index, sink in enumerate(sinks)]).result(PATIENCE)
    for sink in sinks:
        async for _ in sink:
            pass
    steps = engine.stats().steps
    assert len(calls) <= steps


def core_submit(engine: EngineThread, index: int, sink: AsyncSink) -> None:
    engine.submit([ask(str(index), [index, 1, 2], max_tokens=30)], sink)


def test_a_slow_reader_loses_nothing_and_hoards_nothing(engine: EngineThread) -> None:
    asked = ask("a", range(10), max_tokens=140, n=2)
    sink = QueueSink(2)
    engine.submit([asked], sink)
    while engine._core.has_work or engine.stats().requests == 0:
        time.sleep(0.005)
    deltas = list(sink)
    assert len(deltas) <= MOST_DELTAS + 2
    for index in range(2):
        mine = [delta for delta in deltas if delta.index == index]
        assert [token for delta in mine for token in delta.token_ids] == right(engine._core, asked, index)
        assert [delta.finish_reason for delta in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1].finish_reason is FinishReason.LENGTH


def test_merged_deltas_say_what_their_parts_said() -> None:
    one = TokenLogprobs(token_id=5, logprob=-1.0, rank=1)
    parts = [
        Delta(request_id="a", token_ids=(5,), logprobs=(one,), cached_tokens=8, prompt_logprobs=(None, one)),
        Delta(request_id="a", index=1, token_ids=(9,)),
        Delta(request_id="a", token_ids=(6,), logprobs=(one,)),
        Delta(request_id="a", token_ids=(3,), finish_reason=FinishReason.STOP, stop_token=3),
    ]
    assert merge(parts) == [
        Delta(
            request_id="a", token_ids=(5, 6, 3), logprobs=(one, one), cached_tokens=8, prompt_logprobs=(None, one),
            finish_reason=FinishReason.STOP, stop_token=3,
        ),
        parts[1],
    ]  # fmt: skip


def test_abort_ends_the_answer(engine: EngineThread) -> None:
    slow_down(engine)
    sink = QueueSink()
    engine.submit([ask("a", range(10), max_tokens=None)], sink)
    sink.get(PATIENCE)
    engine.abort("a")
    _, last = gather(sink)
    assert last.finish_reason is FinishReason.CANCELED
    engine.abort("nobody")
    assert generate(engine, ask("b", [1])) == right(engine._core, ask("b", [1]))


def test_what_can_never_run_is_refused_at_once(engine: EngineThread) -> None:
    with pytest.raises(PromptTooLongError):
        engine.submit([ask("a", [1] * 500)], QueueSink())
    slow_down(engine)
    engine.submit([ask("b", [1], max_tokens=50)], QueueSink())
    with pytest.raises(RequestError, match="'b' is being served"):
        engine.submit([ask("b", [1])], QueueSink())


def test_an_id_is_free_again_after_its_answer(engine: EngineThread) -> None:
    asked = ask("a", range(7))
    assert generate(engine, asked) == generate(engine, asked) == right(engine._core, asked)


def test_waiting_for_a_token_can_time_out() -> None:
    with pytest.raises(TimeoutError):
        QueueSink().get(0.01)


# --- failures ---------------------------------------------------------------------------------------------------------


class DeadSink:
    """A client that went away without a word."""

    loop = None

    def put(self, deltas: list[Delta]) -> None:
        raise BrokenPipeError


def test_a_sink_that_fails_loses_its_request_only(engine: EngineThread) -> None:
    engine.submit([ask("dead", range(10), max_tokens=None)], DeadSink())
    asked = ask("alive", range(10), max_tokens=40)
    assert generate(engine, asked) == right(engine._core, asked)
    assert not engine.call(lambda core: core.serves("dead")).result(PATIENCE)


def test_a_closed_event_loop_frees_its_requests(engine: EngineThread) -> None:
    slow_down(engine)

    async def leave() -> None:
        sink = AsyncSink()
        engine.submit([ask("gone", range(10), max_tokens=None)], sink)
        await sink.get()

    asyncio.run(leave())
    asked = ask("alive", range(10), max_tokens=20)
    assert generate(engine, asked) == right(engine._core, asked)
    assert not engine.call(lambda core: core.serves("gone")).result(PATIENCE)


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3), KeyError("x")])
def test_nothing_a_runner_raises_ends_the_thread(engine: EngineThread, error: BaseException) -> None:
    runner = runner_of(engine._core)
    launch = runner.launch

    def explode(plan: StepPlan) -> Any:
        raise error

    runner.launch = explode
    sink = QueueSink(2)
    engine.submit([ask("a", range(10), n=2)], sink)
    _, last = gather(sink)
    assert last.finish_reason is FinishReason.ERROR
    runner.launch = launch
    asked = ask("b", range(10))
    assert generate(engine, asked) == right(engine._core, asked)


def test_a_fault_in_the_bookkeeping_ends_requests_and_not_the_thread(engine: EngineThread) -> None:
    slow_down(engine)
    sink = QueueSink()
    engine.submit([ask("a", range(10), max_tokens=None)], sink)
    sink.get(PATIENCE)

    def sabotage(core: Any) -> None:
        core.scheduler.landed = None

    engine.call(sabotage).result(PATIENCE)
    _, last = gather(sink)
    assert last.finish_reason is FinishReason.ERROR
    asked = ask("b", range(10))
    assert generate(engine, asked) == right(engine._core, asked)


def test_a_request_that_cannot_be_added_is_told(engine: EngineThread) -> None:
    slow_down(engine)
    engine.call(lambda core: core.add(ask("a", range(5), max_tokens=None))).result(PATIENCE)
    sink = QueueSink(2)
    engine.submit([ask("a", range(5), n=2)], sink)
    _, last = gather(sink)
    assert last.error is not None
    assert "is being served already" in last.error


def test_calls_return_results_and_errors(engine: EngineThread) -> None:
    assert engine.call(lambda core: core.max_len).result(PATIENCE) == engine.max_len

    def fail(core: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine.call(fail).result(PATIENCE)


# --- shutdown ---------------------------------------------------------------------------------------------------------


def test_close_cancels_and_refuses(engine: EngineThread) -> None:
    slow_down(engine)
    sink = QueueSink()
    engine.submit([ask("a", range(10), max_tokens=None)], sink)
    sink.get(PATIENCE)
    engine.close(timeout=PATIENCE)
    _, last = gather(sink)
    assert last.finish_reason is FinishReason.CANCELED
    assert engine.closed
    with pytest.raises(EngineClosedError):
        engine.submit([ask("b", [1])], QueueSink())
    with pytest.raises(EngineClosedError):
        engine.call(lambda core: None)
    engine.close()


def test_close_with_drain_serves_to_the_end(engine: EngineThread) -> None:
    asked = [ask(str(i), range(i, i + 10), max_tokens=60) for i in range(12)]
    sinks = [QueueSink() for _ in asked]
    for one, sink in zip(asked, sinks, strict=True):
        engine.submit([one], sink)
    engine.close(drain=True, timeout=PATIENCE)
    for one, sink in zip(asked, sinks, strict=True):
        assert gather(sink)[0] == right(engine._core, one)


def test_a_sink_may_close_the_engine(engine: EngineThread) -> None:
    class Closing:
        loop = None

        def put(self, deltas: list[Delta]) -> None:
            engine.close()

    engine.submit([ask("a", range(10), max_tokens=None)], Closing())
    engine._thread.join(PATIENCE)
    assert not engine._thread.is_alive()


def test_the_interpreter_exits_cleanly_in_the_middle_of_an_answer() -> None:
    program = """
        import threading
        from tramontane.engine import EngineThread, QueueSink
        from tramontane.testing.mock_engine import ask, small_engine
        engine = EngineThread(small_engine())
        for number in range(5):
            sink = QueueSink()
            engine.submit([ask(str(number), range(10), max_tokens=None)], sink)
            sink.get(20)
        print("leaving")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_the_switch_interval_is_short_while_an_engine_runs(engine: EngineThread) -> None:
    assert sys.getswitchinterval() <= 1e-4 + 1e-9


def test_an_idle_engine_sleeps(engine: EngineThread) -> None:
    generate(engine, ask("a", [1]))
    before = engine._core.stats().steps
    cpu = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - cpu < 0.1
    assert engine._core.stats().steps == before
