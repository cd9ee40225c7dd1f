# SPDX-License-Identifier: Apache-2.0
"""FP8 and 4-bit floating-point weights against their definition: dequantized, cut, in whole models, and refused.

Legend: O outputs, I inputs, r and c outputs and inputs per block.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tramontane.errors import ConfigError, PlanError
from tramontane.schemes import Act, Float8, Micro
from tramontane.testing.grids import mostly_full
from tramontane.testing.invariants import assert_close
from tramontane.testing.quantized import PROMPT, Stored, check_slice, write_twins
from tramontane.testing.samples import sample
from tramontane.testing.strategies import slices
from tramontane.weightmap import Split, WeightMap
from tramontane_quant_fp8.format import Format

SHAPE = (40, 96)
QWEN = sample("Qwen3ForCausalLM", "qwen3", num_hidden_layers=2)
E4M3, E5M2, E8M0 = torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def per_block(weight: Tensor, r: int, c: int) -> Tensor:
    """Largest magnitude of each block, blocks at the edges being smaller: [ceil(O / r), ceil(I / c)]."""
    outputs, inputs = weight.shape
    return torch.stack(
        [
            torch.stack([weight[row : row + r, column : column + c].abs().max() for column in range(0, inputs, c)])
            for row in range(0, outputs, r)
        ]
    )


def spread(scale: Tensor, r: int, c: int, shape: torch.Size) -> Tensor:
    """A scale per element."""
    return torch.tensor([[scale[o // r, i // c] for i in range(shape[1])] for o in range(shape[0])])


@frozen
class Kind:
    """One way to quantize a matrix: (r, c), the scales' field and shape, the types of both."""

    block: tuple[int, int]
    field: str = "weight_scale"
    shape: tuple[int, ...] | None = None
    fmt: torch.dtype = E4M3
    scale: torch.dtype = torch.float32
    stated: dict[str, Any] | None = None
    input_scale: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """As ``quantization_config`` states it."""
        return {"quant_method": "fp8", "activation_scheme": "dynamic", **(self.stated or {})}

    def pack(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The stored fields, and the weight that they stand for."""
        (r, c), top = self.block, torch.finfo(self.fmt).max
        scale = per_block(weight, r, c) / top
        if self.scale in (E8M0, torch.uint8):
            scale = scale.log2().ceil().exp2()
        kept = scale.to(E8M0 if self.scale is torch.uint8 else self.scale)
        factor = spread(kept.float(), r, c, weight.shape)
        codes = (weight / factor).clamp(-top, top).to(self.fmt)
        stored = kept.view(torch.uint8) if self.scale is torch.uint8 else kept
        fields = {"weight": codes, self.field: stored if self.shape is None else stored.reshape(self.shape)}
        if self.input_scale:
            fields[self.input_scale] = torch.tensor([0.25])
        return fields, codes.float() * factor


BIG = 1 << 20
BLOCKS = {"weight_block_size": [16, 32]}
RAGGED = {"weight_block_size": [32, 64]}
TENSOR = Kind((BIG, BIG), shape=())
TENSOR_1 = Kind((BIG, BIG), shape=(1,), fmt=E5M2, scale=torch.bfloat16)
STATIC = Kind(
    (BIG, BIG), "weight_scale_inv", (), stated={"activation_scheme": "static"}, input_scale="activation_scale"
)
CHANNEL = Kind((1, BIG), shape=(-1,), scale=torch.bfloat16)
CHANNEL_1 = Kind((1, BIG), shape=(-1, 1), stated={"quant_method": "fbgemm_fp8"}, input_scale="input_scale_ub")
BLOCK = Kind((16, 32), "weight_scale_inv", stated=BLOCKS)
BLOCK_RAGGED = Kind((32, 64), "weight_scale_inv", stated=RAGGED)
BLOCK_E8M0 = Kind((32, 64), "scale", scale=E8M0, stated=RAGGED)
MXFP8 = Kind((1, 32), "weight_scale", scale=torch.uint8, stated={"weight_block_size": [1, 32]})
OPTIMIZER = Kind(
    (BIG, BIG), shape=(), stated={"quant_method": "modelopt", "quant_algo": "FP8"}, input_scale="input_scale"
)
KINDS = [TENSOR, TENSOR_1, STATIC, CHANNEL, CHANNEL_1, BLOCK, BLOCK_RAGGED, BLOCK_E8M0, MXFP8, OPTIMIZER]
NAMES = ["tensor", "tensor-e5m2", "static", "channel", "fbgemm", "block", "ragged", "e8m0", "mxfp8", "modelopt"]


def pack_fp4(weight: Tensor, size: int, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of codes in bytes, the earlier in the low bits, and the weight [O, I] under a scale per ``size`` inputs."""
    unit = weight.view(weight.shape[0], -1, size) / scale[..., None]
    codes = (unit[..., None] - E2M1).abs().argmin(-1)
    flat = codes.view(weight.shape)
    return (flat[:, ::2] | flat[:, 1::2] << 4).to(torch.uint8), (E2M1[codes] * scale[..., None]).view(weight.shape)


def pack_nvfp4(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    largest = weight.view(weight.shape[0], -1, 16).abs().amax(-1)
    factor = largest.max() / (6 * 448)
    scale = (largest / 6 / factor).to(E4M3)
    codes, made = pack_fp4(weight, 16, scale.float() * factor)
    return {"weight": codes, "weight_scale": scale, "weight_scale_2": factor, "input_scale": torch.tensor(0.5)}, made


def pack_mxfp4(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    scale = (weight.view(weight.shape[0], -1, 32).abs().amax(-1).log2().floor() - 2).exp2().to(E8M0)
    codes, made = pack_fp4(weight, 32, scale.float())
    return {"weight": codes.view(torch.int8), "scale": scale}, made


NVFP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4"}


def weight(shape: tuple[int, int] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def stored(kind: Kind, **changes: Any) -> Stored:
    fields = {**kind.pack(weight())[0], **{k: v for k, v in changes.items() if isinstance(v, Tensor)}}
    return in_memory(fields, {**kind.config, **{k: v for k, v in changes.items() if not isinstance(v, Tensor)}})


def in_memory(fields: dict[str, Tensor], config: dict[str, Any]) -> Stored:
    return Stored(Format(), {"quantization_config": config}, {f"proj.{name}": one for name, one in fields.items()})


def scheme(kind: Kind) -> Float8:
    found = stored(kind).part("proj", SHAPE).scheme
    assert isinstance(found, Float8)
    return found


# --- single matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_dequantization_is_the_definition(kind: Kind) -> None:
    assert torch.equal(stored(kind).weight("proj", SHAPE), kind.pack(weight())[1])


def test_blocks_of_128_and_shapes_that_they_do_not_divide() -> None:
    kind, shape = Kind((128, 128), "weight_scale_inv", stated={"weight_block_size": [128, 128]}), (192, 320)
    fields, expected = kind.pack(weight(shape))
    assert fields["weight_scale_inv"].shape == (2, 3)
    made = in_memory(fields, kind.config)
    assert torch.equal(made.weight("proj", shape), expected)
    assert check_slice(made, "proj", shape, "out", ((128, 192),))
    with pytest.raises(PlanError, match=r"cannot be cut at 96.* 128 elements .* 0 and 128"):
        made.weight("proj", shape, {"out": ((0, 96),)})


@pytest.mark.parametrize(
    ("pack", "config", "expected"),
    [(pack_nvfp4, NVFP4, Micro("nvfp4", global_scale=True)), (pack_mxfp4, {"quant_method": "fp8"}, Micro("mxfp4"))],
)
def test_four_bit_floats(pack: Any, config: dict[str, Any], expected: Micro) -> None:
    fields, made = pack(weight())
    part = in_memory(fields, config).part("proj", SHAPE)
    assert part.scheme == expected
    assert torch.allclose(part.scheme.dequantize(part.read(), SHAPE), made, rtol=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), slices(SHAPE))
def test_cut_then_dequantized_is_dequantized_then_cut(kind: Kind, case: Any) -> None:
    check_slice(stored(kind), "proj", SHAPE, *case)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(pack_nvfp4, NVFP4), (pack_mxfp4, {"quant_method": "fp8"})]), slices(SHAPE))
