# SPDX-License-Identifier: Apache-2.0
"""Layouts of compressed-tensors against their definition and against the library: dequantized, cut, in whole models.

Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tramontane.errors import ConfigError, PlanError
from tramontane.schemes import Act, Affine, Float8, Micro
from tramontane.testing.grids import mostly_full
from tramontane.testing.quantized import Stored, check_slice, write_twins
from tramontane.testing.samples import sample
from tramontane.testing.strategies import slices
from tramontane.weightmap import Split, WeightMap
from tramontane_quant_compressed_tensors.format import Format

SHAPE = (32, 96)
LLAMA = sample("LlamaForCausalLM", "llama", intermediate_size=96, num_hidden_layers=2)
E4M3, E8M0 = torch.float8_e4m3fn, torch.float8_e8m0fnu
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
"""Inputs per token."""


def words(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, n] as int32 [rows, ceil(n * bits / 32)]: a row is one number, its first code in the lowest bits."""
    count = -(-codes.shape[1] * bits // 32)
    rows = []
    for row in codes.tolist():
        number = sum(int(code) << (bits * place) for place, code in enumerate(row))
        rows.append([(number >> (32 * place)) & 0xFFFFFFFF for place in range(count)])
    return torch.tensor(rows, dtype=torch.int64).to(torch.int32)


@frozen
class Kind:
    """One way to quantize a matrix, as ``weights`` of a group states it, and the layout that stores it."""

    weights: dict[str, Any] = field(factory=dict)
    layout: str = "pack-quantized"
    inputs: dict[str, Any] | None = None
    order: bool = False

    def __str__(self) -> str:
        return f"{self.layout}-{'-'.join(str(one) for one in self.weights.values())}"

    @property
    def config(self) -> dict[str, Any]:
        """As ``quantization_config`` states it."""
        actorder = {"actorder": "group"} if self.order else {}
        group = {"targets": ["Linear"], "weights": {**self.weights, **actorder}, "input_activations": self.inputs}
        return {"quant_method": "compressed-tensors", "format": self.layout, "ignore": ["lm_head"],
                "quantization_status": "compressed", "config_groups": {"group_0": group}}  # fmt: skip

    def pack(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The stored fields, and the weight that they stand for."""
        if self.weights["type"] == "float":
            return (pack_float8 if self.weights["num_bits"] == 8 else pack_float4)(weight, self.weights)
        bits, symmetric = self.weights["num_bits"], self.weights.get("symmetric", True)
        (outputs, inputs), half = weight.shape, 2 ** (bits - 1)
        size = {"group": self.weights.get("group_size"), "channel": inputs}.get(self.weights["strategy"], inputs)
        place_I = (
            torch.randperm(inputs, generator=torch.Generator().manual_seed(1)) if self.order else torch.arange(inputs)
        )
        group_I = place_I // size
        scale, zero = torch.empty(outputs, -(-inputs // size)), torch.zeros(outputs, -(-inputs // size))
        for number in range(scale.shape[1]):
            values = weight[:, group_I == number]
            low, high = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
            if self.weights["strategy"] == "tensor":
                low, high = low.amin().expand(outputs), high.amax().expand(outputs)
            span = 2 * torch.maximum(-low, high) if symmetric else high - low
            scale[:, number] = (span / (2 * half - 1)).bfloat16().float()
            if not symmetric:
                zero[:, number] = (-half - low / scale[:, number]).round().clamp(-half, half - 1)
        codes = (weight / scale[:, group_I] + zero[:, group_I]).round().clamp(-half, half - 1)
        made = (codes - zero[:, group_I]) * scale[:, group_I]
        kept = scale[:1, :1].reshape(1) if self.weights["strategy"] == "tensor" else scale
        fields = {"weight_scale": kept.bfloat16()}
        if self.layout == "pack-quantized":
            fields |= {"weight_packed": words(codes + half, bits), "weight_shape": torch.tensor(weight.shape)}
            if not symmetric:
                fields["weight_zero_point"] = words(zero.T + half, bits).T.contiguous()
        else:
            fields["weight"] = codes.to(torch.int8)
            if not symmetric:
                fields["weight_zero_point"] = zero.to(torch.int8)
        if self.order:
            fields["weight_g_idx"] = group_I.to(torch.int32)
        return fields, made


def pack_float8(weight: Tensor, args: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    outputs, inputs = weight.shape
    r, c = {"tensor": weight.shape, "channel": (1, inputs), "block": args.get("block_structure"),
            "group": (1, args.get("group_size"))}[args["strategy"]]  # fmt: skip
    rows, columns = torch.arange(outputs) // r, torch.arange(inputs) // c
    scale = torch.zeros(int(rows[-1]) + 1, int(columns[-1]) + 1)
    for row in range(scale.shape[0]):
        for column in range(scale.shape[1]):
            scale[row, column] = weight[rows == row][:, columns == column].abs().max() / 448
    exponents = args["strategy"] == "group"
    kept = scale.log2().ceil().exp2().to(E8M0) if exponents else scale
    spread = kept.float()[rows][:, columns]
    codes = (weight / spread).clamp(-448, 448).to(E4M3)
    stored = kept.view(torch.uint8) if exponents else kept.reshape(1) if args["strategy"] == "tensor" else kept
    return {"weight": codes, "weight_scale": stored}, codes.float() * spread


def pack_float4(weight: Tensor, args: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    size = args["group_size"]
    grouped = weight.view(weight.shape[0], -1, size)
    largest = grouped.abs().amax(-1)
    if size == 16:
        factor = 6 * 448 / largest.max()
        scale = (largest / 6 * factor).to(E4M3)
        fields, spread = {"weight_scale": scale, "weight_global_scale": factor.reshape(1)}, scale.float() / factor
    else:
        scale = (largest.log2().floor() - 2).exp2().to(E8M0)
        fields, spread = {"weight_scale": scale.view(torch.uint8)}, scale.float()
    codes = (grouped[..., None] / spread[..., None, None] - E2M1).abs().argmin(-1)
    flat = codes.view(weight.shape)
    fields["weight_packed"] = (flat[:, ::2] | flat[:, 1::2] << 4).to(torch.uint8)
    return fields, (E2M1[codes] * spread[..., None]).view(weight.shape)


def ints(bits: int, strategy: str, *, symmetric: bool = True, size: int | None = None) -> dict[str, Any]:
    group = {} if size is None else {"group_size": size}
    return {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": symmetric, **group}


def floats(bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": "float", "strategy": strategy, **more}


INT_KINDS = [
    Kind(ints(4, "group", size=32)),
    Kind(ints(4, "group", size=32, symmetric=False)),
    Kind(ints(8, "channel")),
    Kind(ints(8, "channel", symmetric=False)),
    Kind(ints(3, "group", size=32, symmetric=False)),
    Kind(ints(2, "group", size=16)),
    Kind(ints(6, "channel", symmetric=False)),
    Kind(ints(8, "channel"), "int-quantized", TOKENS),
    Kind(ints(8, "tensor"), "int-quantized", TOKENS),
    Kind(ints(8, "channel", symmetric=False), "naive-quantized"),
    Kind(ints(4, "group", size=32), "naive-quantized"),
]
ORDERED = [
    Kind(ints(4, "group", size=32), order=True),
    Kind(ints(4, "group", size=16, symmetric=False), order=True),
]
FLOAT_KINDS = [
    Kind(floats(8, "tensor"), "float-quantized"),
    Kind(floats(8, "channel"), "float-quantized", {**TOKENS, "type": "float"}),
    Kind(floats(8, "block", block_structure=[16, 32]), "float-quantized"),
    Kind(floats(8, "block", block_structure=[20, 50]), "naive-quantized"),
    Kind(floats(8, "group", group_size=32, scale_dtype="torch.uint8"), "mxfp8-quantized"),
    Kind(floats(4, "tensor_group", group_size=16), "nvfp4-pack-quantized"),
    Kind(floats(4, "group", group_size=32), "mxfp4-pack-quantized"),
]
KINDS = [*INT_KINDS, *ORDERED, *FLOAT_KINDS]


def weight(shape: tuple[int, int] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def in_memory(fields: dict[str, Tensor], config: dict[str, Any]) -> Stored:
    return Stored(Format(), {"quantization_config": config}, {f"proj.{name}": one for name, one in fields.items()})


def stored(kind: Kind, **changes: Any) -> Stored:
    fields = {**kind.pack(weight())[0], **{k: v for k, v in changes.items() if isinstance(v, Tensor)}}
    kept = {name: one for name, one in fields.items() if name not in changes.get("without", ())}
    return in_memory(kept, {**kind.config, **changes.get("config", {})})


# --- single matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantization_is_the_definition(kind: Kind) -> None:
    made = stored(kind)
    assert torch.allclose(made.weight("proj", SHAPE), kind.pack(weight())[1], rtol=1e-6)
    sources = made.sources
    sources.part("proj", SHAPE, {})
    assert sources.unused() == []


@pytest.mark.parametrize("kind", [*INT_KINDS, *FLOAT_KINDS], ids=str)
def test_dequantization_is_what_the_library_says(kind: Kind) -> None:
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    fields, _ = kind.pack(weight())
    scheme = QuantizationScheme(targets=["Linear"], weights=kind.weights)
    exact = {name: one.float() if one.dtype is torch.bfloat16 else one for name, one in fields.items()}
    theirs = BaseCompressor.get_value_from_registry(kind.layout).decompress(exact, scheme)["weight"]
    ours = stored(kind).weight("proj", SHAPE)
    halves = theirs.dtype is torch.bfloat16  # the library makes 4-bit floats in half precision
    assert torch.allclose(ours, theirs.float(), rtol=0.02 if halves else 1e-6)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), slices(SHAPE))
def test_cut_then_dequantized_is_dequantized_then_cut(kind: Kind, case: Any) -> None:
    check_slice(stored(kind), "proj", SHAPE, *case)


@pytest.mark.parametrize(
    ("kind", "axis", "cut", "works"),
    [
        (INT_KINDS[0], "in", 32, True),
        (INT_KINDS[0], "in", 16, False),
        (INT_KINDS[0], "out", 1, True),
        (INT_KINDS[1], "out", 8, True),
        (INT_KINDS[1], "out", 4, False),
        (INT_KINDS[4], "out", 32, True),
        (INT_KINDS[7], "in", 1, True),
        (ORDERED[0], "in", 8, True),
        (FLOAT_KINDS[2], "out", 16, True),
        (FLOAT_KINDS[2], "out", 8, False),
        (FLOAT_KINDS[5], "in", 16, True),
    ],
    ids=str,
)
def test_which_cuts_are_possible(kind: Kind, axis: str, cut: int, works: bool) -> None:
    assert check_slice(stored(kind), "proj", SHAPE, axis, ((0, cut),)) is works


@pytest.mark.parametrize("shape", [(32, 80), (20, 96), (7, 44), (9, 9)], ids=str)
@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7])
def test_rows_that_leave_their_last_words_out(shape: tuple[int, int], bits: int) -> None:
    kind = Kind(ints(bits, "channel", symmetric=False))
    fields, expected = kind.pack(weight(shape))
    made = in_memory(fields, kind.config)
    assert torch.equal(made.weight("proj", shape), expected)
    check_slice(made, "proj", shape, "out", ((0, 1),))


@pytest.mark.parametrize("kind", [*INT_KINDS[:3], *ORDERED, *FLOAT_KINDS[:3]], ids=str)
def test_parts_of_what_is_fused_on_disk(kind: Kind) -> None:
    made = stored(kind)
    parts = evolve(made, names=WeightMap([Split("proj", {"q": 16, "k": 16})]))
    joined = torch.cat([parts.weight("q", (16, 96)), parts.weight("k", (16, 96))])
    assert torch.equal(joined, made.weight("proj", SHAPE))


def test_zero_points_that_are_not_packed() -> None:
    """The first versions kept them as int8."""
    kind = INT_KINDS[1]
    plain = evolve(kind, layout="naive-quantized").pack(weight())[0]["weight_zero_point"]
    assert torch.equal(stored(kind, weight_zero_point=plain).weight("proj", SHAPE), stored(kind).weight("proj", SHAPE))


def test_an_order_that_was_never_set_is_none() -> None:
    kind = INT_KINDS[0]
    made = stored(kind, weight_g_idx=torch.full((96,), -1, dtype=torch.int32))
    assert torch.equal(made.weight("proj", SHAPE), kind.pack(weight())[1])


@pytest.mark.parametrize(
    ("inputs", "given", "act"),
    [
        (None, {}, Act()),
        (TOKENS, {}, Act("int8", per="token")),
        ({**TOKENS, "symmetric": False}, {}, Act()),
        ({**TOKENS, "strategy": "tensor"}, {}, Act("int8", per="tensor")),
        ({**TOKENS, "type": "float", "strategy": "group", "group_size": 128}, {}, Act("fp8", per="group", group=128)),
        ({**TOKENS, "dynamic": False, "strategy": "tensor"}, {"input_scale": torch.ones(1)},
         Act("int8", "static", "tensor")),
        ({**TOKENS, "num_bits": 4}, {"input_global_scale": torch.ones(1)}, Act()),
    ],
)  # fmt: skip
def test_what_is_done_to_activations(inputs: Any, given: dict[str, Tensor], act: Act) -> None:
    made = stored(evolve(INT_KINDS[7], inputs=inputs), **given)
    part = made.part("proj", SHAPE)
    assert part.scheme.act == act
    assert ("act_scale" in part.read()) is (act.scale == "static")
    sources = made.sources
    sources.part("proj", SHAPE, {})
    assert sources.unused() == []


# --- whole models -----------------------------------------------------------------------------------------------------


def packer(kind: Kind) -> Any:
    return lambda module, weight: kind.pack(weight) if "_proj" in module else None


MODELS = [KINDS[1], KINDS[4], KINDS[7], KINDS[11], *FLOAT_KINDS[:2], *FLOAT_KINDS[4:]]


@pytest.mark.parametrize("kind", mostly_full(MODELS, (KINDS[1], KINDS[11], FLOAT_KINDS[1], FLOAT_KINDS[5])), ids=str)
def test_a_model_computes_what_its_dequantized_weights_compute(tmp_path: Path, kind: Kind) -> None:
    made = write_twins(tmp_path, LLAMA, packer(kind), settings={"quantization_config": kind.config})
    assert len(made.packed) == 14
    made.check_logits()


@pytest.mark.parametrize("kind", [KINDS[1], FLOAT_KINDS[0], FLOAT_KINDS[5]], ids=str)
def test_experts_are_packed_one_by_one(tmp_path: Path, kind: Kind) -> None:
    config = sample("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=1, num_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=32, norm_topk_prob=True)  # fmt: skip
    made = write_twins(tmp_path, config, packer(kind), settings={"quantization_config": kind.config})
    assert len(made.packed) == 4 + 3 * 4
    made.check_logits()


def test_groups_of_modules_by_name_pattern_and_class(tmp_path: Path) -> None:
    rest, attention, one = KINDS[0], FLOAT_KINDS[1], KINDS[2]
    groups = {
        "rest": {"targets": ["Linear"], "weights": rest.weights},
        "attention": {"targets": [r"re:.*self_attn.*"], "weights": attention.weights, "format": attention.layout},
        "one": {"targets": ["model.layers.0.self_attn.o_proj"], "weights": one.weights, "format": one.layout},
    }
    config = {**rest.config, "format": "mixed-precision", "config_groups": groups, "ignore": ["re:.*down_proj"]}

    def pack(module: str, weight: Tensor) -> Any:
        if "_proj" not in module or "down_proj" in module:
            return None
        kind = one if module == groups["one"]["targets"][0] else attention if "self_attn" in module else rest
        return kind.pack(weight)

    plan = write_twins(tmp_path, LLAMA, pack, settings={"quantization_config": config}).check_logits().loaded.plan
    schemes = {part.path: part.scheme for weight in plan.weights for part in weight.parts}
    assert isinstance(schemes["model.layers.0.self_attn.q_proj"], Float8)
    assert schemes["model.layers.0.self_attn.o_proj"].name == "affine8-grow"
    assert schemes["model.layers.1.mlp.up_proj"].name == "affine4-g32"
    assert schemes["model.layers.1.mlp.down_proj"].name == "f32"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"format": "marlin-24"}, "marlin-24"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        ({"transform_config": {"config_groups": {"R3": {"type": "hadamard"}}}}, "transform_config"),
        ({"config_groups": {"a": {"targets": ["Linear"], "weights": {"type": "posit"}}}}, "type"),
        ({"config_groups": {"a": {"format": "mxfp6-pack-quantized"}}}, "mxfp6-pack-quantized"),
    ],
)
def test_settings_that_are_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stored(KINDS[0], config=config).sources  # noqa: B018


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (KINDS[0], {"without": ("weight_scale",)}, "no weight_scale"),
        (KINDS[1], {"without": ("weight_zero_point",)}, "no weight_zero_point"),
        (ORDERED[0], {"without": ("weight_g_idx",)}, "no weight_g_idx"),
        (KINDS[2], {"config": {"config_groups": {}}}, "no group of the quantization_config"),
        (KINDS[0], {"config": Kind(ints(4, "block")).config}, "scale per block"),
        (FLOAT_KINDS[0], {"config": Kind(floats(8, "attn_head")).config}, "scale per attn_head"),
        (FLOAT_KINDS[0], {"weight": torch.zeros(SHAPE)}, "saved before it was compressed"),
        (FLOAT_KINDS[5], {"weight_scale": torch.ones(32, 6)}, r"scales of torch\.float32"),
    ],
)
def test_modules_that_are_refused(kind: Kind, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        stored(kind, **changes).part("proj", SHAPE)


def test_codes_of_another_width_are_named_with_their_shapes() -> None:
    config = {"config_groups": {"a": {"targets": ["Linear"], "weights": ints(8, "group", size=32)}}}
    part = stored(KINDS[0], config=config).sources.part("proj", SHAPE, {})
    assert part is not None
    assert part.misfits == ("proj.weight_packed is [32, 12] instead of [32, 24]",)


@pytest.mark.parametrize("config", [{}, {"quantization_config": {"quant_method": "gptq"}}])
def test_other_checkpoints_are_left_alone(config: dict[str, Any]) -> None:
    assert Format().detect(Stored(Format(), config, {}).checkpoint) is None


def test_the_schemes_that_layouts_become() -> None:
    assert stored(ORDERED[0]).part("proj", SHAPE).scheme == Affine(
        bits=4, group=32, act_order=True, scale_dtype=torch.bfloat16
    )
    assert stored(FLOAT_KINDS[5]).part("proj", SHAPE).scheme == Micro("nvfp4", global_scale=True)
    assert stored(FLOAT_KINDS[6]).part("proj", SHAPE).scheme == Micro("mxfp4")
