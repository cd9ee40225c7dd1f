# SPDX-License-Identifier: Apache-2.0
"""AWQ weights against their definition: dequantized, cut, in whole models, and refused.

Legend: O outputs, I inputs, G groups.
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
from tramontane.testing.quantized import Stored, check_slice, write_twins
from tramontane.testing.samples import sample
from tramontane.testing.strategies import slices
from tramontane.weightmap import Split, WeightMap
from tramontane_quant_awq.format import Format

SHAPE = (40, 96)
LLAMA = sample("LlamaForCausalLM", "llama", intermediate_size=128, num_hidden_layers=2)
ORDER = {4: (0, 2, 4, 6, 1, 3, 5, 7), 8: (0, 2, 1, 3)}
IN_ORDER = (0, 1, 2, 3)
"""Bits -> outputs in the order in which a word holds them, lowest bits first."""


def words(codes: Tensor, bits: int, order: tuple[int, ...]) -> Tensor:
    """Codes [n, O] as int32 [n, words of O]."""
    rows = [
        [sum(row[start + output] << (bits * place) for place, output in enumerate(order))
         for start in range(0, len(row), len(order))]
        for row in codes.tolist()
    ]  # fmt: skip
    return torch.tensor(rows, dtype=torch.int64).to(torch.int32)


@frozen
class Kind:
    """One way to quantize a matrix."""

    bits: int = 4
    group: int = 32
    dtype: torch.dtype = torch.float16
    by: str = ""

    @property
    def order(self) -> tuple[int, ...]:
        """Outputs as they follow in a word."""
        return IN_ORDER if self.by == "gptqmodel" and self.bits == 8 else ORDER[self.bits]

    @property
    def config(self) -> dict[str, Any]:
        """As ``quantization_config`` states it."""
        return {"quant_method": "awq", "bits": self.bits, "group_size": self.group, "version": "gemm",
                "zero_point": True, "modules_to_not_convert": None,
                "meta": {"quantizer": [f"{self.by}:7.7.0"]}}  # fmt: skip

    def pack(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The stored fields, and the weight that they stand for."""
        (outputs, inputs), top = weight.shape, 2**self.bits - 1
        grouped = weight.view(outputs, -1, inputs if self.group == -1 else self.group)
        low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        scale_OG = ((high - low) / top).to(self.dtype)
        zero_OG = (-low / scale_OG.float()).round().clamp(0, top)
        codes = (grouped / scale_OG.float()[..., None] + zero_OG[..., None]).round().clamp(0, top)
        fields = {
            "qweight": words(codes.view(outputs, inputs).T.long(), self.bits, self.order),
            "qzeros": words(zero_OG.T.long(), self.bits, self.order),
            "scales": scale_OG.T.contiguous(),
        }
        return fields, ((codes - zero_OG[..., None]) * scale_OG.float()[..., None]).view(outputs, inputs)


KINDS = [Kind(), Kind(8), Kind(4, -1), Kind(8, 48, torch.bfloat16), Kind(4, 96, torch.float32), Kind(8, by="gptqmodel")]


def weight(shape: tuple[int, int] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def stored(kind: Kind, **changes: Any) -> Stored:
    fields = {**kind.pack(weight())[0], **{k: v for k, v in changes.items() if isinstance(v, Tensor)}}
    config = {**kind.config, **{k: v for k, v in changes.items() if not isinstance(v, Tensor)}}
    tensors = {f"proj.{name}": tensor for name, tensor in fields.items() if name not in changes.get("without", ())}
    return Stored(Format(), {"quantization_config": config}, tensors)


def pack(kind: Kind) -> Any:
    return lambda module, weight: kind.pack(weight) if "_proj" in module else None


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantization_is_the_definition(kind: Kind) -> None:
    assert torch.equal(stored(kind).weight("proj", SHAPE), kind.pack(weight())[1])


@pytest.mark.parametrize("kind", [Kind(), Kind(4, 96, torch.float32), KINDS[-1]], ids=str)
def test_dequantization_is_what_gptqmodel_says(kind: Kind) -> None:
    packing = pytest.importorskip("gptqmodel.quantization.awq.utils.packing_utils", reason="GPTQModel is not installed")
    fields, _ = kind.pack(weight())
    theirs = packing.dequantize_gemm(
        fields["qweight"], fields["qzeros"], fields["scales"].float(), kind.bits, kind.group
    )
    assert torch.equal(stored(kind).weight("proj", SHAPE), theirs.T)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS), slices(SHAPE))
