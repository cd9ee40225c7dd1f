# SPDX-License-Identifier: Apache-2.0
"""GPTQ weights against their definition: dequantized, cut, in whole models, and refused.

Packing is written out here bit by bit: a column of codes is one large number, cut into 32-bit words.

Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tramontane.errors import CheckpointError, ConfigError, PlanError
from tramontane.schemes import Affine
from tramontane.testing.grids import mostly_full
from tramontane.testing.quantized import Stored, check_slice, write_twins
from tramontane.testing.samples import sample
from tramontane.testing.strategies import slices
from tramontane.weightmap import Split, WeightMap
from tramontane_quant_gptq.format import Format

SHAPE = (40, 96)
LLAMA = sample("LlamaForCausalLM", "llama", intermediate_size=128, num_hidden_layers=2)


def words(codes: Tensor, bits: int) -> Tensor:
    """Codes [n, columns] as int32 [ceil(n * bits / 32), columns]; 3 bits in whole runs of 32 codes."""
    count = codes.shape[0]
    rows = -(-count // 32) * 3 if bits == 3 else -(-count * bits // 32)
    columns = []
    for column in codes.T.tolist():
        number = sum(code << (bits * place) for place, code in enumerate(column))
        columns.append([(number >> (32 * row)) & 0xFFFFFFFF for row in range(rows)])
    return torch.tensor(columns, dtype=torch.int64).to(torch.int32).T.contiguous()


@frozen
class Kind:
    """One way to quantize a matrix."""

    bits: int = 4
    group: int = 32
    sym: bool = True
    order: bool = False
    version: str = "gptq"

    def __str__(self) -> str:
        marks = [f"{self.bits}b", f"g{self.group}", "sym" if self.sym else "asym", "order" if self.order else "plain"]
        return "-".join([*marks, self.version])

    @property
    def config(self) -> dict[str, Any]:
        """As ``quantization_config`` states it."""
        return {"quant_method": "gptq", "bits": self.bits, "group_size": self.group, "sym": self.sym,
                "desc_act": self.order, "checkpoint_format": self.version, "damp_percent": 0.1}  # fmt: skip

    def pack(self, weight: Tensor, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """The stored fields, and the weight that they stand for."""
        (outputs, inputs), top = weight.shape, 2**self.bits - 1
        size = inputs if self.group == -1 else self.group
        place_I = torch.arange(inputs)
        if self.order:
            place_I = torch.randperm(inputs, generator=torch.Generator().manual_seed(seed))
        group_I = place_I // size
        scale_GO = torch.empty(-(-inputs // size), outputs)
        zero_GO = torch.full(scale_GO.shape, (top + 1) // 2)
        for group in range(len(scale_GO)):
            values = weight[:, group_I == group]
            low, high = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
            if self.sym:
                scale_GO[group] = 2 * torch.maximum(-low, high) / top
            else:
                scale_GO[group] = (high - low) / top
                zero_GO[group] = (-low / scale_GO[group]).round()
        scale_GO = scale_GO.half()
        scale_IO = scale_GO.float()[group_I]
        codes_IO = (weight.T / scale_IO + zero_GO[group_I]).round().clamp(0, top).long()
        less = int(self.version == "gptq")
        stored_zeros = (zero_GO - less).clamp(min=0)
        fields = {
            "qweight": words(codes_IO, self.bits),
            "qzeros": words(stored_zeros.T, self.bits).T.contiguous(),
            "scales": scale_GO,
            "g_idx": group_I.to(torch.int32),
        }
        return fields, ((codes_IO - (stored_zeros + less)[group_I]) * scale_IO).T.contiguous()


KINDS = [
    Kind(bits=bits, group=group, sym=sym, order=order, version=version)
    for bits in (2, 3, 4, 8)
    for group, sym, order, version in (
        (32, True, False, "gptq"),
        (32, False, False, "gptq_v2"),
        (32, False, True, "gptq"),
        (32, True, True, "gptq_v2"),
        (-1, False, False, "gptq"),
        (-1, True, True, "gptq"),
        (64, False, True, "gptq_v2"),
        (64, False, False, "gptq"),
    )
]


def weight(shape: tuple[int, int] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stored(kind: Kind, **changes: Any) -> Stored:
    fields = {**kind.pack(weight())[0], **{k: v for k, v in changes.items() if isinstance(v, Tensor)}}
    config = {**kind.config, **{k: v for k, v in changes.items() if not isinstance(v, Tensor)}}
    tensors = {f"proj.{name}": tensor for name, tensor in fields.items() if name not in changes.get("without", ())}
    return Stored(Format(), {"quantization_config": config}, tensors)


# --- single matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantization_is_the_definition(kind: Kind) -> None:
    assert torch.equal(stored(kind).weight("proj", SHAPE), kind.pack(weight())[1])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantization_is_what_gptqmodel_says(kind: Kind) -> None:
    """Its plain layer, which computes in half precision; version 1 is made version 2 by its own rule, as it does."""
    torch_layer = pytest.importorskip("gptqmodel.nn_modules.qlinear.torch", reason="GPTQModel is not installed")
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    shape = (64, 96)
    fields, _ = kind.pack(weight(shape))
    layer = torch_layer.TorchLinear(
        bits=kind.bits, group_size=kind.group, sym=kind.sym, desc_act=kind.order, in_features=96, out_features=64
    )
    layer.load_state_dict({name: one.clone() for name, one in fields.items()}, strict=False)
    if kind.version == "gptq":
        convert_gptq_v1_to_v2_format_module(layer, kind.bits, torch.int32)
    layer._init_wf_unsqueeze_buffers()
    theirs = layer.dequantize_weight().T.float()
    made = Stored(Format(), {"quantization_config": kind.config}, {f"proj.{n}": one for n, one in fields.items()})
    ours = made.weight("proj", shape)
    assert (ours - theirs).abs().max() <= 2**-10 * ours.abs().max()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_zero_point_of_zero_borrows_from_its_neighbour_and_gets_it_back(bits: int) -> None:
    """Writers of the first version take a one from all codes of a word by one subtraction."""
    kind = Kind(bits=bits, sym=False, version="gptq_v2")
    codes, ones = torch.zeros(3, 40, dtype=torch.int64), sum(1 << place for place in range(0, 32, bits))
    codes[:, 1::3] = 2**bits - 1
    plain = words(codes.T, bits).T
    shifted = (plain.long() - ones).to(torch.int32)
    first = stored(evolve(kind, version="gptq"), qzeros=shifted).part("proj", SHAPE).read()["zero"]
    assert torch.equal(first, codes.T)
    assert torch.equal(stored(kind, qzeros=plain.contiguous()).part("proj", SHAPE).read()["zero"], codes.T)


def test_zero_points_of_three_bits_wrap_alone() -> None:
    codes = torch.arange(40).expand(3, -1) % 8
    made = stored(Kind(bits=3, sym=False), qzeros=words((codes.T - 1) % 8, 3).T.contiguous())
    assert torch.equal(made.part("proj", SHAPE).read()["zero"], codes.T)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), slices(SHAPE))
def test_cut_then_dequantized_is_dequantized_then_cut(kind: Kind, case: Any) -> None:
    check_slice(stored(kind), "proj", SHAPE, *case)


@pytest.mark.parametrize(
    ("kind", "axis", "cut", "works"),
    [
        (Kind(), "in", 32, True),
        (Kind(), "in", 16, False),
        (Kind(group=-1), "in", 8, True),
        (Kind(group=-1), "in", 4, False),
        (Kind(order=True), "in", 8, True),
        (Kind(bits=3, order=True), "in", 32, True),
        (Kind(bits=3, order=True), "in", 16, False),
        (Kind(bits=8, order=True, sym=False), "in", 4, True),
        (Kind(sym=False), "out", 8, True),
        (Kind(sym=False), "out", 4, False),
        (Kind(bits=2, sym=False), "out", 16, True),
    ],
    ids=str,
)
def test_which_cuts_are_possible(kind: Kind, axis: str, cut: int, works: bool) -> None:
    assert check_slice(stored(kind), "proj", SHAPE, axis, ((0, cut),)) is works


@pytest.mark.parametrize("kind", [Kind(), Kind(sym=False, order=True), Kind(bits=3, sym=False)], ids=str)
def test_parts_of_what_is_fused_on_disk(kind: Kind) -> None:
    made = stored(kind)
    whole = made.weight("proj", SHAPE)
    parts = evolve(made, names=WeightMap([Split("proj", {"q": 32, "k": 8})]))
    assert torch.equal(torch.cat([parts.weight("q", (32, 96)), parts.weight("k", (8, 96))]), whole)


# --- whole models -----------------------------------------------------------------------------------------------------


def packer(kinds: Mapping[str, Kind], default: Kind | None) -> Any:
    """Packs every projection by the kind of the first key that its name contains."""

    def pack(module: str, weight: Tensor) -> Any:
        if "_proj" not in module:
            return None
        kind = next((kind for part, kind in kinds.items() if part in module), default)
        return None if kind is None else kind.pack(weight, seed=len(module))

    return pack


MODELS = [KINDS[0], KINDS[10], KINDS[13], KINDS[19], KINDS[30]]


@pytest.mark.parametrize("kind", mostly_full(MODELS, (KINDS[10], KINDS[13], KINDS[30])), ids=str)
def test_a_model_computes_what_its_dequantized_weights_compute(tmp_path: Path, kind: Kind) -> None:
    made = write_twins(tmp_path, LLAMA, packer({}, kind), settings={"quantization_config": kind.config})
    assert len(made.packed) == 14
    plan = made.check_logits().loaded.plan
    assert isinstance(plan.weight("model.layers.0.mlp.down_proj").parts[0].scheme, Affine)


@pytest.mark.parametrize("kind", [Kind(), Kind(sym=False, order=True)], ids=str)
def test_a_model_whose_projections_are_fused_on_disk(tmp_path: Path, kind: Kind) -> None:
    """One order of inputs serves all parts of a fused matrix."""
    config = sample("Phi3ForCausalLM", "phi3", intermediate_size=128, num_hidden_layers=2)
    made = write_twins(tmp_path, config, packer({}, kind), settings={"quantization_config": kind.config})
    assert [name for name in made.packed if "layers.0" in name and "qkv" in name] == [
        "model.layers.0.self_attn.qkv_proj"
    ]
    made.check_logits()


def test_experts_are_packed_one_by_one(tmp_path: Path) -> None:
    config = sample("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=2, num_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=32, norm_topk_prob=True)  # fmt: skip
    kind = Kind(sym=False, order=True)
    made = write_twins(tmp_path, config, packer({}, kind), settings={"quantization_config": kind.config})
    assert len(made.packed) == 2 * (4 + 3 * 4)
    made.check_logits()


def test_rules_for_single_modules(tmp_path: Path) -> None:
    """GPTQModel's: the first pattern that matches from the start decides; a minus leaves modules alone."""
    eight, three = Kind(bits=8, sym=False), Kind(bits=3, group=64)
    rules = {
        r"-:.*\.o_proj": {},
        r"+:.*\.0\.mlp\.(?:up|gate)_proj": {"bits": 8, "sym": False},
        r".*\.1\.self_attn\.[qkv]_proj": {"bits": 3, "group_size": 64},
    }
    kinds = {"o_proj": None, "0.mlp.up": eight, "0.mlp.gate": eight, "1.self_attn": three}
    made = write_twins(
        tmp_path, LLAMA, packer(kinds, Kind()), settings={"quantization_config": {**Kind().config, "dynamic": rules}}
    )
    plan = made.check_logits().loaded.plan
    names = {part.path: part.scheme.name for one in plan.weights for part in one.parts}
    assert names["model.layers.0.mlp.up_proj"] == "affine8-g32"
    assert names["model.layers.1.self_attn.k_proj"] == "affine3-grow"
    assert names["model.layers.1.self_attn.o_proj"] == "f32"
    assert names["model.layers.1.mlp.down_proj"] == "affine4-g32"


