# SPDX-License-Identifier: Apache-2.0
"""Many streams at once, clients that leave and that read slowly: none lost, none mixed up, nothing leaked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from load import body, quiet, storm, streams

from tramontane.host import Host


def test_streams_are_neither_lost_nor_mixed_up(server: str, host: Host) -> None:
    tally = asyncio.run(storm(server, streams=24, seconds=1))
    assert not tally.wrong
    assert tally.whole >= 5
    assert tally.left >= 1
    assert quiet(host) == 0


@pytest.mark.full
def test_256_streams_for_two_minutes() -> None:
    found = streams(256, 120)
    print(found)
    assert not found["wrong"]
    assert found["whole"] >= 256
    assert found["blocks_held"] == 0
    assert found["grown_mb"] < 50


async def leave_before_the_first_token(url: str, times: int) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        for place in range(times):
            given = {**body("Once upon a time"), "max_tokens": 400, "stream": place % 2 == 0}
            asking = asyncio.create_task(client.post(f"{url}/v1/completions", json=given))
            await asyncio.sleep(0.03)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("times", [12, pytest.param(1000, marks=pytest.mark.full)])
def test_clients_that_leave_at_once_hold_nothing(server: str, host: Host, times: int) -> None:
    """Streamed or not: a request whose client is gone ends before its tokens are all made."""
    asyncio.run(storm(server, streams=1, seconds=0.1))
    asyncio.run(leave_before_the_first_token(server, times))
    assert quiet(host) == 0
    metrics = host.metrics()["storyteller"]
    assert metrics["running"] == metrics["waiting"] == 0


@pytest.mark.full
def test_responses_survive_a_kill(tmp_path: Path) -> None:
    """``kill -9`` while responses are stored: every one whose answer arrived is there after the next start."""
    import killing

    for kill, folder in ((killing.run, tmp_path / "store"), (killing.run_server, tmp_path / "server")):
        folder.mkdir()
        acknowledged, missing = kill(folder, kills=3)
        print(f"{kill.__name__}: {acknowledged} responses acknowledged")
        assert acknowledged > 10
        assert not missing


def test_responses_survive_one_kill(tmp_path: Path) -> None:
    import killing

    begun = time.monotonic()
    acknowledged, missing = killing.run(tmp_path, kills=1)
    assert acknowledged >= 3, time.monotonic() - begun
    assert not missing
