# SPDX-License-Identifier: Apache-2.0
"""Files that llama.cpp's own converter writes are the models that they were made of.

``LLAMA_CPP_CONVERTER`` names ``convert_hf_to_gguf.py`` in a checkout of llama.cpp (the source distribution of
``llama-cpp-python`` holds one; that of 0.3.16 is too old for configurations of transformers 5, that of 0.3.36 is not).
It wants the packages ``mistral_common`` and ``jsonschema``. Where ``LLAMA_CPP_LIBRARIES`` is set too, llama.cpp has to
say the same of the file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from gguf_samples import SHARED

from tramontane.plugins import installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness

pytestmark = pytest.mark.full

VARIABLE = "LLAMA_CPP_CONVERTER"
LENGTH, PROMPT = 40, 12
TEXT = "Once upon a time, there was a little girl; she's 7 — d'accord?\n\n  Größe\t42"
TOKENIZERS = SHARED / "tokenizers"
SPM, QWEN = ("llama2-spm", 32000), ("qwen2", 151936)
"""A folder of tokenizer files, and the rows that an embedding for it has."""
#: Architecture -> (sample, changes to what the converter or llama.cpp has no words for, tokenizer).
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, int]]] = {
    "gemma2": ("alternating", {"query_pre_attn_scalar": 16}, SPM),
    "llama": ("rope_llama3", {}, SPM),
    "mistral": ("full", {}, SPM),
    "mixtral": ("plain", {}, SPM),
    "phi3": ("plain_odd_heads", {}, SPM),
    "qwen2": ("yarn", {}, QWEN),
    "qwen3": ("grouped_tied", {}, QWEN),
}
LOOKED_UP = ("gemma2",)
"""llama.cpp looks gelu up in a table of float16 values."""


def convert(source: Path, target: Path) -> Path:
    """What the converter makes of a folder, in float32."""
    script = os.environ.get(VARIABLE)
    if not script or not Path(script).is_file():
        pytest.skip(f"{VARIABLE} names no convert_hf_to_gguf.py")
    command = [sys.executable, script, str(source), "--outtype", "f32", "--outfile", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def load(path: Path) -> Harness:
    return Harness.load(path, dtype="float32", max_model_len=LENGTH, backend="torch")


@pytest.mark.parametrize("name", CASES)
def test_what_the_converter_writes_is_the_model(name: str, tmp_path: Path) -> None:
    sample, changes, (folder, rows) = CASES[name]
    if not TOKENIZERS.is_dir():
        pytest.skip("needs ../shared/data/tokenizers")
    config = {**installed().catalogs.architectures.get(name).load("samples")()[sample], **changes, "vocab_size": rows}
    source = write_random(tmp_path / "source", config)
    for file in (TOKENIZERS / folder).iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            shutil.copyfile(file, source / file.name)
    path = convert(source, tmp_path / "model.gguf")
    original, converted = load(source), load(path)
    ids = [int(token) for token in np.random.default_rng(0).integers(3, 30000, LENGTH)]
    expected, found = original.logits(ids), converted.logits(ids)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    answer = original.greedy([ids[:PROMPT]], LENGTH - PROMPT)
    assert converted.greedy([ids[:PROMPT]], LENGTH - PROMPT) == answer
    assert converted.loaded.text.tokenizer is not None
    if original.loaded.text.tokenizer is not None:
        assert converted.loaded.text.tokenizer.encode(TEXT) == original.loaded.text.tokenizer.encode(TEXT)
    if os.environ.get(llama_cpp.VARIABLE):
        theirs = llama_cpp.alone(f"logits({str(path)!r}, {ids[:PROMPT] + answer[0]})", tmp_path)
        assert theirs[PROMPT - 1 : -1].argmax(1).tolist() == answer[0]
        said = llama_cpp.alone(f"tokenize({str(path)!r}, {TEXT!r})", tmp_path).tolist()
        assert said == converted.loaded.text.tokenizer.encode(TEXT, add_special=False)
