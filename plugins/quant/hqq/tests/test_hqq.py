# SPDX-License-Identifier: Apache-2.0
"""HQQ weights against their definition and against HQQ itself: dequantized, cut, in whole models, from both files.

Legend: O outputs, I inputs; a matrix seen as groups is [-1, group] for axis 1 and [group, -1] for axis 0.
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

from tramontane.checkpoint import OpenOptions
from tramontane.errors import CheckpointError, PlanError, UnsafeFormatError
from tramontane.testing.grids import mostly_full
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import assert_close
from tramontane.testing.quantized import PROMPT, Stored, check_slice, write_twins
from tramontane.testing.samples import sample
from tramontane.testing.strategies import slices
from tramontane.weightmap import Split, WeightMap
from tramontane_quant_hqq.format import Format
from tramontane_quant_hqq.loader import open_qmodel, recognizes

SHAPE = (32, 96)
LLAMA = sample("LlamaForCausalLM", "llama", intermediate_size=128, num_hidden_layers=2)
CONFIG = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}, "skip_modules": ["lm_head"]}
PACKINGS = {8: ("8bit_u8", 1, 8), 6: ("8bit_u8", 1, 8), 5: ("8bit_u8", 1, 8), 4: ("4bit_u8", 2, 4),
            3: ("3bit_32", 10, 3), 2: ("2bit_u8", 4, 2), 1.58: ("2bit_u8", 4, 2), 1: ("1bit_u8", 8, 1)}  # fmt: skip
"""Bits -> packing, codes per number, bits of a code."""


def fold(codes: Tensor, bits: float) -> Tensor:
    """Codes [rows, columns] with rows of equal parts in one number, the first part in the highest bits."""
    name, slots, width = PACKINGS[bits]
    rows = -(-len(codes) // slots)
    padded = torch.nn.functional.pad(codes, (0, 0, 0, rows * slots - len(codes))).long().view(slots, rows, -1)
    folded = sum(part << (width * (slots - 1 - slot)) for slot, part in enumerate(padded))
    return folded.to(torch.int32 if name == "3bit_32" else torch.uint8)  # type: ignore[union-attr]


def text(value: str) -> Tensor:
    return torch.tensor([ord(letter) for letter in value], dtype=torch.uint8)


@frozen
class Kind:
    """One way to quantize a matrix."""

    bits: float = 4
    group: int = 32
    axis: int = 1
    dtype: torch.dtype = torch.float16
    seen_as: torch.dtype | None = None
    inner: str = ""
    """``scale``, ``zero`` or ``both`` are quantized too."""

    def pack(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The stored fields, and the weight that they stand for."""
        grouped = weight.reshape(-1, self.group) if self.axis == 1 else weight.reshape(self.group, -1)
        low, high = grouped.amin(self.axis, keepdim=True), grouped.amax(self.axis, keepdim=True)
        top = round(2**self.bits - 1)
        scale = ((high - low) / top).to(self.dtype)
        zero = (-low / scale.float()).to(self.dtype)
        fields = self.described(weight.shape)
        made = {}
        for name, values in (("scale", scale), ("zero", zero)):
            if self.inner in (name, "both"):
                inner, made[name] = pack_inner(values.float(), "scale" if name == "scale" else "zero")
                fields |= inner
            else:
                fields[name], made[name] = values, values.float()
        codes = (grouped / made["scale"] + made["zero"]).round().clamp(0, top)
        folded = fold(codes.long(), self.bits)
        fields["W_q"] = folded if self.seen_as is None else folded.view(self.seen_as)
        return fields, ((codes - made["zero"]) * made["scale"]).view(weight.shape)

    def described(self, shape: torch.Size) -> dict[str, Tensor]:
        """As HQQ encodes it for safetensors."""
        number = torch.float32 if isinstance(self.bits, float) else torch.int32
        return {
            "nbits": torch.tensor(self.bits, dtype=number), "group_size": torch.tensor(self.group, dtype=torch.int32),
            "shape": torch.tensor(shape), "axis": torch.tensor(self.axis, dtype=torch.int32),
            "packing": text(PACKINGS[self.bits][0]), "channel_wise": torch.tensor(1, dtype=torch.uint8),
            "view_as_float": torch.tensor(int(self.seen_as is not None), dtype=torch.uint8),
            "compute_dtype": text("torch.float16"), "unpack_view_dtype": text("torch.uint8"),
            "stores_quant_config": torch.tensor(1, dtype=torch.uint8),
        }  # fmt: skip


