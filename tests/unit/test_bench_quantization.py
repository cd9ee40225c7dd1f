# SPDX-License-Identifier: Apache-2.0
"""Measurements of types: what they say of a model whose sizes are known, and the file that keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tramontane.bench.quantization import loading, packing, quality, speed
from tramontane.bench.quantization.records import BASE, Records
from tramontane.testing.checkpoints import write_random
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_arch_llama", reason="needs the llama architecture plugin")

CONFIG = sample("LlamaForCausalLM", "llama", num_hidden_layers=2)
STORIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "models" / "tinystories-656k-hf"


def test_records_are_kept_by_title_and_type(tmp_path: Path) -> None:
    records = Records.read(tmp_path / "r.json")
    records.add("speed of a", "int8", {"speed": 1.5})
    records.add("speed of b", "int8", {"speed": 3.0})
    records.add("speed of a", "int8", {"speed": 2.0})
    again = Records.read(tmp_path / "r.json")
    assert again.found == {"speed of a": {"int8": {"speed": 2.0}}, "speed of b": {"int8": {"speed": 3.0}}}


def test_loading_says_sizes(tmp_path: Path) -> None:
    model = write_random(tmp_path, CONFIG)
    row = loading.load(str(model), "int8")
    hidden, inner, dim = (CONFIG[name] for name in ("hidden_size", "intermediate_size", "head_dim"))
    queries, keys = CONFIG["num_attention_heads"] * dim, CONFIG["num_key_value_heads"] * dim
    assert row["layer"] == 4 * hidden * (2 * queries + 2 * keys + 3 * inner), "float32, as the file has them"
    assert 8 < row["bits"] < 10
    assert row["planned"] < row["layer"]


def test_packing_says_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SECONDS", 0.001)
    ((kind, row),) = packing.measure(["int8"])
    assert (kind, set(row)) == ("int8", {"own"}), "nobody packs this type quicker"
    assert row["own"] > 0


@pytest.mark.full
@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/data/models/tinystories-656k-hf")
def test_quality_and_speed_of_a_trained_model(tmp_path: Path) -> None:
    text = "Once upon a time, there was a little girl who liked to play. " * 20
    found = dict(quality.measure(str(STORIES), text, ["int8", "afq2"], chunk=64, limit=3, calibrate=None))
    assert found[BASE]["divergence"] == 0
    assert found[BASE]["same_top"] == 1
    assert found[BASE]["bits"] == 32 > 3 * found["int8"]["bits"] > 3 * found["afq2"]["bits"]
    assert found["int8"]["divergence"] < 0.1 * found["afq2"]["divergence"]
    for _ in range(2):  # the second time from what the first has saved
        rates = dict(speed.measure(str(STORIES), ["int8"], tmp_path, tokens=8, repeats=1))
        assert rates["int8"]["tokens_per_s"] > 0
        assert (tmp_path / "int8" / "model.safetensors").is_file()
