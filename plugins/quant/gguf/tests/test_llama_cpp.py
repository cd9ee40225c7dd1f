# SPDX-License-Identifier: Apache-2.0
"""Files written here, read by llama.cpp: equal logits in float32, equal greedy tokens, equal token ids.

Each model runs in a process of its own, because llama.cpp ends the process where an assertion of its fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_samples import SHARED
from llama_cpp import alone

from tramontane.export import WriteOptions, write_model
from tramontane.plugins import installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness

pytestmark = pytest.mark.full

LENGTH = 48
STORIES = SHARED / "models" / "tinystories-656k-hf"
UNTIED = {"tie_word_embeddings": False}
#: Architecture -> (sample, changes to what llama.cpp does otherwise, or has no words for). Phi-3.5-MoE is left out:
#: llama.cpp routes its experts by another rule than the model's.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": ("tied", {}),
    "cohere2": ("windows_tied", {}),
    "deepseek2": ("groups_yarn", {"topk_method": "greedy", "n_group": None, "topk_group": None}),
    "deepseek3": ("groups_yarn", {}),
    "gemma": ("one_key_head", {}),
    "gemma2": ("alternating", {"query_pre_attn_scalar": 16}),
    "gemma3": ("older_spelling", {"query_pre_attn_scalar": 16, "sliding_window_pattern": 6, "num_hidden_layers": 7}),
    "glm": ("half_turned", {}),
    "glm4": ("odd_heads_tied_no_bias", {}),
    "gptoss": ("odd_heads_tied", {"swiglu_limit": 7.0, **UNTIED}),
    "granite": ("factors_odd_heads_biases", {}),
    "granitemoe": ("odd_heads_biases", {}),
    "llama": ("rope_llama3", {}),
    "mistral": ("full", {}),
    "mixtral": ("plain", {}),
    "olmo2": ("all_heads_linear", {}),
    "phi": ("half_turned", {}),
    "phi3": ("plain_odd_heads", {}),
    "qwen2": ("yarn", {}),
    "qwen2moe": ("odd_experts", UNTIED),
    "qwen3": ("grouped_tied", {}),
    "qwen3moe": ("plain", {}),
    "smollm3": ("every_third_without_positions_tied", {"no_rope_layer_interval": 4, "num_hidden_layers": 5}),
    "starcoder2": ("window_tied", {"sliding_window": None}),
}
#: Share of the largest logit; llama.cpp looks gelu up in a table of float16 values.
LOOKED_UP = ("gemma", "gemma2", "gemma3", "phi", "starcoder2")
TOLERANCE, COARSE = 1e-4, 2e-3


def load(path: Path) -> Harness:
    return Harness.load(path, dtype="float32", max_model_len=LENGTH, backend="torch")


def write(engine: Harness, path: Path) -> Path:
    write_model(engine.loaded, path, installed(), form="gguf", options=WriteOptions())
    return path


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_computes_the_same(name: str, tmp_path: Path) -> None:
    sample, changes = CASES[name]
    config = {**installed().catalogs.architectures.get(name).load("samples")()[sample], **changes}
    engine = load(write_random(tmp_path / "source", config))
    path = write(engine, tmp_path / "model.gguf")
    ids = [int(token) for token in np.random.default_rng(0).integers(3, config["vocab_size"], LENGTH)]
    theirs, ours = alone(f"logits({str(path)!r}, {ids})", tmp_path), engine.logits(ids)
    tolerance = COARSE if name in LOOKED_UP else TOLERANCE
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(ours).max()
    assert (ours.argmax(1) == theirs.argmax(1)).all()


@pytest.mark.parametrize("model", ["demo", STORIES], ids=["demo", "stories"])
def test_trained_models_say_the_same_in_llama_cpp(model: str | Path, tmp_path: Path) -> None:
    if isinstance(model, Path) and not model.is_dir():
        pytest.skip("needs ../shared/data/models/tinystories-656k-hf")
    engine = load(model)  # type: ignore[arg-type]
    path = write(engine, tmp_path / "model.gguf")
    tokenizer = engine.loaded.text.tokenizer
    assert tokenizer is not None
    text = "Once upon a time, there was a little girl."
    ids = tokenizer.encode(text)
    assert alone(f"tokenize({str(path)!r}, {text!r})", tmp_path).tolist() == tokenizer.encode(text, add_special=False)
    (answer,) = engine.greedy([ids], LENGTH - len(ids))
    theirs = alone(f"logits({str(path)!r}, {ids + answer})", tmp_path)
    assert theirs[len(ids) - 1 : -1].argmax(1).tolist() == answer


def test_llama_cpp_unpacks_what_is_packed_here(tmp_path: Path) -> None:
    engine = load("demo")  # type: ignore[arg-type]
    ids = [int(token) for token in np.random.default_rng(0).integers(3, 2048, LENGTH)]
    for quant in ("q8_0", "q4_k", "q6_k"):
        path = tmp_path / f"{quant}.gguf"
        write_model(engine.loaded, path, installed(), form="gguf", options=WriteOptions(quant=quant))
        theirs, ours = alone(f"logits({str(path)!r}, {ids})", tmp_path), load(path).logits(ids)
        assert np.sqrt(np.square(ours - theirs).mean() / np.square(ours).mean()) < 0.03, quant
