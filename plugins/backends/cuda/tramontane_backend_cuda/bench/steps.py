# SPDX-License-Identifier: Apache-2.0
"""Whole models through the engine: tokens of one stream, prompts, many streams at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from attrs import frozen

from tramontane.backends.base import Backend
from tramontane.engine import EngineConfig, EngineCore
from tramontane.plugins import Plugins
from tramontane.requests import EngineRequest, SamplingParams
from tramontane.schemes import Affine, Float8, Ggml
from tramontane_backend_cuda.bench.clock import Clock
from tramontane_backend_cuda.bench.jobs import Job
from tramontane_backend_cuda.bench.limits import Card, Line
from tramontane_backend_cuda.bench.models import (
    EIGHT_B,
    ONE_B,
    THIRTY_B,
    TINY,
    TINY_MOE,
    Made,
    Shape,
    dense,
    make,
    quantized,
)
from tramontane_backend_cuda.bench.weights import SchemeOf


@frozen
class Run:
    """A model in one type, and what it has to reach (tokens/s; ``None`` without a goal)."""

    shape: Shape
    kind: str
    scheme_of: SchemeOf
    alone: float | None = None
    prefill: float | None = None
    many: float | None = None


_INT8 = Affine(bits=8, group=128)
RUNS = (
    Run(ONE_B, "bf16", dense, alone=1150),
    Run(EIGHT_B, "bf16", dense, alone=235, prefill=38_000, many=9_500),
    Run(EIGHT_B, "fp8", quantized(Float8("e4m3", "channel"), Float8("e4m3", "channel")), alone=400, many=15_000),
    Run(EIGHT_B, "q4_k", quantized(Ggml("q4_k"), Ggml("q6_k")), alone=500, prefill=0.85 * 38_000),
    Run(EIGHT_B, "affine4 g128", quantized(Affine(bits=4, group=128), _INT8), alone=500),
    Run(EIGHT_B, "q8_0", quantized(Ggml("q8_0"), Ggml("q8_0")), alone=400),
    Run(THIRTY_B, "bf16", dense, alone=400),
)
SMOKE = (
    Run(TINY, "bf16", dense, alone=0, prefill=0, many=0),
    Run(TINY, "q8_0", quantized(Ggml("q8_0"), Ggml("q8_0"))),
    Run(TINY_MOE, "bf16", dense),
)


@frozen
class Load:
    """How much is asked of a model."""

    prompt: int
    answer: int
    long_prompt: int
    streams: int
    each: int
    """Tokens in and out of each of many streams."""


FULL = Load(prompt=128, answer=512, long_prompt=4096, streams=256, each=1024)
LITTLE = Load(prompt=5, answer=6, long_prompt=40, streams=5, each=6)


def jobs(
    backend: Backend, plugins: Plugins, clock: Clock, card: Card, sections: Sequence[str], match: str = ""
) -> Iterator[Job]:
    """One job per model whose name matches."""
    asked = FULL if clock.real else LITTLE
    for run in RUNS if clock.real else SMOKE:
        name = f"{run.shape.name} {run.kind}"
        if re.search(match, name):
            yield Job("step", name, "tokens/s", partial(_one, run, backend, plugins, clock, card, asked, sections))


def _one(
    run: Run, backend: Backend, plugins: Plugins, clock: Clock, card: Card, asked: Load, sections: Sequence[str]
) -> Iterator[Line]:
    streams = asked.streams if run.many is not None else 8
    tokens = max(2048 if clock.real else 24, streams)
    engine = EngineConfig(
        max_num_seqs=streams, max_batched_tokens=tokens, overlap=True, prefix_cache=False, max_prompt_tokens=tokens
    )
    longest = max(asked.prompt + asked.answer, asked.long_prompt + 8, 2 * asked.each) + 8
    made = make(run.shape, run.scheme_of, backend, plugins, engine, max_model_len=longest)
    name = f"{run.shape.name} {run.kind}"
    if "step" in sections:
        yield from _alone(run, name, made, clock, card, asked)
    if "prefill" in sections and run.prefill is not None:
        yield _prefill(run, name, made, card, asked)
    if "streams" in sections and run.many is not None:
        yield from _many(run, name, made, clock, asked)


def _request(number: int, prompt: int, answer: int, vocab: int) -> EngineRequest:
    ids = tuple((number * 7919 + 31 * position) % (vocab - 1) + 1 for position in range(prompt))
    params = SamplingParams(max_tokens=answer, temperature=0, ignore_eos=True)
    return EngineRequest(id=f"r{number}-{time.monotonic_ns()}", prompt_token_ids=ids, sampling=params)


def _drain(core: EngineCore) -> list[tuple[float, Any]]:
    """Run all requests to their end; every delta with the time at which it was there."""
    found = []
    while core.has_work:
        deltas = core.next_deltas()
        now = time.perf_counter()
        failed = [delta.error for delta in deltas if delta.error]
        if failed:
            raise RuntimeError(f"the engine failed: {failed[0]}")
        found += [(now, delta) for delta in deltas]
    return found


def _alone(run: Run, name: str, made: Made, clock: Clock, card: Card, asked: Load) -> Iterator[Line]:
    """Tokens a second of one stream, host and all; and what a step takes on the device."""
    vocab = made.runner.vocab_size
    for number in range(2):  # compiles, records
        made.core.add(_request(number, asked.prompt, min(8, asked.answer), vocab))
        _drain(made.core)
    made.core.add(_request(9, asked.prompt, asked.answer, vocab))
    times = [at for at, delta in _drain(made.core) if delta.token_ids]
    kept = times[len(times) // 4 :]
    rate = (len(kept) - 1) / (kept[-1] - kept[0])
    keys = asked.prompt + asked.answer * 5 / 8
    per_key = sum(place.spec.bytes_per_token for place in made.layout.layers.values())
    read = made.weight_bytes + keys * per_key
    limit = card.bytes_per_s / read
    note = "" if made.note == "captured" and (made.runner.replays is not None or not clock.real) else made.note
    yield Line(
        section="step", what=f"{name} batch 1", value=rate, unit="tokens/s", limit=limit, goal=run.alone, check=note
    )
    graphs = made.runner.replays
    replay = getattr(graphs, "last", None)
    if clock.real and replay is not None:
        seconds = clock.replays(replay.replay)
        yield Line(
            section="step", what=f"{name} batch 1, graph alone", value=seconds * 1e3, unit="ms",
            limit=read / card.bytes_per_s * 1e3, lower_is_better=True,
        )  # fmt: skip


def _prefill(run: Run, name: str, made: Made, card: Card, asked: Load) -> Line:
    """Prompt tokens a second, to the first token of the answer."""
    rates = []
    for number in range(3):
        made.core.add(_request(100 + number, asked.long_prompt, 1, made.runner.vocab_size))
        begun = time.perf_counter()
        _drain(made.core)
        rates.append(asked.long_prompt / (time.perf_counter() - begun))
    limit = card.flops_per_s / made.flops_per_token
    return Line(
        section="prefill", what=f"{name} prompt of {asked.long_prompt}", value=sorted(rates)[1], unit="tokens/s",
        limit=limit, goal=run.prefill,
    )  # fmt: skip


def _many(run: Run, name: str, made: Made, clock: Clock, asked: Load) -> Iterator[Line]:
    """Output tokens a second of many streams, all there from the start; and how busy the device was for a while."""
    for number in range(asked.streams):
        made.core.add(_request(number, asked.each, asked.each, made.runner.vocab_size))
    begun, busy, spent = time.perf_counter(), None, 0.0
    tokens = 0
    while made.core.has_work:
        if clock.real and busy is None and tokens > asked.streams * asked.each // 2:
            watched = time.perf_counter()
            busy = _busy(made.core)
            spent = time.perf_counter() - watched
            continue
        tokens += sum(len(delta.token_ids) for delta in made.core.next_deltas())
    # Steps under the profiler are left out: what they made was not counted, what they took is not either.
    rate = tokens / (time.perf_counter() - begun - spent)
    what = f"{name} {asked.streams} streams {asked.each}/{asked.each}"
    yield Line(section="streams", what=what, value=rate, unit="tokens/s", goal=run.many)
    if busy is not None:
        yield Line(section="streams", what=f"{what}, device busy", value=busy, unit="of wall", limit=1.0, goal=0.95)


def _busy(core: EngineCore, steps: int = 40) -> float:
    """Time of kernels over time of the clock, for some steps."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        begun = time.perf_counter()
        for _ in range(steps):
            core.next_deltas()
        torch.cuda.synchronize()
        wall = time.perf_counter() - begun
    spans = sorted(
        (event.time_range.start, event.time_range.end) for event in seen.events() if event.device_type.name == "CUDA"
    )
    kernels, reached = 0.0, 0.0
    for start, end in spans:  # two kernels at a time count once
        kernels += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return kernels / 1e6 / wall
