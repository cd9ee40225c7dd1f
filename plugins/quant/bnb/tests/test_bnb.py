# SPDX-License-Identifier: Apache-2.0
"""Weights of bitsandbytes against their definition and against bitsandbytes itself: dequantized, cut, in whole models.

Legend: O outputs, I inputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tramontane.errors import CheckpointError, ConfigError, PlanError
from tramontane.schemes import Affine, Codebook
from tramontane.schemes.codebook import TABLES
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import assert_close
from tramontane.testing.oracle import Oracle
from tramontane.testing.quantized import PROMPT, Stored, check_slice, write_twins
from tramontane.testing.samples import sample
from tramontane.testing.strategies import slices
from tramontane.weightmap import Split, WeightMap
from tramontane_quant_bnb.format import Format

SHAPE = (40, 128)
LLAMA = sample("LlamaForCausalLM", "llama", num_hidden_layers=2)
CONFIG = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
DYNAMIC = torch.cat([-(torch.linspace(0.01, 1, 128) ** 2).flip(0), torch.linspace(0, 1, 128) ** 2])
"""Some table of 256 values in ascending order, as quantized scales have one."""


@frozen
class Kind:
    """One way to quantize a matrix to 4 bits."""

    table: str = "nf4"
    block: int = 64
    nested: int = 0
    storage: torch.dtype = torch.uint8

    def pack(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The stored fields, and the weight that they stand for."""
        table = torch.tensor(TABLES[self.table])
        flat = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % self.block)).view(-1, self.block)
        scale = flat.abs().amax(-1)
        fields: dict[str, Tensor] = {"weight.absmax": scale, "weight.quant_map": table}
        state = {"quant_type": self.table, "blocksize": self.block, "dtype": "float32", "shape": list(weight.shape)}
        if self.nested:
            mean = scale.mean()
            padded = torch.nn.functional.pad(scale - mean, (0, -scale.numel() % self.nested)).view(-1, self.nested)
            outer = padded.abs().amax(-1)
            codes = (padded[..., None] / outer[:, None, None] - DYNAMIC).abs().argmin(-1)
            scale = (DYNAMIC[codes] * outer[:, None]).flatten()[: scale.numel()] + mean
            fields |= {"weight.absmax": codes.flatten()[: scale.numel()].to(torch.uint8),
                       "weight.nested_absmax": outer, "weight.nested_quant_map": DYNAMIC}  # fmt: skip
            state |= {"nested_blocksize": self.nested, "nested_dtype": "float32", "nested_offset": mean.item()}
        codes = (flat[..., None] / scale[:, None, None] - table).abs().argmin(-1)
        made = (table[codes] * scale[:, None]).flatten()[: weight.numel()].view(weight.shape)
        codes = codes.flatten()[: weight.numel()]
        fields["weight"] = (codes[::2] << 4 | codes[1::2]).to(torch.uint8).view(self.storage).unsqueeze(-1)
        fields[f"weight.quant_state.bitsandbytes__{self.table}"] = text(state)
        return fields, made


def text(content: Any) -> Tensor:
    return torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)


