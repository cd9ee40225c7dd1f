# SPDX-License-Identifier: Apache-2.0
"""Tokens a second of one batch by ``LLM.generate`` and by streams of servers, in turns.

    python tests/integration/server/throughput.py [--streams 16] [--tokens 200] [--rounds 5] [--chat]
        [--kinds apart in-process every-token] [--threads N]

Each server is a process as users start it, its client another that does nothing but read (``reader.py``); ``LLM`` runs
in this one. One of them works at a time. All have the demo model and the same prompts, greedy, of the same length.
Printed are medians, and beside the rates what share of a core each process used: where client, server and engine need
more cores together than the machine has, the ratio measures the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from attrs import frozen

sys.path[:0] = [str(Path(__file__).parent)]

from processes import served  # noqa: E402

from tramontane import LLM, SamplingParams  # noqa: E402

KINDS: dict[str, tuple[str, ...]] = {
    "apart": (),
    "in-process": ("--in-process",),
    "every-token": ("--stream-interval", "0"),
}
WORDS = ("cat", "dog", "tree", "boat", "star", "king", "bird", "fish")


MOST_TURNS = 5
"""Turns that are tried for each that is wanted."""
DISTURBED = 0.12
"""Cores that other processes may use during a round; more, and its turn does not count."""


@frozen
class Round:
    """What one way of answering came to, once."""

    rate: float
    """Tokens a second."""
    cores: dict[str, float]
    """Used, by process."""
    others: float
    """Cores that the rest of the machine used."""
    frames: float = 0.0
    """Events per token."""


def prompt(place: int) -> str:
    """One of the prompts; all are as long."""
    return f"Once upon a time there was a {WORDS[place % len(WORDS)]}"


def bodies(prompts: list[str], tokens: int, *, chat: bool) -> list[dict[str, Any]]:
    """The requests of one batch."""
    common = {"model": "demo", "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True,
              "stream_options": {"include_usage": True}}  # fmt: skip
    if chat:
        return [{**common, "messages": [{"role": "user", "content": one}]} for one in prompts]
    return [{**common, "prompt": one} for one in prompts]


def read(url: str, job: dict[str, Any]) -> dict[str, Any]:
    """Let the client read a batch."""
    at = urlsplit(url)
    given = json.dumps({"host": at.hostname, "port": at.port, **job})
    command = [sys.executable, "-S", str(Path(__file__).with_name("reader.py"))]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of one process."""
    used = process.cpu_times()
    return used.user + used.system


@contextmanager
def watched(own: Iterable[psutil.Process]) -> Iterator[dict[str, float]]:
    """Fills, at its end, the cores that all other processes used meanwhile."""
    found: dict[str, float] = {}
    family = [*own, psutil.Process()]
    begun, busy, used = time.perf_counter(), busy_seconds(), sum(map(cpu_seconds, family))
    yield found
    seconds, children = time.perf_counter() - begun, found.pop("client_cpu_s", 0.0)
    others = busy_seconds() - busy - (sum(map(cpu_seconds, family)) - used) - children
    found["others"] = max(0.0, others / seconds)


def busy_seconds() -> float:
    """Processor time of the whole machine."""
    all_ = psutil.cpu_times()
    return sum(all_) - all_.idle - getattr(all_, "iowait", 0.0)


def by_server(url: str, process: psutil.Process, job: dict[str, Any]) -> Round:
    """One round of a server."""
    family = dict(zip(("server", "engine"), (process, *process.children()), strict=False))
    before = {name: cpu_seconds(one) for name, one in family.items()}
    with watched(family.values()) as seen:
        got = read(url, job)
        seen["client_cpu_s"] = got["cpu_s"]
    used = {name: (cpu_seconds(one) - before[name]) / got["seconds"] for name, one in family.items()}
    cores = {"client": got["cpu_s"] / got["seconds"], **used}
    return Round(got["tokens"] / got["seconds"], cores, seen["others"], got["frames"] / got["tokens"])


def by_llm(llm: LLM, prompts: list[str], params: SamplingParams, *, chat: bool) -> Round:
    """One round of ``LLM``."""
    asked = [llm.render_chat([{"role": "user", "content": one}]) for one in prompts] if chat else prompts
    with watched(()) as seen:
        cpu, begun = time.process_time(), time.perf_counter()
        made = sum(one.usage.completion_tokens for one in llm.generate(asked, params))
        seconds = time.perf_counter() - begun
        cores = {"llm": (time.process_time() - cpu) / seconds}
    return Round(made / seconds, cores, seen["others"])


def measure(streams: int, tokens: int, rounds: int, kinds: list[str], threads: int | None, *, chat: bool) -> Any:
    """All ways in turns; the first turn warms up. Turns that others disturbed are left out, and counted."""
    prompts = [prompt(place) for place in range(streams)]
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    job = {"path": f"/v1/{'chat/' if chat else ''}completions", "bodies": bodies(prompts, tokens, chat=chat)}
    flags = () if threads is None else ("--threads", str(threads))
    turns: list[dict[str, Round]] = []
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(served(*KINDS[kind], *flags)) for kind in kinds}
        llm = stack.enter_context(LLM("demo", threads=threads))
        for turn in range(MOST_TURNS * rounds + 1):
            made = {"llm": by_llm(llm, prompts, params, chat=chat)}
            made |= {kind: by_server(*servers[kind], job) for kind in kinds}
            turns += [made] if turn else []
            clean = [one for one in turns if all(part.others < DISTURBED for part in one.values())]
            if len(clean) == rounds:
                break
    kept = clean or turns
    found = {name: summary([one[name] for one in kept], [one["llm"] for one in kept]) for name in kept[0]}
    return found | {"turns": {"kept": len(kept), "disturbed": len(turns) - len(clean), "all_disturbed": not clean}}


def summary(rounds: list[Round], beside: list[Round]) -> dict[str, Any]:
    """Medians of one way's rounds, and of its ratios to those of ``LLM`` in the same turns."""
    median = statistics.median
    cores = {name: round(median(one.cores[name] for one in rounds), 2) for name in rounds[0].cores}
    found = {"tokens_per_s": round(median(one.rate for one in rounds)), "cores": cores}
    ratio = median(one.rate / other.rate for one, other in zip(rounds, beside, strict=True))
    return found | {"ratio": round(ratio, 3), "events_per_token": round(median(one.frames for one in rounds), 2)}


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS))
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    result = measure(given.streams, given.tokens, given.rounds, given.kinds, given.threads, chat=given.chat)
    for name, one in result.items():
        print(name, json.dumps(one))


if __name__ == "__main__":
    main()