def test_four_bit_floats_are_cut(kind: Any, case: Any) -> None:
    check_slice(in_memory(kind[0](weight())[0], kind[1]), "proj", SHAPE, *case)


@pytest.mark.parametrize(
    ("kind", "axis", "cut", "works"),
    [(TENSOR, "in", 1, True), (CHANNEL, "out", 1, True), (BLOCK, "out", 16, True), (BLOCK, "out", 8, False),
     (BLOCK, "in", 32, True), (BLOCK, "in", 16, False), (STATIC, "out", 3, True)],
)  # fmt: skip
def test_which_cuts_are_possible(kind: Kind, axis: str, cut: int, works: bool) -> None:
    assert check_slice(stored(kind), "proj", SHAPE, axis, ((0, cut),)) is works


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_parts_of_what_is_fused_on_disk(kind: Kind) -> None:
    made = stored(kind)
    parts = evolve(made, names=WeightMap([Split("proj", {"q": 32, "k": 8})]))
    joined = torch.cat([parts.weight("q", (32, 96)), parts.weight("k", (8, 96))])
    assert torch.equal(joined, made.weight("proj", SHAPE))


def test_experts_stored_as_a_stack() -> None:
    each = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    for kind in (STATIC, CHANNEL_1, BLOCK_RAGGED):
        fields = [kind.pack(one)[0] for one in each]
        made = in_memory({name: torch.stack([one[name] for one in fields]) for name in fields[0]}, kind.config)
        expected = torch.stack([kind.pack(one)[1] for one in each])
        assert torch.equal(made.weight("proj", (3, *SHAPE)), expected)
        assert check_slice(made, "proj", (3, *SHAPE), "expert", ((1, 3),))


