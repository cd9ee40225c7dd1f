# SPDX-License-Identifier: Apache-2.0
"""``tramontane inspect`` over a small checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tramontane.cli.app import run
from tramontane.testing.pytest_plugin import SealPlugins


@pytest.fixture
def checkpoint(tmp_path: Path, seal_plugins: SealPlugins) -> Path:
    tensors = {"embed.weight": torch.zeros(8, 4, dtype=torch.bfloat16), "norm.weight": torch.zeros(4)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["FooForCausalLM"], "hidden_size": 4}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_json(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(checkpoint), "--json", "--tensors"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["FooForCausalLM"]
    assert facts["tensor_count"] == 2
    assert facts["parameters"] == 36
    assert facts["bytes"] == 8 * 4 * 2 + 4 * 4
    assert facts["types"] == {"bfloat16": 1, "float32": 1}
    assert facts["tensors"][0] == {"name": "embed.weight", "type": "bfloat16", "shape": "8x4", "bytes": "64"}
    assert "there is no architecture 'FooForCausalLM'" in facts["architecture"][0]


def test_for_people(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(checkpoint)]) == 0
    said = capsys.readouterr().out
    assert "1 bfloat16, 1 float32" in said
    assert "80 B" in said
    assert "embed.weight" not in said


def test_what_is_not_there(seal_plugins: SealPlugins, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["inspect", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_memory_plan_comes_from_headers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tramontane_loader_demo", reason="inspects the demo model")
    assert run(["inspect", "demo", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["learned_numbers"] == facts["parameters"]
    assert facts["bytes_weights"] == facts["parameters"] * (2 if facts["runs_as"] == "bfloat16" else 4)
    assert facts["bytes_cache_per_token"] > 0
    assert facts["cache"] == [f"full: {facts['cache'][0].split()[1]} layers in blocks of 32 tokens"]
