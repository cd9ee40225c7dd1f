# SPDX-License-Identifier: Apache-2.0
"""Writes small checkpoints of safetensors: whole ones, in shards, and byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIG = {"architectures": ["FooForCausalLM"], "hidden_size": 4}


def write(folder: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors", **metadata: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, folder / name, metadata=metadata or None)
    return folder


def write_raw(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """One tensor a shard, with an index."""
    placed = {}
    for number, (name, tensor) in enumerate(tensors.items(), 1):
        placed[name] = f"model-{number:05}-of-{len(tensors):05}.safetensors"
        write(folder, {name: tensor}, placed[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder
