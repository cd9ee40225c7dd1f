# SPDX-License-Identifier: Apache-2.0
"""Deltas on their way to a thread: what comes fast goes together, what somebody waits for does not wait."""

from __future__ import annotations

import threading
import time

from tramontane.api.thread_sink import ThreadSink
from tramontane.requests import Delta, FinishReason

LONG = 30.0


def token(number: int, reason: FinishReason | None = None) -> list[Delta]:
    return [Delta(request_id="a", index=0, token_ids=(number,), finish_reason=reason)]


def read(sink: ThreadSink) -> list[int]:
    return [token for deltas, _ in sink.wait() for delta in deltas for token in delta.token_ids]


def test_first_deltas_and_ends_do_not_wait() -> None:
    sink = ThreadSink(LONG)
    began = time.monotonic()
    sink.put(token(1))
    assert read(sink) == [1]
    sink.put(token(2))
    threading.Timer(0.05, sink.put, [token(3, FinishReason.LENGTH)]).start()
    assert read(sink) == [2, 3], "both, when the end came"
    sink.put(token(4))
    sink.put(token(5, FinishReason.STOP))
    assert read(sink) == [4, 5]
    assert time.monotonic() - began < LONG / 2


def test_what_comes_within_the_interval_goes_together() -> None:
    sink = ThreadSink(0.2)
    sink.put(token(0))
    assert read(sink) == [0]
    for number in range(1, 6):
        sink.put(token(number))
    began = time.monotonic()
    assert read(sink) == [1, 2, 3, 4, 5]
    assert time.monotonic() - began >= 0.19


def test_what_comes_after_the_interval_is_handed_over_at_once() -> None:
    sink = ThreadSink(0.01)
    sink.put(token(0))
    assert read(sink) == [0]
    threading.Timer(0.1, sink.put, [token(1)]).start()
    began = time.monotonic()
    assert read(sink) == [1]
    assert time.monotonic() - began >= 0.09


def test_without_an_interval_nothing_waits() -> None:
    sink = ThreadSink()
    for number in range(3):
        sink.put(token(number))
        assert read(sink) == [number]


def test_waking_ends_a_wait_with_nothing() -> None:
    sink = ThreadSink(LONG)
    threading.Timer(0.05, sink.wake).start()
    assert sink.wait() == []
    sink.put(token(1))
    assert read(sink) == [1], "being woken was no beginning"
    threading.Timer(0.05, sink.wake).start()
    assert sink.wait() == []
