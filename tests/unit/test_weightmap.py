# SPDX-License-Identifier: Apache-2.0
"""Weight maps: both directions, every rule, dense and packed fields, sharded reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.checkpoint import MemoryTensor, TensorRef
from tramontane.errors import CheckpointError, PlanError
from tramontane.schemes import Affine, Dense, Float8, Ggml, Micro, Scheme
from tramontane.tensors import AXES, Axis, Shard, TensorDecl, indices
from tramontane.weightmap import (
    LOG_OF_NEGATIVE,
    Convert,
    Join,
    Leaf,
    Permute,
    Rename,
    Rule,
    Spell,
    Split,
    Squeeze,
    Stack,
    Transpose,
    Unstack,
    WeightMap,
    choose,
    plus,
    times,
)
from tramontane.weightmap.patterns import match

LAYER = "model.layers.{i}"
QKV = Split("{p...}.qkv_proj", {"{p...}.q_proj": 8, "{p...}.k_proj": 4, "{p...}.v_proj": 4})
RULES: dict[str, tuple[Rule, ...]] = {
    "nothing": (),
    "rename": (Rename({f"{LAYER}.self_attn.{{x}}": "blk.{i}.attn_{x}", "model.norm": "output_norm"}),),
    "split": (QKV,),
    "split by groups": (
        Split("{p...}.qkv_proj", {"{p...}.q_proj": ((0, 4), (8, 12)), "{p...}.k_proj": ((4, 6), (12, 14)),
                                  "{p...}.v_proj": ((6, 8), (14, 16))}),
    ),
    "join": (Join("{p...}.o_proj", {"{p...}.o_a": 4, "{p...}.o_b": 4}),),
    "transpose": (Transpose("{p...}.o_proj"),),
    "rope rows": (Permute("{p...}.self_attn.{x}_proj", shape=(2, -1, 2), order=(0, 2, 1)),),
    "alternating gate and up": (
        Split("{p...}.gate_up_proj", {"{p...}.gate_proj": 6, "{p...}.up_proj": 6}),
        Permute("{p...}.gate_up_proj", shape=(-1, 2), order=(1, 0)),
    ),
    "stack": (Stack("{p...}.experts.{x}_proj", "{p...}.experts.{e}.{x}_proj", 3),),
    "norms": (Convert("{p...}.norm", values=plus(1)), Convert("model.norm", values=times(2))),
    "dimensions of one": (Squeeze("{p...}.norm", dim=1), Squeeze("{p...}.{x}_proj", dim=0, fields=(".weight",))),
    "spelling": (Spell("{p...}.o_proj", {".weight": "", ".bias": "_bias"}),),
    "everything": (
        QKV,
        Permute("{p...}.qkv_proj", shape=(4, -1, 2), order=(0, 2, 1)),
        Split("{p...}.experts.gate_up_proj", {"{p...}.experts.gate_proj": 6, "{p...}.experts.up_proj": 6}),
        Permute("{p...}.experts.gate_up_proj", shape=(-1, 2), order=(1, 0)),
        Transpose("{p...}.experts.{x}_proj"),
        Stack("{p...}.experts.{x}_proj", "{p...}.experts.{e}.{x}_proj", 3),
        Convert("model.norm", values=plus(1)),
        Squeeze("model.norm", dim=0),
        Spell("{p...}.o_proj", {".weight": "", ".bias": "_bias"}),
        Rename({"model.{rest...}": "transformer.{rest...}"}),
    ),
}  # fmt: skip


def model_tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"model.norm.weight": (8,)}
    for i in range(2):
        at, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        shapes |= {f"{at}.q_proj.weight": (8, 8), f"{at}.k_proj.weight": (4, 8), f"{at}.v_proj.weight": (4, 8)}
        shapes |= {f"{at}.q_proj.bias": (8,), f"{at}.k_proj.bias": (4,), f"{at}.v_proj.bias": (4,)}
        shapes |= {f"{at}.o_proj.weight": (8, 8), f"{at}.o_proj.bias": (8,), f"model.layers.{i}.norm.weight": (8,)}
        shapes |= {f"{mlp}.gate_proj.weight": (6, 8), f"{mlp}.up_proj.weight": (6, 8)}
        shapes |= {f"{mlp}.experts.gate_proj.weight": (3, 6, 8), f"{mlp}.experts.up_proj.weight": (3, 6, 8)}
        shapes |= {f"{mlp}.experts.down_proj.weight": (3, 8, 6)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def declaration(shape: tuple[int, ...]) -> TensorDecl:
    names = ("out",) if len(shape) == 1 else AXES[-len(shape) :]
    return TensorDecl("weight", {name: Axis(dim) for dim, name in enumerate(names)})


def refs(tensors: Mapping[str, torch.Tensor]) -> dict[str, TensorRef]:
    return {name: MemoryTensor.of(name, tensor) for name, tensor in tensors.items()}


def save(weight_map: WeightMap, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as the checkpoint would hold them."""
    plans = weight_map.export(refs(tensors), lambda name: declaration(tuple(tensors[name].shape)))
    assert set(plans) == set(weight_map.stored_names(tensors))
    return {name: plan.run().contiguous() for name, plan in plans.items()}