def test_cut_then_dequantized_is_dequantized_then_cut(kind: Kind, case: Any) -> None:
    check_slice(stored(kind), "proj", SHAPE, *case)


@pytest.mark.parametrize(
    ("kind", "axis", "cut", "works"),
    [
        (Kind(), "in", 32, True),
        (Kind(), "in", 16, False),
        (Kind(4, -1), "in", 2, True),
        (Kind(), "out", 8, True),
        (Kind(), "out", 4, False),
        (Kind(8), "out", 4, True),
    ],
    ids=str,
)
def test_which_cuts_are_possible(kind: Kind, axis: str, cut: int, works: bool) -> None:
    assert check_slice(stored(kind), "proj", SHAPE, axis, ((0, cut),)) is works


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_parts_of_what_is_fused_on_disk(kind: Kind) -> None:
    made = stored(kind)
    parts = evolve(made, names=WeightMap([Split("proj", {"q": 32, "k": 8})]))
    joined = torch.cat([parts.weight("q", (32, 96)), parts.weight("k", (8, 96))])
    assert torch.equal(joined, made.weight("proj", SHAPE))


@pytest.mark.parametrize("kind", [Kind(), Kind(8, -1)], ids=str)
def test_a_model_computes_what_its_dequantized_weights_compute(tmp_path: Path, kind: Kind) -> None:
    made = write_twins(tmp_path, LLAMA, pack(kind), settings={"quantization_config": kind.config})
    assert len(made.packed) == 14
    plan = made.check_logits().loaded.plan
    assert plan.weight("model.layers.0.mlp.down_proj").parts[0].scheme.name.startswith(f"affine{kind.bits}")


def test_experts_are_packed_one_by_one(tmp_path: Path) -> None:
    config = sample("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=1, num_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=32, norm_topk_prob=True)  # fmt: skip
    made = write_twins(tmp_path, config, pack(Kind()), settings={"quantization_config": Kind().config})
    assert len(made.packed) == 4 + 3 * 4
    made.check_logits()


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({}, {"quant_config.json": {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}}),
        ({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4, "group_size": 32}, {}),
        ({"quant_method": "awq", "format": "gemm", "bits": 4, "group_size": 32, "pack_dtype": "int32"}, {}),
    ],
)
def test_other_spellings(tmp_path: Path, settings: dict[str, Any], files: dict[str, Any]) -> None:
    stated = {"quantization_config": settings} if settings else {}
    write_twins(tmp_path, LLAMA, pack(Kind()), settings=stated, files=files).check_logits()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bits": 3}, "3 bits"),
        ({"group_size": -2}, "group_size"),
        ({"version": "gemv"}, "'gemv'"),
        ({"version": "gemv_fast"}, "'gemv_fast'"),
        ({"pack_dtype": "int64"}, "int64"),
        ({"act_bits": 8}, "activations of 8 bits"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stored(Kind(), **changes).sources  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"without": ("scales", "qzeros")}, "no qzeros and no scales"),
        ({"qweight": torch.zeros(96, 5, dtype=torch.int16)}, r"proj\.qweight is torch\.int16"),
    ],
)
def test_modules_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        stored(Kind(), **changes).part("proj", SHAPE)


def test_other_shapes_are_named() -> None:
    part = stored(Kind(), group_size=64).sources.part("proj", SHAPE, {})
    assert part is not None
    assert part.misfits == ("proj.qzeros is [3, 5] instead of [2, 5]", "proj.scales is [3, 40] instead of [2, 40]")


@pytest.mark.parametrize("config", [{}, {"quantization_config": {"quant_method": "gptq", "bits": 4}}])
def test_other_checkpoints_are_left_alone(config: dict[str, Any]) -> None:
    assert Format().detect(Stored(Format(), config, {}).checkpoint) is None
