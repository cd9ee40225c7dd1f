# SPDX-License-Identifier: Apache-2.0
"""What quantizing while loading costs a trained model: perplexity and divergence stay within bounds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tramontane import LLM
from tramontane.evaluate import DivergenceMeter, PerplexityMeter, chunks

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MODEL = DATA / "models" / "tinystories-656k-hf"
TEXT = DATA / "corpora" / "tinystories-sample-248k.txt"
FEW, ALL = 8, 10_000
"""Chunks of 512 tokens: some of the text, or what there is."""
BOUNDS = {"q8_0": (0.005, 0.001), "q6k": (0.01, 0.001), "q5k": (0.02, 0.02), "q4k": (0.05, 0.03)}
"""Type -> largest relative change of the perplexity, and largest mean divergence in nats."""

pytestmark = pytest.mark.skipif(not TEXT.exists(), reason=f"the shared test data is not there: {TEXT}")
pytest.importorskip("tramontane_quant_gguf", reason="needs the GGML types")


def opened(**options: Any) -> LLM:
    return LLM(
        str(MODEL), backend="torch", dtype="float32", max_batched_tokens=512, max_num_seqs=1, prefix_cache=False,
        **options,
    )  # fmt: skip


@cache
def unquantized(limit: int) -> tuple[list[list[int]], list[Any]]:
    """Chunks of the text, and their logits in float32."""
    with opened() as llm:
        ids = llm.tokenize(TEXT.read_text(encoding="utf-8"), add_special=False)
        parts = list(chunks(ids, 512, llm.tokenize("")[0], limit))
        return parts, [llm.logits(part) for part in parts]


def measured(limit: int, **options: Any) -> tuple[float, float]:
    """Perplexity of a quantized model over that of the original, and the mean divergence."""
    parts, base = unquantized(limit)
    own, expected, apart = PerplexityMeter(), PerplexityMeter(), DivergenceMeter()
    with opened(**options) as llm:
        for part, reference in zip(parts, base, strict=True):
            logits = llm.logits(part)
            own.add(part, logits)
            expected.add(part, reference)
            apart.add(part, reference, logits)
    return own.result().value / expected.result().value, apart.result().mean


def test_importances_bring_a_quantized_model_nearer_to_its_original(tmp_path: Path) -> None:
    """Its 128 inputs are no whole K blocks, so q3k is stored as q4_0, whose scales are fitted with importances only."""
    text = tmp_path / "calibration.txt"
    text.write_text(TEXT.read_text(encoding="utf-8")[-20_000:], encoding="utf-8")
    assert measured(FEW, quant="q3k", calibrate=str(text))[1] < 0.9 * measured(FEW, quant="q3k")[1]


@pytest.mark.parametrize("limit", [FEW, pytest.param(ALL, marks=pytest.mark.full)])
def test_quantized_models_predict_nearly_as_well(limit: int) -> None:
    for kind, (change, divergence) in BOUNDS.items():
        ratio, apart = measured(limit, quant=kind)
        assert abs(ratio - 1) < change, kind
        assert apart < divergence, kind