def pack_inner(values: Tensor, name: str) -> tuple[dict[str, Tensor], Tensor]:
    """Scales in groups of 16, zero points with one range for all, as HQQ's presets had them; both in bytes."""
    wise = name == "scale"
    grouped = values.reshape(-1, 16) if wise else values
    low = grouped.amin(1, keepdim=True) if wise else grouped.amin()
    high = grouped.amax(1, keepdim=True) if wise else grouped.amax()
    scale = ((high - low) / 255).clamp(min=1e-6)
    zero = -low / scale
    codes = (grouped / scale + zero).round().clamp(0, 255)
    fields = {
        f"{name}_q": codes.to(torch.uint8), f"meta_{name}_scale": scale, f"meta_{name}_zero": zero,
        f"meta_{name}_nbits": torch.tensor(8), f"meta_{name}_shape": torch.tensor(values.shape),
        f"meta_{name}_axis": torch.tensor(1), f"meta_{name}_packing": text("8bit_u8"),
        f"meta_{name}_channel_wise": torch.tensor(wise),
    }  # fmt: skip
    if wise:
        fields[f"meta_{name}_group_size"] = torch.tensor(16)
    return fields, ((codes - zero) * scale).view(values.shape)


KINDS = [Kind(bits, group, axis) for bits in PACKINGS for axis in (0, 1) for group in (8, 32)]
KINDS += [
    Kind(4, 64, 1),
    Kind(8, 64, 1),
    Kind(4, 32, 1, torch.bfloat16, seen_as=torch.float16),
    Kind(8, 32, 0, torch.float32, seen_as=torch.bfloat16),
    Kind(3, 32, 1, seen_as=torch.float16),
    Kind(4, 32, 1, inner="both"),
    Kind(2, 8, 0, inner="zero"),
    Kind(8, 32, 1, inner="scale"),
]


def weight(shape: tuple[int, int] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_memory(fields: dict[str, Tensor]) -> Stored:
    return Stored(Format(), {"quantization_config": CONFIG}, {f"proj.{name}": one for name, one in fields.items()})


def stored(kind: Kind, **changes: Tensor) -> Stored:
    return in_memory({**kind.pack(weight())[0], **changes})


# --- single matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantization_is_the_definition(kind: Kind) -> None:
    made = stored(kind)
    assert torch.equal(made.weight("proj", SHAPE), kind.pack(weight())[1])
    sources = made.sources
    sources.part("proj", SHAPE, {})
    assert sources.unused() == []


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [8, 4, 3, 2, 1])
def test_dequantization_is_what_hqq_says(bits: int, axis: int) -> None:
    hqq = pytest.importorskip("hqq.core.quantize", reason="hqq is not installed")
    linear = torch.nn.Linear(192, 64, bias=False)
    linear.weight.data = weight((64, 192))
    asked = hqq.BaseQuantizeConfig(nbits=bits, group_size=64, axis=axis)
    layer = hqq.HQQLinear(linear, asked, compute_dtype=torch.float32, device="cpu", del_orig=False)
    theirs = layer.dequantize()
    made = in_memory(layer.state_dict())
    ours = made.weight("proj", (64, 192))
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()
    sources = made.sources
    sources.part("proj", (64, 192), {})
    assert sources.unused() == []


