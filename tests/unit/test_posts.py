# SPDX-License-Identifier: Apache-2.0
"""How deltas reach an event loop: urgent ones at once, the others together and in order, none lost."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import pytest

from tramontane.engine.mail import Mailroom
from tramontane.engine.posts import MOST_S, Letter, LoopPost, pause
from tramontane.errors import ConfigError
from tramontane.requests import Delta, EngineRequest, FinishReason
from tramontane.testing.mock_engine import small_engine

INTERVAL = 0.05


class Box:
    """A sink that remembers when it got what."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self.got: list[tuple[float, list[Delta]]] = []

    def put(self, deltas: list[Delta]) -> None:
        assert asyncio.get_running_loop() is self.loop
        self.got.append((time.monotonic(), deltas))

    @property
    def tokens(self) -> list[int]:
        return [token for _, deltas in self.got for delta in deltas for token in delta.token_ids]


def token(number: int, request_id: str = "a", reason: FinishReason | None = None) -> Delta:
    return Delta(request_id=request_id, token_ids=(number,), finish_reason=reason)


async def test_what_is_not_urgent_goes_together_and_in_order() -> None:
    box = Box()
    post = LoopPost(asyncio.get_running_loop(), INTERVAL)

    def steps() -> None:
        for number in range(60):
            post.send([Letter(box, [token(number)], urgent=False)])
            time.sleep(0.004)

    begun = time.monotonic()
    await asyncio.to_thread(steps)
    seconds = time.monotonic() - begun
    await asyncio.sleep(2 * INTERVAL)
    assert box.tokens == list(range(60))
    assert all(len(deltas) == 1 for _, deltas in box.got)
    assert 2 <= len(box.got) <= seconds / INTERVAL + 2
    times = [at for at, _ in box.got]
    assert min(later - at for at, later in pairwise(times)) > 0.5 * INTERVAL


async def test_what_is_urgent_goes_at_once_with_what_was_held_before_it() -> None:
    hurried, patient = Box(), Box()
    post = LoopPost(asyncio.get_running_loop(), 30.0)
    post.send([Letter(hurried, [token(0)], urgent=False), Letter(patient, [token(0, "b")], urgent=False)])
    await asyncio.sleep(0.02)  # the first delivery is due at once; what follows waits for half a minute
    for number in (1, 2):
        post.send([Letter(hurried, [token(number)], False), Letter(patient, [token(number, "b")], False)])
    post.send([Letter(hurried, [token(3, reason=FinishReason.LENGTH)], urgent=True)])
    await asyncio.sleep(0.02)
    assert hurried.tokens == [0, 1, 2, 3]
    assert hurried.got[-1][1] == [Delta(request_id="a", token_ids=(1, 2, 3), finish_reason=FinishReason.LENGTH)]
    assert patient.tokens == [0]


@pytest.mark.parametrize(
    ("interval", "streams", "seconds"),
    [(0.016, 1, 0.016), (0.016, 8, 0.016), (0.016, 16, 0.032), (0.016, 500, MOST_S), (0.2, 500, 0.2), (0.0, 500, 0.0)],
)
def test_many_streams_are_told_more_rarely(interval: float, streams: int, seconds: float) -> None:
    assert pause(interval, streams) == pytest.approx(seconds)


async def test_a_loop_with_many_streams_waits_longer() -> None:
    boxes = [Box() for _ in range(40)]
    post = LoopPost(asyncio.get_running_loop(), 0.001)
    begun = time.monotonic()
    for number in range(60):
        post.send([Letter(box, [token(number)], urgent=False) for box in boxes])
        await asyncio.sleep(0.004)
    await asyncio.sleep(2 * MOST_S)
    assert all(box.tokens == list(range(60)) for box in boxes)
    assert len(boxes[0].got) <= (time.monotonic() - begun) / MOST_S + 2


async def test_without_an_interval_every_step_is_delivered() -> None:
    box = Box()
    post = LoopPost(asyncio.get_running_loop(), 0.0)
    for number in range(5):
        post.send([Letter(box, [token(number)], urgent=False)])
        await asyncio.sleep(0.001)
    assert [deltas for _, deltas in box.got] == [[token(number)] for number in range(5)]


async def test_a_held_token_is_delivered_though_no_step_follows() -> None:
    box = Box()
    post = LoopPost(asyncio.get_running_loop(), INTERVAL)
    for number in range(2):
        post.send([Letter(box, [token(number)], urgent=False)])
        await asyncio.sleep(0.001)
    assert box.tokens == [0]
    await asyncio.sleep(2 * INTERVAL)
    assert box.tokens == [0, 1]


async def test_first_tokens_and_ends_are_urgent() -> None:
    box = Box()
    room = Mailroom(lambda request_id: None, interval=30.0)
    room.expect([EngineRequest(id="a", prompt_token_ids=(1,))], box)
    for step in ([token(0)], [token(1)], [token(2)]):
        room.deliver(step)
        await asyncio.sleep(0.005)
    assert box.tokens == [0, 1]  # the first token, and the first delivery of what is not urgent
    room.deliver([token(3, reason=FinishReason.STOP)])
    await asyncio.sleep(0.005)
    assert box.tokens == [0, 1, 2, 3]


def test_a_closed_loop_loses_its_requests_though_a_delivery_was_due() -> None:
    lost: list[str] = []
    room = Mailroom(lost.append, interval=30.0)

    async def leave() -> None:
        room.expect([EngineRequest(id="a", prompt_token_ids=(1,))], Box())
        for number in range(3):
            room.deliver([token(number)])
            await asyncio.sleep(0.005)

    thread = threading.Thread(target=lambda: asyncio.run(leave()))
    thread.start()
    thread.join()
    assert not lost
    room.deliver([token(3)])
    assert lost == ["a"]


def test_an_interval_must_be_a_time() -> None:
    for wrong in (-0.1, 11.0, "soon", float("nan")):
        with pytest.raises(ConfigError, match="stream_interval"):
            small_engine(stream_interval=wrong)