# --- both directions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_saving_then_loading_changes_nothing(rules: tuple[Rule, ...]) -> None:
    weight_map = WeightMap(rules)
    tensors = model_tensors()
    stored = refs(save(weight_map, tensors))
    for name, tensor in tensors.items():
        plan = weight_map.source(name, "").plan(declaration(tuple(tensor.shape)), {}, stored)
        assert plan.shape == tuple(tensor.shape)
        assert torch.allclose(plan.run(), tensor, atol=1e-6), name
        out = torch.empty(tensor.shape, dtype=torch.float64)
        assert torch.allclose(plan.run(out).float(), tensor, atol=1e-6), name


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_the_inverse_of_the_inverse_is_the_map(rules: tuple[Rule, ...]) -> None:
    weight_map = WeightMap(rules)
    again = weight_map.inverse().inverse()
    for name in model_tensors():
        assert again.source(name, "") == weight_map.source(name, "")


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_stored_names_lead_back_to_the_model(rules: tuple[Rule, ...]) -> None:
    weight_map = WeightMap(rules)
    names = set(model_tensors())
    led = {back for stored in weight_map.stored_names(names) for back in weight_map.model_names(stored)}
    assert led == names


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_slice_through_the_map_is_a_slice_of_the_tensor(data: Any) -> None:
    weight_map = WeightMap(RULES[data.draw(st.sampled_from(sorted(RULES)))])
    tensors = model_tensors()
    stored = refs(save(weight_map, tensors))
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensor = tensors[name]
    decl = declaration(tuple(tensor.shape))
    ranges = {}
    expected = tensor
    for axis, place in decl.axes.items():
        if data.draw(st.booleans()):
            size = tensor.shape[place.dim]
            pieces = []
            for _ in range(data.draw(st.integers(1, 3))):
                start = data.draw(st.integers(0, size - 1))
                pieces.append((start, data.draw(st.integers(start + 1, size))))
            ranges[axis] = tuple(pieces)
            expected = expected.index_select(place.dim, indices(ranges[axis]))
    plan = weight_map.source(name, "").plan(decl, ranges, stored)
    assert plan.shape == tuple(expected.shape)
    assert torch.allclose(plan.run(), expected, atol=1e-6)


# --- packed fields ---------------------------------------------------------------------------------------------------

