# SPDX-License-Identifier: Apache-2.0
"""Open streams by the hundred, clients that leave and that read slowly; and what streams cost an engine's steps.

    python tests/integration/server/load.py streams [STREAMS] [SECONDS]
    python tests/integration/server/load.py latency [STREAMS]

``streams`` takes ``--in-process`` for a host whose engine is not in a process of its own; ``latency`` compares the two.
Every prompt has one right answer (greedy), so an answer that is lost, cut or another request's is seen at once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
from attrs import define, field

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "plugins" / "scripted")]

from processes import served  # noqa: E402
from serving import listening, make_host  # noqa: E402

WORDS = ("cat", "dog", "tree", "boat", "star", "king", "bird", "fish")
TOKENS = 32


@define
class Tally:
    """What became of the streams."""

    whole: int = 0
    left: int = 0
    wrong: list[str] = field(factory=list)


def prompts() -> list[str]:
    """Prompts that the model goes on from differently."""
    return [f"Once upon a time there was a {word}" for word in WORDS]


def body(prompt: str) -> dict[str, Any]:
    """A stream of the right answer."""
    return {"model": "storyteller", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True,
            "ignore_eos": True}  # fmt: skip


async def expected(client: httpx.AsyncClient, url: str) -> dict[str, str]:
    """The right answers, asked one at a time."""
    found = {}
    for prompt in prompts():
        answer = await client.post(f"{url}/v1/completions", json={**body(prompt), "stream": False})
        found[prompt] = answer.json()["choices"][0]["text"]
    return found


async def read(client: httpx.AsyncClient, url: str, prompt: str, right: str, chance: random.Random, to: Tally) -> None:
    """One stream: read whole, read slowly, or left somewhere."""
    kind = chance.choice(["whole", "whole", "slow", "leave"])
    leave_after, text, done = chance.randrange(1, TOKENS // 2), "", False
    async with client.stream("POST", f"{url}/v1/completions", json=body(prompt)) as answer:
        if answer.status_code != 200:
            to.wrong.append(f"status {answer.status_code}")
            return
        count = 0
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                text += json.loads(line[6:])["choices"][0]["text"]
                count += 1
                if kind == "leave" and count == leave_after:
                    to.left += 1
                    return
                if kind == "slow":
                    await asyncio.sleep(0.02)
    if done and text == right:
        to.whole += 1
    else:
        to.wrong.append(f"{prompt!r}: {text[:60]!r}, not {right[:60]!r} (ended: {done})")


async def storm(url: str, streams: int, seconds: float) -> Tally:
    """Keep so many streams open for so long."""
    tally = Tally()
    limits = httpx.Limits(max_connections=streams + 8, max_keepalive_connections=streams)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        right = await expected(client, url)
        until = time.monotonic() + seconds

        async def keep_one_open(number: int) -> None:
            chance = random.Random(number)
            while True:
                prompt = chance.choice(list(right))
                await read(client, url, prompt, right[prompt], chance, tally)
                if time.monotonic() > until:
                    return

        await asyncio.gather(*map(keep_one_open, range(streams)))
    return tally


def private_bytes() -> int:
    """Memory of this process and of its engines' that is their own, in bytes; mapped files do not count."""
    this = psutil.Process()
    return sum(int(one.memory_full_info().uss) for one in (this, *this.children()))


def quiet(host: Any, seconds: float = 30) -> float:
    """Wait until no block is held; how many still are."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        held = host.metrics()["storyteller"]["blocks_used"]
        if held == 0:
            return 0.0
        time.sleep(0.1)
    return float(held)


def streams(number: int = 256, seconds: float = 120.0, *, apart: bool = True) -> dict[str, Any]:
    """A storm of streams over the demo model: a small one first, so that what is allocated once is there."""
    from tramontane_frontend_http import make_app

    with tempfile.TemporaryDirectory() as folder:
        host = make_host(Path(folder), apart=apart, num_blocks=4000)
        with listening(make_app(host)) as url:
            asyncio.run(storm(url, number, min(5.0, seconds / 2)))
            quiet(host)
            gc.collect()
            before = private_bytes()
            tally = asyncio.run(storm(url, number, seconds))
            held = quiet(host)
            gc.collect()
            grown = private_bytes() - before
        host.close()
    return {"whole": tally.whole, "left": tally.left, "wrong": tally.wrong[:5], "blocks_held": held,
            "grown_mb": round(grown / 2**20, 1)}  # fmt: skip


def latency(number: int = 16, rounds: int = 5) -> dict[str, Any]:
    """What streams cost the steps of an engine in a process of its own, and of one in the server's, in turns.

    Two servers run the demo model; the streams of one run at a time, read by this process. Milliseconds, medians over
    the rounds: ``step`` is the engine's own mean of a step, ``gap`` the median between two pieces of a stream and
    ``gap99`` what one in a hundred of them passes. ``memory`` is in MB.
    """
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        urls = {kind: stack.enter_context(served(*flags)) for kind, flags in _KINDS.items()}
        for turn in range(rounds + 1):
            for kind, (url, process) in urls.items():
                gaps = sorted(asyncio.run(_gaps(url, number)))
                step = _decode_s(url)
                if turn:  # the first round warms up
                    seen = found.setdefault(kind, {"step": [], "gap": [], "gap99": [], "memory": []})
                    seen["step"].append(step * 1e3)
                    seen["gap"].append(gaps[len(gaps) // 2] * 1e3)
                    seen["gap99"].append(gaps[len(gaps) * 99 // 100] * 1e3)
                    family = (process, *process.children())
                    seen["memory"].append(sum(one.memory_full_info().uss for one in family) / 2**20)
    return {
        kind: {name: round(sorted(all_)[len(all_) // 2], 2) for name, all_ in seen.items()}
        for kind, seen in found.items()
    }


_KINDS: dict[str, tuple[str, ...]] = {"apart": (), "in-process": ("--in-process",)}


async def _gaps(url: str, number: int) -> list[float]:
    """Seconds between two pieces of a stream, of so many streams at a time."""
    found: list[float] = []

    async def one(client: httpx.AsyncClient, prompt: str) -> None:
        asked = {**body(prompt), "model": "demo", "max_tokens": 300}
        async with client.stream("POST", f"{url}/v1/completions", json=asked) as answer:
            before = None
            async for _ in answer.aiter_raw():
                now = time.perf_counter()
                if before is not None:
                    found.append(now - before)
                before = now

    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=number)) as client:
        await asyncio.gather(*(one(client, prompts()[place % len(WORDS)]) for place in range(number)))
    return found


def _decode_s(url: str) -> float:
    """The engine's running mean of the seconds of a step that only decodes."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    return float(re.findall(r'^tramontane_decode_s\{model="demo"\} (\S+)$', text, re.MULTILINE)[0])


if __name__ == "__main__":
    given = [one for one in sys.argv[2:] if not one.startswith("--")]
    options = {} if sys.argv[1] == "latency" else {"apart": "--in-process" not in sys.argv}
    chosen = {"streams": streams, "latency": latency}[sys.argv[1]]
    print(json.dumps(chosen(*map(int, given), **options)))
