# SPDX-License-Identifier: Apache-2.0
"""What quantizing while loading costs a trained model: perplexity and divergence stay within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tramontane import LLM
from tramontane.evaluate import DivergenceMeter, PerplexityMeter, chunks

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MODEL = DATA / "models" / "tinystories-656k-hf"
TEXT = DATA / "corpora" / "tinystories-sample-248k.txt"
CHUNKS = 32
BOUNDS = {"q8_0": (0.005, 0.001), "q6k": (0.01, 0.001), "q5k": (0.02, 0.02), "q4k": (0.05, 0.03)}
"""Type -> largest relative change of the perplexity, and largest mean divergence in nats."""

pytestmark = pytest.mark.skipif(not TEXT.exists(), reason=f"the shared test data is not there: {TEXT}")
pytest.importorskip("tramontane_quant_gguf", reason="needs the GGML types")


def _logits(parts: list[list[int]] | None, **options: Any) -> tuple[list[list[int]], list[Any]]:
    with LLM(
        str(MODEL), backend="torch", dtype="float32", max_batched_tokens=512, max_num_seqs=1, prefix_cache=False,
        **options,
    ) as llm:  # fmt: skip
        if parts is None:
            ids = llm.tokenize(TEXT.read_text(encoding="utf-8"), add_special=False)
            parts = list(chunks(ids, 512, llm.tokenize("")[0], CHUNKS))
        return parts, [llm.logits(part) for part in parts]


def test_importances_bring_a_quantized_model_nearer_to_its_original(tmp_path: Path) -> None:
    """Its 128 inputs are no whole K blocks, so q3k is stored as q4_0, whose scales are fitted with importances only."""
    text = tmp_path / "calibration.txt"
    text.write_text(TEXT.read_text(encoding="utf-8")[-60_000:], encoding="utf-8")
    parts, base = _logits(None)

    def divergence(**options: Any) -> float:
        apart = DivergenceMeter()
        for part, logits, reference in zip(parts, _logits(parts, quant="q3k", **options)[1], base, strict=True):
            apart.add(part, reference, logits)
        return apart.result().mean

    assert divergence(calibrate=str(text)) < 0.9 * divergence()


def test_quantized_models_predict_nearly_as_well() -> None:
    parts, base = _logits(None)
    expected = PerplexityMeter()
    for part, logits in zip(parts, base, strict=True):
        expected.add(part, logits)
    for kind, (change, divergence) in BOUNDS.items():
        own, apart = PerplexityMeter(), DivergenceMeter()
        for part, logits, reference in zip(parts, _logits(parts, quant=kind)[1], base, strict=True):
            own.add(part, logits)
            apart.add(part, reference, logits)
        assert abs(own.result().value / expected.result().value - 1) < change, kind
        assert apart.result().mean < divergence, kind
