# SPDX-License-Identifier: Apache-2.0
"""The model files that all engines read: published shapes, random weights, GGUF.

The vocabulary is made up as well: one token a byte, so that a text of N letters is N tokens for every engine, and names
for the other ids, so that every generated token is some text.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

from environment import HOME, tool
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder

from tramontane.testing.shapes import SHAPES, write

TYPES = {"Q4_K_M": "Q4_K_M", "Q8_0": "Q8_0", "bf16": None}
"""Type of a file -> what ``llama-quantize`` calls it; ``None`` is the file as it is written here."""
END = "<|end|>"


def model_file(shape: str, kind: str) -> Path:
    """The GGUF file of a shape in a type, made if it is missing."""
    path = HOME / "models" / f"{shape}-{kind}.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    wanted = TYPES[kind]
    if wanted is None:
        _write_gguf(shape, unfinished)
    else:
        source = model_file(shape, "bf16")
        subprocess.run([tool("llama-quantize"), source, unfinished, wanted], check=True, capture_output=True)
    unfinished.rename(path)
    return path


def bytes_per_token(path: Path) -> int:
    """Bytes of weights that decoding one token reads: with tied embeddings the file is read once, whole."""
    return path.stat().st_size


def prompt_text(tokens: int, seed: int) -> str:
    """A text of so many tokens; another seed has nothing in common with it but chance."""
    letters = random.Random(seed)
    return "".join(letters.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(tokens))


def _write_gguf(shape: str, path: Path) -> None:
    from tramontane.export import WriteOptions, write_model
    from tramontane.load import LoadOptions, load_model
    from tramontane.plugins import installed

    folder = write(shape, HOME / "models")
    _write_vocabulary(folder, SHAPES[shape]["vocab_size"])
    loaded = load_model(str(folder), LoadOptions(backend="torch", dtype="bfloat16", max_model_len=64))
    write_model(loaded, path, installed(), form="gguf", options=WriteOptions())


def _write_vocabulary(folder: Path, size: int) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [*alphabet, END]
    texts += [f" t{index}" for index in range(len(texts), size)]
    vocabulary = {text.replace(" ", "Ġ"): index for index, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
