# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile adapters by the thousand: each is opened or refused with a typed error, quickly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tramontane.adapters import Targets, fit
from tramontane.checkpoint import OpenOptions
from tramontane.testing.fuzzing import feed, overwrite
from tramontane.weightmap import WeightMap
from tramontane.weights import Matrix, Part
from tramontane_adapter_lora.files import open_adapter

QKV = Matrix("l.qkv", (Part("l.q", 6), Part("l.k", 2)), 5)
TARGETS = Targets("tiny", {"l.qkv": QKV}, frozenset({"l.qkv"}), (WeightMap(),))
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"l.k": 3}, "alpha_pattern": {"q|k": 1.5}}


def digest(path: Path) -> None:
    """Open the folder that a file lies in, fit it and read it."""
    with open_adapter(path.parent, OpenOptions()) as adapter:
        for parts in fit(adapter, TARGETS, torch.float32).parts.values():
            for part in parts.values():
                part.read(torch.float32)


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("broken", ["adapter_model.safetensors", "adapter_config.json"])
def test_broken_files_are_refused_or_read(tmp_path: Path, broken: str, count: int) -> None:
    pairs = {f"base_model.model.l.{part}.lora_A.weight": torch.ones(rank, 5) for part, rank in (("q", 2), ("k", 3))}
    pairs["base_model.model.l.q.lora_B.weight"] = torch.ones(6, 2)
    pairs["base_model.model.l.k.lora_B.weight"] = torch.ones(2, 3)
    save_file(pairs, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    digest(tmp_path / broken)
    whole, rng = (tmp_path / broken).read_bytes(), random.Random(4)

    def broken_one() -> bytes:
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            overwrite(content, rng.randrange(len(content)), rng)
        return bytes(content[: rng.randrange(len(content))] if rng.random() < 0.2 else content)

    refused = feed(tmp_path / broken, (broken_one() for _ in range(count)), digest)
    assert sum(refused) > count / 3