PACKED: list[Scheme] = [
    Dense(torch.bfloat16),
    Affine(bits=4, group=32, zero="int"),
    Affine(bits=3, group=32, act_order=True),
    Float8(granularity="channel"),
    Float8(granularity="block", block=(16, 32)),
    Micro(),
    Ggml("q4_0"),
]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("axis", ["out", "in"])
@pytest.mark.parametrize("scheme", PACKED, ids=lambda scheme: scheme.name)
def test_parts_fused_on_disk_are_read_packed_and_sharded(scheme: Scheme, axis: str, world: int) -> None:
    """Shard then unpack is unpack then shard, for parts of a fused matrix, in every scheme."""
    sizes = {"q_proj": 64, "k_proj": 32, "v_proj": 32}
    weight_map = WeightMap([Split("{p...}.qkv_proj", {f"{{p...}}.{part}": size for part, size in sizes.items()})])
    weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(1))
    fields = scheme.quantize(weight)
    whole = scheme.dequantize(fields, (128, 128))
    stored = refs({f"a.qkv_proj.{name}": field for name, field in fields.items()})
    start = 0
    for part, size in sizes.items():
        for rank in range(world):
            shard = Shard(rank, world)
            ranges = {axis: shard.even(size if axis == "out" else 128, what=part)}
            smaller, shape = scheme.sliced((size, 128), ranges)
            read = {
                name: weight_map.source(f"a.{part}", name).plan(one.decl, ranges, stored).run()
                for name, one in scheme.fields((size, 128)).items()
            }
            smaller.check(read, shape, what=part)
            expected = whole[start : start + size].index_select(AXES.index(axis) - 1, indices(ranges[axis]))
            assert torch.equal(smaller.dequantize(read, shape), expected)
        start += size


@pytest.mark.parametrize("scheme", [one for one in PACKED if not getattr(one, "block", None)], ids=lambda s: s.name)
def test_rotary_rows_are_reordered_packed(scheme: Scheme) -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(2))
    heads = 4
    theirs = weight.reshape(heads, 2, -1, 128).transpose(1, 2).reshape(64, 128)  # as llama.cpp's converter stores it
    stored = refs({f"q_proj.{name}": field for name, field in scheme.quantize(theirs).items()})
    source = WeightMap([Permute("q_proj", shape=(heads, -1, 2), order=(0, 2, 1))])
    fields = {
        name: source.source("q_proj", name).plan(one.decl, {}, stored).run()
        for name, one in scheme.fields((64, 128)).items()
    }
    expected = scheme.dequantize(scheme.quantize(weight), (64, 128))
    assert torch.equal(scheme.dequantize(fields, (64, 128)), expected)


@pytest.mark.parametrize("scheme", PACKED, ids=lambda scheme: scheme.name)
def test_experts_stored_one_by_one_are_stacked_packed(scheme: Scheme) -> None:
    weight = torch.randn(3, 32, 64, generator=torch.Generator().manual_seed(3))
    single = [scheme.quantize(weight[number]) for number in range(3)]
    stored = refs({f"experts.{e}.up.{name}": field for e, one in enumerate(single) for name, field in one.items()})
    weight_map = WeightMap([Stack("experts.up", "experts.{e}.up", 3)])
    ranges = {"expert": ((2, 3), (0, 1)), "out": ((16, 32),)}
    fields = {
        name: weight_map.source("experts.up", name).plan(one.decl, ranges, stored).run()
        for name, one in scheme.fields((3, 32, 64)).items()
    }
    smaller, shape = scheme.sliced((3, 32, 64), ranges)
    expected = scheme.dequantize(scheme.quantize(weight), (3, 32, 64))[[2, 0], 16:]
    assert torch.equal(smaller.dequantize(fields, shape), expected)


def test_a_stack_on_disk_gives_single_experts() -> None:
    weight_map = WeightMap([Unstack("experts.up", "experts.{e}.up", 3)])
    stored = refs({"experts.up.weight": torch.arange(12).reshape(3, 2, 2)})
    decl = declaration((2, 2))
    assert weight_map.source("experts.1.up").plan(decl, {}, stored).run().tolist() == [[4, 5], [6, 7]]
    assert weight_map.source("experts.3.up") == Leaf("experts.3.up.weight")


# --- what cannot work ------------------------------------------------------------------------------------------------


def plan(rules: list[Rule], name: str, decl: TensorDecl, tensors: Mapping[str, torch.Tensor], **ranges: Any) -> Any:
    return WeightMap(rules).source(name, "").plan(decl, ranges, refs(tensors))


