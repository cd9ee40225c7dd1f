# SPDX-License-Identifier: Apache-2.0
"""Experts in MXFP4 blocks: read as they are published, kept as they are, equal to their dequantized values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tramontane.errors import CheckpointError
from tramontane.schemes import Dense, Micro
from tramontane.testing.checkpoints import write_random
from tramontane.testing.invariants import INVARIANTS, Subject, assert_close
from tramontane.testing.samples import sample

WIDTH, HIDDEN, COUNT = 96, 64, 3
CODES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def config(**changes: Any) -> dict[str, Any]:
    return sample(
        "GptOssForCausalLM",
        "gpt_oss",
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_local_experts=COUNT,
        num_experts_per_tok=2,
        num_hidden_layers=2,
        sliding_window=9,
        attention_bias=True,
        **changes,
    )


def blocks_of(stored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From [X, I, O], as plain checkpoints have it: blocks, scales, and the values that these stand for."""
    weight_XOI = stored.transpose(1, 2)
    groups = weight_XOI.unflatten(-1, (-1, 32))
    exponent = torch.floor(torch.log2(groups.abs().amax(-1))) - 2
    scaled = groups / torch.exp2(exponent).unsqueeze(-1)
    codes = (scaled.unsqueeze(-1) - CODES).abs().argmin(-1)
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    values = (CODES[codes] * torch.exp2(exponent).unsqueeze(-1)).flatten(-2)
    return blocks, (exponent + 127).to(torch.uint8), values.transpose(1, 2).contiguous()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same model twice: its experts in blocks, and plain."""
    torch.set_num_threads(1)
    plain, packed = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("packed")
    write_random(plain, config())
    tensors = load_file(plain / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        blocks, scales, values = blocks_of(tensors[name])
        tensors[name] = values
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
    whole = {name: t for name, t in tensors.items() if not name.endswith(("_blocks", "_scales"))}
    save_file(whole, plain / "model.safetensors")
    gone = {f"model.layers.{i}.mlp.experts.{which}_proj" for i in range(2) for which in ("gate_up", "down")}
    save_file({name: t for name, t in tensors.items() if name not in gone}, packed / "model.safetensors")
    settings = config() | {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
    (packed / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return plain, packed


def test_blocks_give_what_their_values_give(pair: tuple[Path, Path]) -> None:
    plain, packed = (Subject(path, {"backend": "torch"}) for path in pair)
    prompt = plain.prompt()
    assert_close(packed.plain.logits(prompt), plain.plain.logits(prompt), 1e-5, "blocks against their values")


def test_blocks_are_kept_as_they_are(pair: tuple[Path, Path]) -> None:
    loaded = Subject(pair[1]).plain.loaded
    for weight in loaded.plan.weights:
        expert = ".experts." in weight.path
        assert {type(part.scheme) for part in weight.parts} == {Micro if expert else Dense}, weight.path
    gate_up = loaded.plan.weight("model.layers.0.mlp.experts.gate_up_proj")
    assert gate_up.nbytes == COUNT * 2 * WIDTH * (HIDDEN // 2 + HIDDEN // 32)


def test_gate_and_up_rows_alternate(pair: tuple[Path, Path]) -> None:
    stored = load_file(pair[0] / "model.safetensors")["model.layers.1.mlp.experts.gate_up_proj"]
    stack = Subject(pair[1]).plain.loaded.blueprint.matrices["model.layers.1.mlp.experts.gate_up_proj"]
    rows = stack.expert(2)
    assert torch.equal(rows[:WIDTH], stored[2].T[0::2])
    assert torch.equal(rows[WIDTH:], stored[2].T[1::2])


@pytest.mark.parametrize("check", ["chunked", "captured", "like_reference"])
def test_invariance(pair: tuple[Path, Path], check: str) -> None:
    """On stock torch: backends that round activations for such weights have tests of their own."""
    INVARIANTS[check](Subject(pair[1], {"backend": "torch"}))


def test_a_missing_scale_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tensors = load_file(pair[1] / "model.safetensors")
    del tensors["model.layers.0.mlp.experts.down_proj_scales"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((pair[1] / "config.json").read_text(), encoding="utf-8")
    with pytest.raises(CheckpointError, match="scales"):
        Subject(tmp_path).load()


def test_the_codes_are_those_of_the_format() -> None:
    """An independent statement of the scheme, from the published table."""
    blocks = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    scales = torch.arange(120, 136, dtype=torch.uint8).view(1, 16)
    fields = {"weight": blocks.flatten(1), "scale": scales.view(torch.float8_e8m0fnu)}
    found = Micro("mxfp4").dequantize(fields, (1, 512)).view(16, 32)
    low, high = CODES[torch.arange(256) % 16].view(16, 16), CODES[torch.arange(256) // 16].view(16, 16)
    wanted = torch.stack((low, high), -1).flatten(-2) * torch.exp2(torch.arange(-7.0, 9.0)).view(16, 1)
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())
