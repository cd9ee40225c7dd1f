# SPDX-License-Identifier: Apache-2.0
"""Perplexity of each type, and its divergence from the unquantized model, with the ``torch`` backend in float32, which
dequantizes exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from tramontane import LLM
from tramontane.api.settings import ModelSettings
from tramontane.bench.quantization.records import BASE, Row
from tramontane.build.plan import ModelPlan
from tramontane.evaluate import DivergenceMeter, PerplexityMeter, chunks
from tramontane.schemes import Dense


def measure(
    model: str, text: str, kinds: Sequence[str], *, chunk: int, limit: int | None, calibrate: str | None
) -> Iterator[tuple[str, Row]]:
    """Measure types one after the other; the unquantized model comes first."""
    exact: ModelSettings = {
        "backend": "torch",
        "dtype": "float32",
        "max_batched_tokens": chunk,
        "max_num_seqs": 1,
        "prefix_cache": False,
    }
    with ExitStack() as stack:
        base, trial = (stack.enter_context(LLM(model, **exact)) for _ in range(2))
        ids, bos = base.tokenize(text, add_special=False), base.tokenize("a")[:1]
        starts = bos != base.tokenize("a", add_special=False)[:1]
        parts = list(chunks(ids, chunk, bos[0] if starts else None, limit))
        expected = [base.logits(part) for part in parts]
        for kind in (None, *kinds):
            trial.requantize(kind, calibrate=None if kind is None else calibrate)
            own, apart = PerplexityMeter(), DivergenceMeter()
            for part, reference in zip(parts, expected, strict=True):
                logits = trial.logits(part)
                own.add(part, logits)
                apart.add(part, reference, logits)
            result, divergence = own.result(), apart.result()
            yield (
                kind or BASE,
                {
                    "stored": stored(trial.plan),
                    "bits": bits(trial.plan),
                    "perplexity": result.value,
                    "error": result.error,
                    "tokens": result.tokens,
                    "divergence": divergence.mean,
                    "same_top": divergence.same_top,
                },
            )


def bits(plan: ModelPlan) -> float:
    """Bits per weight, embeddings included."""
    return 8 * plan.nbytes / plan.parameters


def stored(plan: ModelPlan) -> str:
    """The scheme that holds most bytes of what is neither embedding nor head, or nothing for floats."""
    held: dict[str, int] = {}
    for weight in plan.weights:
        for part in weight.parts:
            if not isinstance(part.scheme, Dense) and "rows" not in weight.uses and not weight.is_head:
                held[part.scheme.name] = held.get(part.scheme.name, 0) + part.nbytes
    return max(held, key=lambda name: held[name], default="")
