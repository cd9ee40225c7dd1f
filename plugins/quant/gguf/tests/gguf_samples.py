# SPDX-License-Identifier: Apache-2.0
"""Small files for tests: a whole Llama of a few kilobytes, with a vocabulary, and the raw parts of broken ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tramontane.testing.checkpoints import write_random
from tramontane.testing.samples import sample
from tramontane_quant_gguf.codecs import CODECS
from tramontane_quant_gguf.writing import OutTensor, write_file

WIDTH, WORDS = 32, 288
SHARED = Path(__file__).parents[5] / "shared" / "data"


def vocabulary() -> dict[str, Any]:
    """A SentencePiece vocabulary: control tokens, all bytes, some pieces."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    pieces = ["\u2581", "a", "b", "c", "ab", "\u2581a", "\u2581ab", "abc"]
    pieces += [chr(0x3B1 + number) for number in range(WORDS - len(tokens) - len(pieces))]
    tokens += pieces
    kinds += [1] * len(pieces)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array([0.0] * 259 + [-float(i) for i in range(len(pieces))], np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }


def metadata(**changes: Any) -> dict[str, Any]:
    """Metadata of the sample; a change to ``None`` leaves the key out."""
    found: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 128,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        **vocabulary(),
        **changes,
    }
    return {key: value for key, value in found.items() if value is not None}


def tensor(name: str, shape: tuple[int, ...], kind: str = "f32", seed: int = 0) -> OutTensor:
    """Random values of a type that can be packed."""
    codec = CODECS[kind]
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3

    def make() -> torch.Tensor:
        assert codec.quantize is not None
        return codec.quantize(values.reshape(-1, codec.block))

    return OutTensor(name, codec, shape, make)


def tensors(kind: str = "q8_0") -> list[OutTensor]:
    """Everything a Llama of one layer has; matrices in ``kind``."""
    shapes = {
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (WIDTH // 2, WIDTH),
        "blk.0.attn_v": (WIDTH // 2, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (64, WIDTH),
        "blk.0.ffn_up": (64, WIDTH),
        "blk.0.ffn_down": (WIDTH, 64),
        "token_embd": (WORDS, WIDTH),
    }
    made = [tensor(f"{name}.weight", shape, kind, seed) for seed, (name, shape) in enumerate(shapes.items())]
    norms = ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")
    return [*made, *(tensor(f"{name}.weight", (WIDTH,), seed=50 + seed) for seed, name in enumerate(norms))]


def write_sample(path: Path, kind: str = "q8_0", changes: Mapping[str, Any] | None = None) -> Path:
    """The whole sample."""
    write_file(path, metadata(**(changes or {})), tensors(kind))
    return path


def write_folder(folder: Path, **changes: Any) -> Path:
    """A random Llama as a Hugging Face folder, with the smallest vocabulary that can be written to a file."""
    wide = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 512, "num_hidden_layers": 2}
    config = sample("LlamaForCausalLM", "llama", **{**wide, **changes})
    path = write_random(folder, config)
    words = {f"<{number}>": number for number in range(config["vocab_size"])}
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": words, "merges": []}}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


# --- raw files ------------------------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str | bytes, dims: tuple[int, ...], kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    head = text(name) + struct.pack("<I", len(dims) if rank is None else rank)
    return head + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def raw(
    *parts: bytes,
    pairs: int = 1,
    infos: int = 0,
    version: int = 3,
    magic: bytes = b"GGUF",
    data: int = 4096,
) -> bytes:
    """A file from its parts; the architecture's pair comes first and counts."""
    head = magic + struct.pack("<IQQ", version, infos, pairs)
    body = head + ARCHITECTURE + b"".join(parts)
    return body + bytes(-len(body) % 32) + bytes(data)