def test_autoround_says_the_same_in_other_words(tmp_path: Path) -> None:
    eight = Kind(bits=8, version="gptq_v2")
    config = {
        "quant_method": "auto-round", "packing_format": "auto_round:gptqmodel", "bits": 4, "group_size": 32,
        "sym": False, "data_type": "int", "act_bits": 16,
        "extra_config": {"model.layers.0.mlp.down_proj": {"bits": 8, "sym": True}, "lm_head": {"bits": 16},
                         ".*1.mlp.*": {"bits": 8, "sym": True}},
    }  # fmt: skip
    kinds = {"0.mlp.down": eight, "1.mlp": eight}
    made = write_twins(
        tmp_path, LLAMA, packer(kinds, Kind(sym=False, version="gptq_v2")), settings={"quantization_config": config}
    )
    made.check_logits()


def test_settings_in_the_file_of_old_writers_and_biases_that_are_zero(tmp_path: Path) -> None:
    old = {key: value for key, value in Kind().config.items() if key not in ("quant_method", "checkpoint_format")}

    def pack(module: str, weight: Tensor) -> Any:
        made = packer({}, Kind())(module, weight)
        return made and ({**made[0], "bias": torch.zeros(weight.shape[0]).half()}, made[1])

    made = write_twins(tmp_path, LLAMA, pack, settings={}, files={"quantize_config.json": old})
    made.check_logits()


