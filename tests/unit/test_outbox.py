# SPDX-License-Identifier: Apache-2.0
"""How an engine's process tells of its steps: rarely where nobody waits, at once where somebody does."""

from __future__ import annotations

import time

from tramontane.child.outbox import Outbox
from tramontane.engine.posts import MOST_S
from tramontane.requests import Delta, FinishReason


def token(number: int, request_id: str = "a", reason: FinishReason | None = None) -> Delta:
    return Delta(request_id=request_id, token_ids=(number,), finish_reason=reason)


def started(interval: float) -> tuple[Outbox, list[tuple[float, list[Delta]]]]:
    told: list[tuple[float, list[Delta]]] = []
    box = Outbox(lambda deltas: told.append((time.monotonic(), deltas)), interval)
    box.start()
    return box, told


def until(told: list[tuple[float, list[Delta]]], tokens: int) -> None:
    end = time.monotonic() + 5
    while sum(len(delta.token_ids) for _, deltas in told for delta in deltas) < tokens and time.monotonic() < end:
        time.sleep(0.002)


def test_many_steps_are_few_messages_and_nothing_is_lost() -> None:
    box, told = started(0.05)
    begun = time.monotonic()
    for number in range(50):
        box.put([token(number), token(number, "b")])
        time.sleep(0.004)
    box.put([token(50, reason=FinishReason.LENGTH), token(50, "b", FinishReason.STOP)])
    until(told, 102)
    assert len(told) <= (told[-1][0] - begun) / 0.05 + 3
    for request_id, reason in (("a", FinishReason.LENGTH), ("b", FinishReason.STOP)):
        mine = [delta for _, deltas in told for delta in deltas if delta.request_id == request_id]
        assert [one for delta in mine for one in delta.token_ids] == list(range(51))
        assert [delta.finish_reason for delta in mine] == [None] * (len(mine) - 1) + [reason]


def test_many_streams_are_told_more_rarely() -> None:
    box, told = started(0.001)
    names = [str(number) for number in range(40)]
    begun = time.monotonic()
    for number in range(50):
        box.put([token(number, name) for name in names])
        time.sleep(0.004)
    box.put([token(50, name, FinishReason.LENGTH) for name in names])
    until(told, 51 * len(names))
    assert len(told) <= (told[-1][0] - begun) / MOST_S + 3


def test_first_tokens_and_ends_do_not_wait_for_others() -> None:
    box, told = started(60.0)
    box.put([token(0)])
    until(told, 1)
    box.put([token(1)])  # the first message of what is not urgent
    until(told, 2)
    box.put([token(2)])
    box.put([token(0, "b")])
    until(told, 3)
    assert told[-1][1] == [token(0, "b")]
    box.put([token(3, reason=FinishReason.LENGTH)])
    until(told, 5)
    assert told[-1][1] == [Delta(request_id="a", token_ids=(2, 3), finish_reason=FinishReason.LENGTH)]


def test_without_an_interval_nothing_waits() -> None:
    box, told = started(0.0)
    for number in range(4):
        box.put([token(number)])
        until(told, number + 1)
    assert [deltas for _, deltas in told] == [[token(number)] for number in range(4)]