def test_scales_and_zero_points_in_one_tensor() -> None:
    fields, expected = Kind(4).pack(weight())
    fields["zero_scale"] = torch.stack([fields.pop("zero"), fields.pop("scale")])
    assert torch.equal(in_memory(fields).weight("proj", SHAPE), expected)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), slices(SHAPE))
def test_cut_then_dequantized_is_dequantized_then_cut(kind: Kind, case: Any) -> None:
    check_slice(stored(kind), "proj", SHAPE, *case)


@pytest.mark.parametrize(
    ("kind", "axis", "cut", "works", "whole"),
    [
        (Kind(4), "out", 1, True, True),
        (Kind(4), "in", 32, True, True),
        (Kind(4), "in", 16, False, True),
        (Kind(8), "out", 1, True, False),
        (Kind(8), "in", 64, True, False),
        (Kind(8, 8, 0), "out", 4, True, False),
        (Kind(8, 8, 0), "out", 3, False, False),
        (Kind(3, 8, 0), "in", 8, True, True),
    ],
)
def test_which_cuts_are_possible_and_which_read_the_whole(
    kind: Kind, axis: str, cut: int, works: bool, whole: bool
) -> None:
    assert check_slice(stored(kind), "proj", SHAPE, axis, ((0, cut),)) is works
    if works:
        assert bool(stored(kind).part("proj", SHAPE, {axis: ((0, cut),)}).extra_nbytes) is whole


@pytest.mark.parametrize("kind", [Kind(8), Kind(4), Kind(3), Kind(4, 64), Kind(4, inner="both")], ids=str)
def test_parts_of_what_is_fused_on_disk(kind: Kind) -> None:
    made = stored(kind)
    parts = evolve(made, names=WeightMap([Split("proj", {"q": 24, "k": 8})]))
    joined = torch.cat([parts.weight("q", (24, 96)), parts.weight("k", (8, 96))])
    assert torch.equal(joined, made.weight("proj", SHAPE))
    assert bool(parts.part("q", (24, 96)).extra_nbytes) is (kind != Kind(8))


def test_groups_that_run_down_what_is_fused_are_refused() -> None:
    down = evolve(stored(Kind(8, 8, 0)), names=WeightMap([Split("proj", {"q": 24, "k": 8})]))
    with pytest.raises(PlanError, match="run down 32 outputs"):
        down.weight("q", (24, 96))


# --- whole models -----------------------------------------------------------------------------------------------------


def packer(kind: Kind) -> Any:
    return lambda module, weight: kind.pack(weight) if "_proj" in module else None


MODELS = [Kind(4), Kind(2, 16, 0), Kind(3), Kind(8, 32, 0), Kind(1, 8), Kind(4, 32, 1, inner="both")]


@pytest.mark.parametrize("kind", mostly_full(MODELS, (Kind(3), Kind(8, 32, 0), MODELS[-1])), ids=str)
def test_a_model_computes_what_its_dequantized_weights_compute(tmp_path: Path, kind: Kind) -> None:
    made = write_twins(tmp_path, LLAMA, packer(kind), settings={"quantization_config": CONFIG})
    assert len(made.packed) == 14
    made.check_logits()


