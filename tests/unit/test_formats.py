# SPDX-License-Identifier: Apache-2.0
"""What the planner offers to stored formats: descriptions, shapes that are checked, matrices that cannot be cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tramontane.build.formats import DenseFormat, FormatPart, Lookup, detect_formats
from tramontane.build.sources import MAX_DESCRIPTION_BYTES, Sources
from tramontane.checkpoint import Checkpoint
from tramontane.config import quantization_config
from tramontane.errors import CheckpointError, ConfigError, PlanError
from tramontane.schemes import Affine, Fields
from tramontane.tensors import Axis, TensorDecl
from tramontane.testing.quantized import Stored, check_slice
from tramontane.testing.strategies import slices
from tramontane.weightmap import Rename, Split, Stack, WeightMap

SCHEME = Affine(bits=8, group=32, scale_dtype=torch.float32)


def folded(tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Fields:
    """Rows of the upper half lie beside those of the lower half."""
    codes = tensors["codes"].unflatten(-1, (2, -1)).transpose(-2, -3).flatten(-3, -2)
    return {"weight": codes.contiguous(), "scale": tensors["scale"] * tensors["sign"][..., None, None]}


@frozen
class Folded:
    """A format whose codes cannot be cut, with a description that says so."""

    name: str = "folded"

    def part(self, path: str, shape: tuple[int, ...], lookup: Lookup) -> FormatPart | None:
        if lookup.stored("codes") is None:
            return None
        if [value.item() for value in lookup.values("version")] != [2] * (shape[0] if len(shape) == 3 else 1):
            raise CheckpointError(f"{path} has another version")
        fields = {
            "codes": TensorDecl("codes", sliceable=False),
            "scale": TensorDecl("scale", {"out": Axis(0), "in": Axis(1, block=32)}),
            "sign": TensorDecl("sign"),
        }
        # The number of an expert decides its sign; it is cut with the experts.
        signs = torch.tensor([(-1.0) ** expert for expert in range(shape[0])] if len(shape) == 3 else 1.0)
        return FormatPart(SCHEME, fields, folded, made={"sign": signs}, known=("version",))


class Format:
    def detect(self, checkpoint: Checkpoint) -> Folded | None:
        return Folded() if checkpoint.config.get("folded") else None


def fields(shape: tuple[int, ...], seed: int = 0) -> dict[str, Tensor]:
    made = SCHEME.quantize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
    top, bottom = made["weight"].chunk(2)
    return {"codes": torch.cat([top, bottom], dim=-1), "scale": made["scale"], "version": torch.tensor(2)}


def stored(module: str = "proj", shape: tuple[int, ...] = (8, 64), **changes: Tensor) -> Stored:
    tensors = {f"{module}.{name}": tensor for name, tensor in {**fields(shape), **changes}.items()}
    return Stored(Format(), {"folded": True}, tensors)


@settings(max_examples=60, deadline=None)
@given(slices((8, 64)), st.just((8, 64)))
def test_what_cannot_be_cut_is_read_whole_and_sliced(case: Any, shape: tuple[int, ...]) -> None:
    check_slice(stored(), "proj", shape, *case)


def test_reading_whole_says_what_it_costs_for_a_moment() -> None:
    part = stored().part("proj", (8, 64), {"out": ((2, 4),)})
    assert part.extra_nbytes == SCHEME.nbytes((8, 64))
    assert part.shape == (2, 64)
    assert {tensor.untyped_storage().nbytes() for tensor in part.read().values()} == {128, 16}, "the whole is kept"
    assert stored().part("proj", (8, 64)).extra_nbytes == 0


def test_experts_stored_one_by_one() -> None:
    tensors = {f"experts.{e}.proj.{name}": t for e in range(3) for name, t in fields((8, 64), e).items()}
    names = WeightMap([Stack("experts.proj", "experts.{e}.proj", 3)])
    made = Stored(Format(), {"folded": True}, tensors, names)
    shape = (3, 8, 64)
    whole = made.weight("experts.proj", shape)
    for expert in range(3):
        alone = Stored(Format(), {"folded": True}, tensors).weight(f"experts.{expert}.proj", (8, 64))
        assert torch.equal(whole[expert], alone * (-1) ** expert)
    assert check_slice(made, "experts.proj", shape, "out", ((2, 6),))
    assert check_slice(made, "experts.proj", shape, "expert", ((1, 3),))


def test_a_part_of_what_is_fused_on_disk_and_cannot_be_cut_is_cut_afterwards() -> None:
    fused = stored("qkv", (8, 64))
    made = evolve(fused, names=WeightMap([Split("qkv", {"q": 4, "k": ((4, 5), (7, 8)), "v": ((5, 7),)})]))
    rows = fused.weight("qkv", (8, 64))
    assert torch.equal(made.weight("q", (4, 64)), rows[:4])
    assert torch.equal(made.weight("k", (2, 64)), rows[[4, 7]])
    assert torch.equal(made.weight("k", (2, 64), {"out": ((1, 2),)}), rows[7:])
    assert torch.equal(made.weight("v", (2, 64), {"in": ((32, 64),)}), rows[5:7, 32:])
    assert made.part("q", (4, 64)).extra_nbytes == SCHEME.nbytes((8, 64))
    with pytest.raises(PlanError, match="cannot be cut at 16"):
        made.weight("q", (4, 64), {"in": ((0, 16),)})


def test_a_fused_matrix_of_another_size_is_named() -> None:
    made = evolve(stored("qkv", (8, 64)), names=WeightMap([Split("qkv", {"q": 4, "k": 8})]))
    part = made.sources.part("q", (4, 64), {})
    assert part is not None
    assert part.misfits == ("qkv.scale is [8, 2] instead of [12, 2]",)


def test_known_fields_are_not_left_over() -> None:
    made = stored().sources
    assert made.unused() == ["proj.codes", "proj.scale", "proj.version"]
    made.part("proj", (8, 64), {})
    assert made.unused() == []


def test_shapes_are_compared_while_planning() -> None:
    part = stored(scale=torch.ones(8, 3)).sources.part("proj", (8, 64), {})
    assert part is not None
    assert part.misfits == ("proj.scale is [8, 3] instead of [8, 2]",)


def test_what_torch_refuses_is_a_fault_of_the_file() -> None:
    part = stored(codes=torch.zeros(3, 5, dtype=torch.uint8)).part("proj", (8, 64))
    with pytest.raises(CheckpointError, match=r"proj\.codes: .* do not go together as affine8-g32 \(codes \[3, 5\]"):
        part.read()


def test_a_description_is_small() -> None:
    made = stored(version=torch.zeros(MAX_DESCRIPTION_BYTES + 1, dtype=torch.uint8))
    with pytest.raises(CheckpointError, match=r"proj\.version .* 1048577 bytes"):
        made.part("proj", (8, 64))


def test_fields_below_the_weight_follow_their_module() -> None:
    names = WeightMap([Rename({"layers.{i}.{p...}": "model.layers.{i}.{p...}"})])
    assert names.source("layers.0.mlp.up", "weight.absmax").names() == ("model.layers.0.mlp.up.weight.absmax",)
    stack = WeightMap([Stack("experts.up", "experts.{e}.up", 2)])
    assert stack.source("experts.up", "weight.state.x").names() == (
        "experts.0.up.weight.state.x",
        "experts.1.up.weight.state.x",
    )


def test_scales_of_a_quantized_cache_are_nobodys() -> None:
    names = ["layers.0.self_attn.k_scale", "layers.0.self_attn.attn.v_zero_point", "layers.0.self_attn.k_proj.k_scale"]
    assert WeightMap().unexpected([*names, "layers.0.k_proj.weight_scale"], ()) == ["layers.0.k_proj.weight_scale"]


@pytest.mark.parametrize(("method", "says"), [("vptq", "by vptq"), (None, "a method without a name")])
def test_a_method_that_nobody_knows_is_named(method: str | None, says: str) -> None:
    config = {"quantization_config": {"quant_method": method, "bits": 2}}
    with pytest.raises(CheckpointError, match=says):
        detect_formats(Stored(Format(), config, {}).checkpoint, [Format()])


def test_the_dense_format_comes_last() -> None:
    plain = Stored(Format(), {}, {}).checkpoint
    assert [type(one) for one in detect_formats(plain, [Format()])] == [DenseFormat]
    bound = detect_formats(stored().checkpoint, [Format()])
    assert [type(one) for one in bound] == [Folded, DenseFormat]
    assert Sources(stored().checkpoint, WeightMap(), bound).part("absent", (8, 64), {}) is None


def test_the_quantization_is_found_beside_or_inside_the_text_configuration() -> None:
    inner = {"quant_method": "x"}
    assert quantization_config({}) is None
    assert quantization_config({"quantization_config": inner}) == inner
    assert quantization_config({"text_config": {"quantization_config": inner}}) == inner
    assert quantization_config({"text_config": {"a": 1}, "quantization_config": inner}) == inner
    with pytest.raises(ConfigError, match="must be an object"):
        quantization_config({"quantization_config": "int4"})