# --- activations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        (TENSOR, Act("fp8", per="token")),
        (CHANNEL_1, Act("fp8", per="token")),
        (BLOCK_RAGGED, Act("fp8", per="group", group=64)),
        (STATIC, Act("fp8", "static", "tensor")),
        (OPTIMIZER, Act("fp8", "static", "tensor")),
        (evolve(STATIC, stated={"activation_scheme": "dynamic"}), Act("fp8", per="token")),
        (evolve(BLOCK, stated={"quant_algo": "FP8_PB_WO", **BLOCKS}), Act()),
    ],
)
def test_what_is_done_to_activations(kind: Kind, act: Act) -> None:
    assert scheme(kind).act == act


def test_static_scales_of_activations_are_kept() -> None:
    assert stored(STATIC).part("proj", SHAPE).read()["act_scale"] == 0.25
    made = stored(evolve(STATIC, stated={"activation_scheme": "dynamic"})).sources
    made.part("proj", SHAPE, {})
    assert made.unused() == []


# --- whole models -----------------------------------------------------------------------------------------------------


def packer(kind: Any) -> Any:
    pack = kind.pack if isinstance(kind, Kind) else kind
    return lambda module, weight: pack(weight) if "_proj" in module else None


@pytest.mark.parametrize("kind", mostly_full(KINDS, (STATIC, CHANNEL_1, BLOCK_RAGGED, MXFP8)), ids=NAMES)
def test_a_model_computes_what_its_dequantized_weights_compute(tmp_path: Path, kind: Kind) -> None:
    """Its feed-forward is 112 wide, which no block divides."""
    config = {**QWEN, "intermediate_size": 128} if kind is MXFP8 else QWEN
    made = write_twins(tmp_path, config, packer(kind), settings={"quantization_config": kind.config})
    assert len(made.packed) == 14
    plan = made.check_logits().loaded.plan
    assert isinstance(plan.weight("model.layers.0.mlp.down_proj").parts[0].scheme, Float8)