def test_experts_are_packed_one_by_one(tmp_path: Path) -> None:
    config = sample("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=1, num_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=32, norm_topk_prob=True)  # fmt: skip
    made = write_twins(tmp_path, config, packer(Kind(4, 16, 0)), settings={"quantization_config": CONFIG})
    assert len(made.packed) == 4 + 3 * 4
    made.check_logits()


def pickled(directory: Path, kind: Kind) -> tuple[Path, Path]:
    """A model as HQQ pickles it, and its twin of dequantized floats."""
    from safetensors.torch import load_file

    made = write_twins(directory, LLAMA, packer(kind), settings={})
    modules: dict[str, dict[str, Any]] = {}
    for name, tensor in load_file(made.quantized / "model.safetensors").items():
        module, _, field = name.rpartition(".")
        modules.setdefault(module, {})[field] = tensor
    for content in modules.values():
        if "W_q" in content:
            _as_objects(content)
    folder = directory / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    torch.save(modules, folder / "qmodel.pt")
    return folder, made.plain


def _as_objects(content: dict[str, Any]) -> None:
    """Descriptions as the objects that they encode, nested ones nested, in ``meta`` as the first versions had them."""
    meta: dict[str, Any] = {}
    for name in [name for name in content if name != "W_q"]:
        value, place, key = content.pop(name), meta, name
        if name.startswith("meta_"):
            _, inner, key = name.split("_", 2)
            place = meta.setdefault(f"meta_{inner}", {})
        if key in ("scale", "zero", "scale_q", "zero_q"):
            place[key] = value
        elif key == "packing":
            place[key] = "".join(map(chr, value.tolist()))
        elif key == "shape":
            place[key] = torch.Size(value.tolist())
        elif value.dim() == 0:
            place[key] = value.item()
        else:
            place[key] = torch.float16
    content |= {"meta": meta, "bias": None, "scale_quant_params": {"nbits": 8, "group_size": 128}}


@pytest.mark.parametrize("kind", [Kind(4, 32, 0), Kind(4, 32, 1, inner="both")], ids=str)
def test_the_pickled_form_is_read_when_asked_for(tmp_path: Path, kind: Kind) -> None:
    folder, plain = pickled(tmp_path, kind)
    assert recognizes(folder)
    assert recognizes(folder / "qmodel.pt")
    with pytest.raises(UnsafeFormatError, match=r"qmodel\.pt is a pickle"):
        Harness.load(folder)
    ours = Harness.load(folder, allow_pickle=True, backend="torch", dtype="float32")
    theirs = Harness.load(plain, backend="torch", dtype="float32")
    assert_close(ours.logits(PROMPT), theirs.logits(PROMPT), 1e-4, "logits against the dequantized weights")


class Planted:
    def __reduce__(self) -> Any:
        return (print, ("code ran",))


@pytest.mark.parametrize("content", [Planted(), {"model": Planted()}, [1, 2], {"proj": torch.ones(2)}])
def test_pickles_that_hold_something_else_are_refused(tmp_path: Path, content: Any, capsys: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save(content, tmp_path / "qmodel.pt")
    with pytest.raises(CheckpointError, match=r"holds more than plain values|not a map of modules"):
        open_qmodel(tmp_path, OpenOptions(allow_pickle=True))
    assert "code ran" not in capsys.readouterr().out


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (Kind(), {"packing": text("4bit_marlin")}, "'4bit_marlin'"),
        (Kind(), {"nbits": torch.tensor(8)}, "8.0 bits along axis 1"),
        (Kind(), {"axis": torch.tensor(2)}, "along axis 2"),
        (Kind(), {"shape": torch.tensor([32, 48])}, r"described as \[32, 48\]"),
        (Kind(), {"channel_wise": torch.tensor(0)}, "one scale for a whole matrix"),
        (Kind(8, 8, 0), {"group_size": torch.tensor(12)}, "groups of 12 run down 32 outputs"),
        (Kind(), {"axis": torch.tensor([0, 1])}, "should be 1 number"),
    ],
)
def test_modules_that_are_refused(kind: Kind, changes: dict[str, Tensor], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        stored(kind, **changes).part("proj", SHAPE)


def test_a_module_without_its_description_is_refused() -> None:
    fields = {name: one for name, one in Kind().pack(weight())[0].items() if name != "packing"}
    with pytest.raises(PlanError, match="has no packing"):
        in_memory(fields).part("proj", SHAPE)


def test_other_checkpoints_are_left_alone() -> None:
    assert Format().detect(Stored(Format(), {}, {"a.weight": torch.ones(2)}).checkpoint) is None
    other = {"quantization_config": {"quant_method": "gptq"}}
    assert Format().detect(Stored(Format(), other, {"a.W_q": torch.ones(2)}).checkpoint) is None
    assert Format().detect(Stored(Format(), {}, {"a.W_q": torch.ones(2)}).checkpoint) is not None
