# SPDX-License-Identifier: Apache-2.0
"""This engine against llama.cpp and mistralrs, same files, same threads: ``make bench-peers``.

For each shape and weight type all engines measure each test once a round, one after the other, round after round, so
that what else the machine does falls on all alike. Printed are medians, and medians of the ratios round by round; with
them the backend's read kernel in the same rotation, the bandwidth that decoding is to be divided by. The first round
warms up and does not count.

On a machine that others load, ``--work`` compares processor time instead of time, with one thread for each engine.

Everything can be asked for in parts: ``--only pp tg``, ``--shapes``, ``--types``, ``--engines``, ``--quick``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import engines
import environment
import streams
from engines import Engine, LlamaBench, Test, Worker
from files import TYPES, bytes_per_token, model_file

from tramontane.testing.shapes import SHAPES

OURS = "tramontane"
PARTS = ("pp", "tg", "depth", "streams", "load")
Found = dict[tuple[str, str], list[float]]
"""(test, engine) -> what each round gave."""


def main() -> None:
    """Parse, install, measure, print."""
    asked = parse()
    if not asked.no_install:
        environment.install()
    print(environment.versions())
    for shape in asked.shapes:
        for kind in asked.types:
            model = model_file(shape, kind)
            if asked.prepare:
                continue
            what = "1 thread, tokens per second of processor time" if asked.work else f"{asked.threads} threads"
            print(f"\n{shape} {kind}, {model.stat().st_size / 1e6:.0f} MB, {what}")
            if any(part in asked.only for part in ("pp", "tg", "depth", "load")):
                alone(model, asked)
            if "streams" in asked.only:
                together(model, asked)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--types", nargs="*", default=list(TYPES), choices=list(TYPES))
    parser.add_argument("--engines", nargs="*", default=["llama.cpp", "mistralrs"], choices=["llama.cpp", "mistralrs"])
    parser.add_argument("--threads", type=int, default=engines.processors())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further round after so long")
    parser.add_argument("--prompt", type=int, help="tokens of prefill instead of 512")
    parser.add_argument("--new", type=int, help="tokens of decoding instead of 128, or 32 with --quick")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and tokens: a look, not a measurement")
    parser.add_argument("--no-install", action="store_true", help="measure with what is there")
    parser.add_argument("--prepare", action="store_true", help="install and make the files, measure nothing")
    parser.add_argument("--work", action="store_true", help="rates per second of processor time, with one thread")
    asked = parser.parse_args()
    if asked.work:
        asked.threads, asked.only = 1, [part for part in asked.only if part in ("pp", "tg")]
    asked.prompt, asked.new = asked.prompt or 512, asked.new or (32 if asked.quick else 128)
    asked.depth_new = asked.new // 2
    if asked.quick:
        asked.rounds = min(asked.rounds, 2)
    return asked


# --- one request at a time -------------------------------------------------------------------------------------------


def alone(model: Path, asked: argparse.Namespace) -> None:
    """Prefill and decoding of a single sequence, memory, load."""
    sizes = {"pp": Test("pp", asked.prompt), "tg": Test("tg", asked.new), "depth": Test("tg", asked.depth_new, 4096)}
    tests = [test for part, test in sizes.items() if part in asked.only]
    longest = 64 + max((test.tokens + test.depth for test in tests), default=0)
    ours = engines.ours(model, asked.threads, longest)
    rotation: list[Engine] = [ours]
    if "llama.cpp" in asked.engines:
        rotation.append(LlamaBench(model, asked.threads))
    if "mistralrs" in asked.engines:
        rotation.append(engines.mistralrs(model, asked.threads))
    found: Found = defaultdict(list)
    until = time.monotonic() + asked.seconds
    for turn in range(1 if asked.work else 0, asked.rounds + 1):  # waiting for pages is no processor time
        for test in tests:
            rates = {one.name: one.measure_work(test) if asked.work else one.measure(test) for one in rotation}
            rates["read"] = ours.ask(test="read")["rate"]
            told = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
            print(f"round {turn}, {test.name}: {told}", file=sys.stderr, flush=True)
            for name, rate in rates.items():
                if turn:
                    found[test.name, name].append(rate)
        if turn and time.monotonic() > until:
            break
    report(found, tests, rotation, bytes_per_token(model))
    for engine in rotation:
        engine.close()


def report(found: Found, tests: Sequence[Test], rotation: Sequence[Engine], nbytes: int) -> None:
    """The table of one file."""
    names = [engine.name for engine in rotation]
    head = ["test".ljust(12), *(f"{name:>11}" for name in names), *(f"{'/ ' + n:>19}" for n in names[1:])]
    print("  ".join(head))
    for test in tests:
        rates = [statistics.median(found[test.name, name]) for name in names]
        ratios = [compare(found[test.name, OURS], found[test.name, name]) for name in names[1:]]
        line = "  ".join([f"{test.name:12}", *(f"{rate:11.1f}" for rate in rates), *(f"{text:>19}" for text in ratios)])
        if test.kind == "tg":
            reads = found[test.name, "read"]
            share = ratio([rate * nbytes / 1e9 for rate in found[test.name, OURS]], reads)
            line += f"   weights {rates[0] * nbytes / 1e9:.1f} GB/s, {share:.0%} of {statistics.median(reads):.1f} read"
        print(line, flush=True)
    print("  ".join(["peak, MiB".ljust(12), *(f"{engine.peak / 2**20:11.0f}" for engine in rotation)]))
    for engine in rotation:
        if isinstance(engine, Worker):
            print(f"{engine.name}: {engine.ready_s:.1f} s from the start of its process to the first token")


def compare(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median of the ratios round by round; and best against best, which a busy machine disturbs less."""
    return f"{ratio(ours, theirs):.2f}x (best {max(ours) / max(theirs):.2f}x)"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


# --- many requests at a time -----------------------------------------------------------------------------------------


def together(model: Path, asked: argparse.Namespace) -> None:
    """Streams over HTTP, and how long a server takes from its start to a first token."""
    commands = {OURS: streams.ours(model, 18761, asked.streams)}
    if "llama.cpp" in asked.engines:
        commands["llama.cpp"] = streams.llama(model, 18762, asked.streams, asked.threads)
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    tokens = asked.new // 2
    with streams.servers(commands, asked.threads) as running:
        for turn in range(asked.rounds + 1):
            for count in (1, asked.streams):
                for server in running:
                    rate = server.round(count, tokens)
                    if turn:
                        rates[server.name, count].append(rate)
    for count in (1, asked.streams):
        line = "  ".join(f"{server.name} {statistics.median(rates[server.name, count]):.1f}" for server in running)
        for server in running[1:]:
            line += f"  / {server.name} {ratio(rates[OURS, count], rates[server.name, count]):.2f}x"
        print(f"HTTP, {count} streams of {streams.PROMPT} + {tokens} tokens, tokens/s: {line}")
    print("HTTP, seconds from start to first token:", "  ".join(f"{s.name} {s.ready_s:.1f}" for s in running))


if __name__ == "__main__":
    sys.exit(main())
