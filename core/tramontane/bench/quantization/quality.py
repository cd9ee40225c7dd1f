# SPDX-License-Identifier: Apache-2.0
"""What each type costs and saves: ``python -m tramontane.bench.quantization -m MODEL --text FILE [--svg FILE]``.

For every type: bits per weight, perplexity, divergence from the unquantized model, and the speed of single-stream
decoding against it. Quality is measured in float32 with the ``torch`` backend, which dequantizes exactly; speed with
the machine's own backend, original and type in turns, as the median of the ratios. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from tramontane import LLM, SamplingParams
from tramontane.api.settings import ModelSettings
from tramontane.bench.scatter import Point, scatter
from tramontane.evaluate import DivergenceMeter, PerplexityMeter, chunks
from tramontane.plugins import installed
from tramontane.schemes import Dense

CHUNK = 512
DECODED = 64
"""Tokens of one measurement of speed."""


@frozen(kw_only=True)
class Measured:
    """One row of the table."""

    kind: str
    stored: str
    """The schemes that most matrices have."""
    bits: float
    perplexity: float
    change: float
    divergence: float
    speed: float
    """Times the unquantized model's."""


def every_type() -> list[str]:
    """All types that are installed, by their first names."""
    return sorted({spec.name for spec in installed().catalogs.quantizers})


def measure(
    model: str, text: str, kinds: Sequence[str], *, limit: int | None, repeats: int, calibrate: str | None
) -> Iterator[Measured]:
    """Measure types one after the other; the first row is the unquantized model."""
    exact: ModelSettings = {
        "backend": "torch",
        "dtype": "float32",
        "max_batched_tokens": CHUNK,
        "max_num_seqs": 1,
        "prefix_cache": False,
    }
    with ExitStack() as stack:
        base, trial = (stack.enter_context(LLM(model, **exact)) for _ in range(2))
        fast, quick = (stack.enter_context(LLM(model, max_num_seqs=1, prefix_cache=False)) for _ in range(2))
        ids = base.tokenize(text, add_special=False)
        bos = base.tokenize("a")[:1]
        parts = list(chunks(ids, CHUNK, bos[0] if bos != base.tokenize("a", add_special=False)[:1] else None, limit))
        expected = None
        for kind in (None, *kinds):
            for llm in (trial, quick):
                llm.requantize(kind, calibrate=None if kind is None else calibrate)
            own, apart = PerplexityMeter(), DivergenceMeter()
            for part in parts:
                logits = trial.logits(part)
                own.add(part, logits)
                apart.add(part, base.logits(part), logits)
            value = own.result().value
            expected = expected or value
            yield Measured(
                kind=kind or "float32",
                stored=_stored(trial),
                bits=8 * trial.plan.nbytes / trial.plan.parameters,
                perplexity=value,
                change=value / expected - 1,
                divergence=apart.result().mean,
                speed=1.0 if kind is None else _speed(fast, quick, parts[0][:32], repeats),
            )


def _speed(base: LLM, model: LLM, prompt: list[int], repeats: int) -> float:
    def seconds(llm: LLM) -> float:
        start = time.perf_counter()
        llm.generate(prompt, SamplingParams(max_tokens=DECODED, temperature=0, ignore_eos=True))
        return time.perf_counter() - start

    for llm in (base, model):
        seconds(llm)
    return statistics.median(seconds(base) / seconds(model) for _ in range(repeats))


def _stored(llm: LLM) -> str:
    """The scheme that holds most bytes of what is neither embedding nor head, or nothing for floats."""
    held: dict[str, int] = {}
    for weight in llm.plan.weights:
        for part in weight.parts:
            if not isinstance(part.scheme, Dense) and "rows" not in weight.uses and not weight.is_head:
                held[part.scheme.name] = held.get(part.scheme.name, 0) + part.nbytes
    return max(held, key=lambda name: held[name], default="")


def row(one: Measured) -> str:
    """A line of the table."""
    return (
        f"| {one.kind} | {one.stored} | {one.bits:.2f} | {one.perplexity:.4g} | {one.change:+.2%} | "
        f"{one.divergence:.5f} | {one.speed:.2f} |"
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tramontane.bench.quantization", description=__doc__)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--types", default="", help="separated by commas; all that are installed if not given")
    parser.add_argument("--chunks", type=int, help="stop after so many chunks")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of speed")
    parser.add_argument("--calibrate", help="a text to collect importances from")
    parser.add_argument("--svg", type=Path, help="draw divergence over size")
    given = parser.parse_args()
    kinds = [kind for kind in given.types.split(",") if kind] or every_type()
    print("| type | stored as | bits | perplexity | change | divergence | speed |\n|---|---|---|---|---|---|---|")
    found = []
    text = given.text.read_text(encoding="utf-8")
    for one in measure(given.model, text, kinds, limit=given.chunks, repeats=given.repeats, calibrate=given.calibrate):
        found.append(one)
        print(row(one), flush=True)
    if given.svg is not None:
        points = [Point(one.kind, one.bits, one.divergence) for one in found if one.divergence > 0]
        drawing = scatter(points, across="bits per weight", up="divergence from float32 (nats a token)")
        given.svg.write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