def test_impossible_reads_are_refused_while_planning() -> None:
    blocks = TensorDecl("scale", {"out": Axis(0, block=128), "in": Axis(1, block=128)})
    packed = TensorDecl("qweight", {"out": Axis(1), "in": Axis(0, block=8)})
    scales = {"qkv.scale": torch.zeros(3, 1), "a.scale": torch.zeros(2, 1), "b.scale": torch.zeros(1, 1)}
    with pytest.raises(PlanError, match=r"qkv\.scale, axis 'out': cannot be cut at 200"):
        plan([Split("qkv", {"q": 200, "k": 184})], "q.scale", blocks, scales)
    with pytest.raises(PlanError, match=r"a\.scale: 200 elements .* not whole blocks of 128"):
        plan([Join("ab", {"a": 200, "b": 128})], "ab.scale", blocks, scales)
    with pytest.raises(PlanError, match="packed in blocks of 128, so its elements cannot be reordered"):
        plan([Permute("qkv", shape=(-1, 2), order=(1, 0))], "qkv.scale", blocks, scales)
    with pytest.raises(PlanError, match="cannot be stored transposed"):
        plan([Transpose("a", fields=None)], "a.qweight", packed, {"a.qweight": torch.zeros(1, 8)})
    with pytest.raises(PlanError, match="cannot be seen as"):
        plan([Permute("a", shape=(3, -1), order=(1, 0))], "a.w", declaration((8,)), {"a.w": torch.zeros(8)})
    with pytest.raises(CheckpointError, match=r"no tensor 'a\.w'"):
        plan([], "a.w", declaration((8,)), {})
    both = {"a.w": torch.zeros(2), "b.w": torch.zeros(2).half()}
    with pytest.raises(PlanError, match="different types cannot be joined"):
        plan([Join("ab", {"a": 2, "b": 2})], "ab.w", declaration((4,)), both)
    with pytest.raises(PlanError, match="cannot be stacked"):
        plan(
            [Stack("s", "s.{e}", 2)],
            "s.w",
            declaration((1, 2, 2)),
            {"s.0.w": torch.zeros(2, 2), "s.1.w": torch.zeros(2, 3)},
        )
    with pytest.raises(PlanError, match="there are 2 elements"):
        plan([Stack("s", "s.{e}", 2)], "s.w", declaration((2, 1, 1)), {}, expert=((1, 3),))
    with pytest.raises(PlanError, match="lies outside 4 elements"):
        plan([Join("ab", {"a": 2, "b": 2})], "ab.w", declaration((4,)), {}, out=((0, 5),))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rename({"a.{i}": "b.{j}"}),
        lambda: Rename({"a": "c", "b": "c"}),
        lambda: Split("qkv", {"q.{i}": 1}),
        lambda: Split("qkv", {"q": ((0, 2),), "k": ((3, 4),)}),
        lambda: Split("qkv", {"q": ((0, 2),), "k": ((1, 3),)}),
        lambda: Stack("a.{e}", "b.{e}", 2),
        lambda: Stack("a", "b", 2),
        lambda: Stack("a", "b.{e}", 0),
        lambda: Permute("a", shape=(2, 2), order=(0, 0)),
        lambda: Permute("a", shape=(-1, -1), order=(0, 1)),
        lambda: WeightMap(ignore=("(",)),
        lambda: match("{a}.{a}", "x.y"),
    ],
)
def test_rules_that_could_not_be_reversed_are_refused(make: Any) -> None:
    with pytest.raises(PlanError):
        make()


def test_one_scale_for_joined_parts_must_be_the_same() -> None:
    decl = TensorDecl("scale", {})
    rules: list[Rule] = [Join("ab", {"a": 2, "b": 2})]
    equal = {"a.scale": torch.tensor(2.0), "b.scale": torch.tensor(2.0)}
    assert plan(rules, "ab.scale", decl, equal).run().item() == 2
    with pytest.raises(CheckpointError, match=r"'scale' of a\.scale, b\.scale differs"):
        plan(rules, "ab.scale", decl, equal | {"b.scale": torch.tensor(3.0)}).run()


# --- names -----------------------------------------------------------------------------------------------------------