@pytest.mark.parametrize("kind", [STATIC, BLOCK, pack_nvfp4], ids=["static", "block", "nvfp4"])
def test_experts_are_packed_one_by_one(tmp_path: Path, kind: Any) -> None:
    config = sample("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=1, num_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=48, norm_topk_prob=True)  # fmt: skip
    stated = kind.config if isinstance(kind, Kind) else NVFP4
    made = write_twins(tmp_path, config, packer(kind), settings={"quantization_config": stated})
    assert len(made.packed) == 4 + 3 * 4
    made.check_logits()


def test_kinds_mixed_as_model_optimizer_mixes_them(tmp_path: Path) -> None:
    """Its settings lie beside config.json, and scales of the cache among the tensors."""

    def pack(module: str, weight: Tensor) -> Any:
        made = packer(pack_nvfp4 if "mlp" in module else OPTIMIZER)(module, weight)
        if made and module.endswith(("k_proj", "v_proj")):
            made[0][f"{module[-6]}_scale"] = torch.tensor(1.5)
        return made

    layers = {"model.layers.0.mlp.up_proj": {"quant_algo": "NVFP4", "group_size": 16},
              "model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"}}  # fmt: skip
    beside = {
        "quantization": {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8", "quantized_layers": layers}
    }
    config = {**QWEN, "intermediate_size": 96}
    write_twins(tmp_path, config, pack, settings={}, files={"hf_quant_config.json": beside}).check_logits()


def test_transformers_reads_the_same_from_blocks(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the other implementation")
    kind = evolve(BLOCK, stated=BLOCKS)
    made = write_twins(
        tmp_path, {**QWEN, "intermediate_size": 128}, packer(kind), settings={"quantization_config": kind.config}
    )
    asked = transformers.FineGrainedFP8Config(dequantize=True, weight_block_size=(16, 32))
    other = transformers.AutoModelForCausalLM.from_pretrained(
        made.quantized, quantization_config=asked, dtype=torch.float32
    )
    with torch.no_grad():
        theirs = other(torch.tensor([PROMPT])).logits[0].numpy()
    assert_close(made.check_logits().logits(PROMPT), theirs, 1e-4, "logits against transformers")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"weight_block_size": [128]}, "two numbers"),
        ({"weight_block_size": [0, 128]}, r"weight_block_size\[0\]"),
        ({"activation_scheme": "sometimes"}, "activation_scheme"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "W4A8_AWQ is not supported"),
        ({"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "INT4_AWQ"}}}, "INT4_AWQ"),
    ],
)
def test_settings_that_are_refused(stated: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stored(TENSOR, **stated).sources  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": torch.zeros(SHAPE).to(torch.float8_e4m3fnuz)}, "e4m3fnuz"),
        ({"weight_scale": torch.ones(3, 3)}, r"\[3, 3\] does not go with proj\.weight .*no weight_block_size"),
        ({"weight_scale": torch.ones(2, 3), "weight_block_size": [16, 32]}, "in blocks of 16 x 32"),
        ({"pre_quant_scale": torch.ones(96)}, "pre_quant_scale"),
        ({"weight": torch.zeros(SHAPE, dtype=torch.int8)}, "neither FP8 nor"),
        ({"weight_scale_2": torch.ones(()), "weight": torch.zeros(40, 48, dtype=torch.uint8)}, "not NVFP4"),
    ],
)
def test_modules_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        stored(TENSOR, **changes).part("proj", SHAPE)


def test_a_weight_without_scales_is_refused() -> None:
    with pytest.raises(PlanError, match="has no scale"):
        in_memory({"weight": torch.zeros(SHAPE).to(E4M3)}, TENSOR.config).part("proj", SHAPE)


@pytest.mark.parametrize(
    "config", [{}, {"quantization_config": {"quant_method": "gptq"}}, {"quantization_config": {"bits": 4}}]
)
def test_other_checkpoints_are_left_alone(config: dict[str, Any]) -> None:
    assert Format().detect(Stored(Format(), config, {}).checkpoint) is None