def test_a_bias_that_the_model_lacks_is_not_dropped(tmp_path: Path) -> None:
    def pack(module: str, weight: Tensor) -> Any:
        made = packer({}, Kind())(module, weight)
        return made and ({**made[0], "bias": torch.ones(weight.shape[0]).half()}, made[1])

    made = write_twins(tmp_path, LLAMA, pack, settings={"quantization_config": Kind().config})
    with pytest.raises(CheckpointError, match=r"14 unexpected: .*q_proj\.bias"):
        made.check_logits()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bits": 5}, "5 bits"),
        ({"group_size": 0}, "group_size"),
        ({"checkpoint_format": "marlin"}, "'marlin'"),
        ({"pack_dtype": "int64"}, "int64"),
        ({"act_bits": 8}, "activations of 8 bits"),
        ({"bits": None}, "bits: must be a whole number"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:fp8"}, "auto_round:fp8"),
        ({"rotation_config": {"type": "hadamard"}}, "rotation_config"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stored(Kind(), **changes).sources  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"without": ("scales",)}, "no scales"),
        ({"without": ("qzeros",), "sym": False}, "no qzeros"),
        ({"without": ("g_idx",), "desc_act": True}, "no g_idx"),
        ({"qweight": torch.zeros(12, 40, dtype=torch.int64)}, r"proj\.qweight is torch\.int64"),
    ],
)
def test_modules_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        stored(Kind(), **changes).part("proj", SHAPE)


def test_codes_of_another_width_are_named_with_their_shapes() -> None:
    part = stored(Kind(), bits=8).sources.part("proj", SHAPE, {})
    assert part is not None
    assert "proj.qweight is [12, 40] instead of [24, 40]" in part.misfits


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (Kind(sym=False), {"sym": True}, "symmetric"),
        (Kind(order=True), {"desc_act": False}, "in order"),
    ],
)
def test_settings_that_the_tensors_contradict(kind: Kind, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        stored(kind, **changes).part("proj", SHAPE).read()


@pytest.mark.parametrize("config", [{}, {"quantization_config": {"quant_method": "awq", "bits": 4}}])
def test_other_checkpoints_are_left_alone(config: dict[str, Any]) -> None:
    assert Format().detect(Stored(Format(), config, {}).checkpoint) is None
    awq = {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4}
    assert Format().detect(Stored(Format(), {"quantization_config": awq}, {}).checkpoint) is None