def test_patterns() -> None:
    assert match("model.layers.{i}.{x}_proj", "model.layers.10.q_proj.weight") == ({"i": "10", "x": "q"}, ".weight")
    assert match("model.layers.{i}", "model.layers.1") == ({"i": "1"}, "")
    assert match("model.layers.{i}", "model.layers.1.mlp.weight") is None
    assert match("{p...}.norm", "a.b.norm.weight") == ({"p": "a.b"}, ".weight")
    assert match("{p...}.norm", "norm.weight") is None
    assert match("a+b", "aab") is None


def test_renaming_uses_the_first_pair_once() -> None:
    weight_map = WeightMap([Rename({"a": "b", "b": "c", "{x}.norm": "{x}.other", "a.norm": "never"})])
    assert weight_map.source("a").names() == ("b.weight",)
    assert weight_map.source("b", "bias").names() == ("c.bias",)
    assert weight_map.source("a.norm").names() == ("a.other.weight",)
    assert weight_map.source("z").names() == ("z.weight",)


def test_parameters_without_a_field() -> None:
    weight_map = WeightMap(
        [
            Rename({"layers.{i}.ssm.A_log": "blk.{i}.ssm_a"}),
            Convert("blk.{i}.ssm_a", values=LOG_OF_NEGATIVE, fields=None),
        ]
    )
    stored = refs({"blk.0.ssm_a": torch.tensor([-1.0, -2.0])})
    read = weight_map.source("layers.0.ssm.A_log", "").plan(declaration((2,)), {}, stored).run()
    assert torch.allclose(read, torch.tensor([1.0, 2.0]).log())
    assert weight_map.model_names("blk.0.ssm_a") == ("layers.0.ssm.A_log",)


def test_value_maps_keep_the_stored_type() -> None:
    stored = refs({"n.weight": torch.tensor([0.5], dtype=torch.bfloat16)})
    read = WeightMap([Convert("n", values=plus(1))]).source("n").plan(declaration((1,)), {}, stored).run()
    assert (read.dtype, read.item()) == (torch.bfloat16, 1.5)


def test_tied_weights_are_found_under_either_name() -> None:
    weight_map = WeightMap([Rename({"lm_head": "output", "embed": "token_embd"})], ties=[("embed", "lm_head")])
    both = {"output.weight", "token_embd.weight"}
    for available, expected in (
        (both, "output"),
        ({"token_embd.weight"}, "token_embd"),
        ({"output.weight"}, "output"),
        (set(), "output"),
    ):
        assert weight_map.resolve("lm_head", "weight", available).names() == (f"{expected}.weight",)
    assert weight_map.has("embed", "weight", {"output.weight"})
    assert not weight_map.has("lm_head", "bias", both)


def test_unexpected_names_leave_out_what_is_used_or_ignored() -> None:
    names = ["a.weight", "b.weight", "layers.0.rotary_emb.inv_freq", "rotary_emb.inv_freq", "x.inv_freq"]
    assert WeightMap().unexpected(names, {"a.weight"}) == ["b.weight", "x.inv_freq"]
    assert WeightMap(ignore=(r"b\..*",)).unexpected(names[:2], {"a.weight"}) == []


def test_the_map_that_fits_a_checkpoint_is_chosen() -> None:
    plain, fused = WeightMap(), WeightMap([QKV])
    wanted = [("m.q_proj", "weight"), ("m.k_proj", "weight")]
    assert choose([plain, fused], wanted, {"m.qkv_proj.weight"}) is fused
    assert choose([plain, fused], wanted, {"m.q_proj.weight", "m.k_proj.weight"}) is plain
    assert choose([plain, fused], wanted, set()) is plain


def test_reading_part_of_a_mapped_fusion_copies_nothing() -> None:
    fused = torch.arange(32.0).reshape(16, 2)
    stored = refs({"a.qkv_proj.weight": fused})
    read = WeightMap([QKV]).source("a.k_proj").plan(declaration((4, 2)), {"out": ((1, 3),)}, stored).run()
    assert read.untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
    assert torch.equal(read, fused[9:11])
