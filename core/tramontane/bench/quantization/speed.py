# SPDX-License-Identifier: Apache-2.0
"""Decoding speed of each type against the unquantized model, one stream, with the machine's own backend: original and
type in turns, the median of the ratios. Types are saved first, so that they load at once. On a machine with other work,
processor time of one thread stands for time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tramontane import LLM, SamplingParams
from tramontane.api.settings import ModelSettings
from tramontane.bench.quantization.quality import bits
from tramontane.bench.quantization.records import BASE, Row
from tramontane.load import LoadOptions, save_model

PROMPT = [5]
"""As short as it can be, so that what is measured is decoding."""
LEAN: ModelSettings = {"max_num_seqs": 1, "max_model_len": 512, "prefix_cache": False}


def saved(model: str, kind: str, folder: Path) -> Path:
    """The model in that type, saved unless it is there."""
    target, unfinished = folder / kind, folder / f"{kind}.unfinished"
    if not target.is_dir():
        save_model(model, unfinished, LoadOptions(quant=kind))
        unfinished.rename(target)
    return target


def measure(
    model: str, kinds: Sequence[str], folder: Path, *, tokens: int, repeats: int, work: bool = False
) -> Iterator[tuple[str, Row]]:
    """Measure types one after the other; by processor time on one thread if that is asked for (``work``)."""
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    clock = time.process_time if work else time.perf_counter
    settings: ModelSettings = {**LEAN, "threads": 1} if work else LEAN

    def rate(llm: LLM) -> float:
        begin = clock()
        llm.generate(PROMPT, params)
        return tokens / (clock() - begin)

    with LLM(model, **settings) as base:
        rate(base)
        yield (
            BASE,
            {
                "bits": bits(base.plan),
                "tokens_per_s": statistics.median(rate(base) for _ in range(repeats)),
                "speed": 1.0,
            },
        )
        for kind in kinds:
            begin = time.perf_counter()
            with LLM(str(saved(model, kind, folder)), **settings) as llm:
                seconds = time.perf_counter() - begin
                rate(llm)
                pairs = [(rate(base), rate(llm)) for _ in range(repeats)]
            yield (
                kind,
                {
                    "bits": bits(llm.plan),
                    "tokens_per_s": statistics.median(own for _, own in pairs),
                    "speed": statistics.median(own / original for original, own in pairs),
                    "load_s": seconds,
                },
            )
