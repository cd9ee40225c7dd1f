# SPDX-License-Identifier: Apache-2.0
"""Fused projections and experts: which rows of which stored tensor are which part of the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tramontane.checkpoint import MemoryTensor
from tramontane.tensors import AXES, Axis, TensorDecl
from tramontane.weightmap import WeightMap, fused_experts, fused_parts, stacked_experts

HIDDEN, WIDTH, EXPERTS = 4, 6, 3
QKV = {"q_proj": 8, "k_proj": 4, "v_proj": 4}


def tensor(*shape: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(shape).numel())).view(shape)


def read(names: WeightMap, model: str, stored: Mapping[str, torch.Tensor], dims: int) -> torch.Tensor:
    """A tensor of the model with so many dimensions, read through the map."""
    given = {name: MemoryTensor.of(name, values) for name, values in stored.items()}
    decl = TensorDecl(model, {axis: Axis(dim) for dim, axis in enumerate(AXES[-dims:])})
    return names.source(model, "").plan(decl, {}, given).run()


def test_parts_are_ranges_of_the_fused_rows() -> None:
    names, whole = WeightMap((fused_parts("qkv_proj", QKV),)), tensor(16, HIDDEN)
    stored = {"model.layers.1.self_attn.qkv_proj.weight": whole}
    start = 0
    for part, size in QKV.items():
        found = read(names, f"model.layers.1.self_attn.{part}.weight", stored, 2)
        assert torch.equal(found, whole[start : start + size])
        start += size
    model = names.model_names("model.layers.1.self_attn.qkv_proj.weight")
    assert model == tuple(f"model.layers.1.self_attn.{part}.weight" for part in QKV)


def test_experts_in_one_tensor_have_no_field_name() -> None:
    names = WeightMap(fused_experts(WIDTH))
    both, down = tensor(EXPERTS, 2 * WIDTH, HIDDEN), tensor(EXPERTS, HIDDEN, WIDTH)
    stored = {"m.experts.gate_up_proj": both, "m.experts.down_proj": down}
    assert torch.equal(read(names, "m.experts.gate_proj.weight", stored, 3), both[:, :WIDTH])
    assert torch.equal(read(names, "m.experts.up_proj.weight", stored, 3), both[:, WIDTH:])
    assert torch.equal(read(names, "m.experts.down_proj.weight", stored, 3), down)
    assert names.model_names("m.experts.gate_up_proj") == ("m.experts.gate_proj.weight", "m.experts.up_proj.weight")


def test_experts_one_by_one_are_the_same_stack() -> None:
    both = tensor(EXPERTS, 2 * WIDTH, HIDDEN)
    stored = {f"m.experts.{expert}.w3.weight": both[expert, WIDTH:].contiguous() for expert in range(EXPERTS)}
    one_by_one = WeightMap(stacked_experts(EXPERTS, {"up_proj": "w3"}))
    assert torch.equal(read(one_by_one, "m.experts.up_proj.weight", stored, 3), both[:, WIDTH:])