def pack_int8(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    largest = weight.abs().amax(-1)
    codes = (weight / largest[:, None] * 127).round().to(torch.int8)
    return {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}, (
        codes * (largest / 127)[:, None]
    )


KINDS = [
    Kind(),
    Kind("fp4"),
    Kind("nf4", 32, nested=256),
    Kind("nf4", 64, nested=8),
    Kind("fp4", 64, nested=1),
    Kind("nf4", 64, nested=3),
    Kind("nf4", 64, storage=torch.bfloat16),
    Kind("nf4", 256),
    Kind("nf4", 512, nested=4),
]
NAMES = ["nf4", "fp4", "nested", "nested-rows", "nested-parts", "nested-across", "in-bf16", "across", "nested-both"]


def weight(shape: tuple[int, int] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_memory(fields: dict[str, Tensor]) -> Stored:
    return Stored(Format(), {"quantization_config": CONFIG}, {f"proj.{name}": one for name, one in fields.items()})


def stored(kind: Kind, **changes: Tensor) -> Stored:
    return in_memory({**kind.pack(weight())[0], **changes})


# --- single matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_dequantization_is_the_definition(kind: Kind) -> None:
    assert torch.equal(stored(kind).weight("proj", SHAPE), kind.pack(weight())[1])


@pytest.mark.parametrize("shape", [(6, 80), (40, 112), (3, 34)], ids=str)
@pytest.mark.parametrize("nested", [0, 256, 5])
def test_blocks_that_cross_rows(shape: tuple[int, int], nested: int) -> None:
    fields, expected = Kind(nested=nested).pack(weight(shape))
    made = in_memory(fields)
    part = made.part("proj", shape)
    assert part.scheme == Codebook("nf4", torch.gcd(torch.tensor(64), torch.tensor(shape[1])).item())
    assert torch.equal(made.weight("proj", shape), expected)
    assert check_slice(made, "proj", shape, "out", ((1, 3),))


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("block", [64, 128, 4096])
@pytest.mark.parametrize("double", [False, True])
def test_dequantization_is_what_bitsandbytes_says(quant_type: str, block: int, double: bool) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    shape = (64, 768)
    packed, state = functional.quantize_4bit(
        weight(shape), blocksize=block, quant_type=quant_type, compress_statistics=double
    )
    fields = {"weight": packed, **{f"weight.{name}": one for name, one in state.as_dict(packed=True).items()}}
    theirs = functional.dequantize_4bit(packed, state)
    assert torch.allclose(in_memory(fields).weight("proj", shape), theirs, rtol=1e-6, atol=1e-7)


def test_int8_is_what_bitsandbytes_says() -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    codes, scales, _ = functional.int8_vectorwise_quant(weight().half())
    fields = {"weight": codes, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    theirs = functional.int8_vectorwise_dequant(codes, scales)
    made = in_memory(fields)
    assert torch.allclose(made.weight("proj", SHAPE), theirs.float(), rtol=1e-6)
    assert made.part("proj", SHAPE).scheme == Affine(bits=8, group=0, scale_dtype=torch.float32)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), slices(SHAPE))
def test_cut_then_dequantized_is_dequantized_then_cut(kind: Kind, case: Any) -> None:
    check_slice(stored(kind), "proj", SHAPE, *case)


@settings(max_examples=40, deadline=None)
@given(slices(SHAPE))
def test_int8_is_cut(case: Any) -> None:
    assert check_slice(in_memory(pack_int8(weight())[0]), "proj", SHAPE, *case)


@pytest.mark.parametrize(
    ("kind", "axis", "cut", "works", "whole"),
    [
        (KINDS[0], "out", 1, True, False),
        (KINDS[0], "in", 64, True, False),
        (KINDS[0], "in", 32, False, False),
        (KINDS[2], "out", 40, True, False),
        (KINDS[3], "out", 4, True, False),
        (KINDS[3], "out", 2, False, False),
        (KINDS[4], "out", 1, True, False),
        (KINDS[5], "out", 1, True, True),
        (KINDS[7], "out", 1, True, True),
        (KINDS[7], "in", 128, True, True),
    ],
)
def test_which_cuts_are_possible_and_which_read_the_whole(
    kind: Kind, axis: str, cut: int, works: bool, whole: bool
) -> None:
    assert check_slice(stored(kind), "proj", SHAPE, axis, ((0, cut),)) is works
    if works:
        assert bool(stored(kind).part("proj", SHAPE, {axis: ((0, cut),)}).extra_nbytes) is whole


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_parts_of_what_is_fused_on_disk(kind: Kind) -> None:
    made = stored(kind)
    parts = evolve(made, names=WeightMap([Split("proj", {"q": 34, "k": 6})]))
    joined = torch.cat([parts.weight("q", (34, 128)), parts.weight("k", (6, 128))])
    assert torch.equal(joined, made.weight("proj", SHAPE))
    whole = kind.nested > 1 or kind.block > 128  # outer blocks, or blocks, that do not end with the part
    assert bool(parts.part("q", (34, 128)).extra_nbytes) is (whole and kind.nested != 256)


# --- whole models -----------------------------------------------------------------------------------------------------


def packer(pack: Any) -> Any:
    return lambda module, weight: pack(weight) if "_proj" in module else None


@pytest.mark.parametrize("pack", [KINDS[0].pack, KINDS[1].pack, KINDS[2].pack, pack_int8],
                         ids=["nf4", "fp4", "nested", "int8"])  # fmt: skip
def test_a_model_computes_what_its_dequantized_weights_compute(tmp_path: Path, pack: Any) -> None:
    """Its feed-forward is 112 wide, so that blocks cross the rows of one projection."""
    made = write_twins(tmp_path, LLAMA, packer(pack), settings={"quantization_config": CONFIG})
    assert len(made.packed) == 14
    made.check_logits()


def test_experts_are_described_one_by_one(tmp_path: Path) -> None:
    """Their offsets differ, and so do the lengths of the texts that state them."""
    config = sample("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=1, num_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=64, norm_topk_prob=True)  # fmt: skip
    lengths = set()

    def pack(weight: Tensor) -> Any:
        made = Kind(nested=256).pack(weight)
        lengths.add(len(made[0]["weight.quant_state.bitsandbytes__nf4"]))
        return made

    made = write_twins(tmp_path, config, packer(pack), settings={"quantization_config": CONFIG})
    assert len(lengths) > 1
    made.check_logits()


def test_transformers_saves_what_is_read(tmp_path: Path) -> None:
    """A model that transformers quantized and saved, against its own weights as bitsandbytes dequantizes them."""
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    import transformers

    config = {**LLAMA, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    oracle = Oracle.make(config)
    asked = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        oracle.save(tmp_path / "plain"), quantization_config=asked, dtype=torch.float32, device_map="cpu"
    )
    theirs.save_pretrained(tmp_path / "quantized")
    for name, module in theirs.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            oracle.model.get_submodule(name).weight.data = weight
    ours = Harness.load(tmp_path / "quantized", backend="torch", dtype="float32")
    assert isinstance(ours.loaded.plan.weight("model.layers.0.mlp.down_proj").parts[0].scheme, Codebook)
    assert_close(ours.logits(PROMPT), oracle.logits(PROMPT), 1e-4, "logits against transformers")


# --- what is refused --------------------------------------------------------------------------------------------------

STATE = "weight.quant_state.bitsandbytes__nf4"
DESCRIBED = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [40, 128]}


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({STATE: text(DESCRIBED)[:-3]}, CheckpointError, "not JSON"),
        ({STATE: text([1])}, ConfigError, "must be an object"),
        ({STATE: text({**DESCRIBED, "blocksize": 0})}, ConfigError, "blocksize"),
        ({STATE: text({**DESCRIBED, "quant_type": "fp8"})}, ConfigError, "quant_type"),
        ({STATE: text({**DESCRIBED, "shape": [40, 64]})}, PlanError, r"described as \[40, 64\]"),
        ({STATE: text({**DESCRIBED, "nested_blocksize": 256})}, PlanError, "absmax is torch.float32"),
        ({"weight.quant_map": torch.linspace(-1, 1, 16)}, PlanError, "table of its own"),
        ({"weight": torch.zeros(99, 1, dtype=torch.uint8)}, PlanError, r"\[99, 1\].*cannot be viewed"),
    ],
)
def test_modules_that_are_refused(changes: dict[str, Tensor], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        stored(Kind(), **changes).part("proj", SHAPE)


def test_rows_that_share_no_even_part_with_blocks_are_refused() -> None:
    with pytest.raises(PlanError, match="blocks of 64 cross rows of 15"):
        in_memory(Kind().pack(weight((4, 15)))[0]).part("proj", (4, 15))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"weight": torch.zeros(SHAPE, dtype=torch.int8)}, "has no SCB"),
        ({"weight": torch.zeros(SHAPE, dtype=torch.uint8)}, "describes it"),
        ({"weight": torch.zeros(SHAPE, dtype=torch.int8), "SCB": torch.ones(40),
          "weight_format": torch.tensor(2, dtype=torch.uint8)}, "layout 2"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(fields: dict[str, Tensor], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        in_memory(fields).part("proj", SHAPE)


@pytest.mark.parametrize("config", [{}, {"quantization_config": {"quant_method": "gptq"}}])
def test_other_checkpoints_are_left_alone(config: dict[str, Any]) -> None:
    assert Format().detect(Stored(Format(), config, {}).checkpoint) is None
    assert Format().detect(Stored(Format(), {"quantization_config": {"load_in_8bit": True}}, {}).checkpoint) is not None
