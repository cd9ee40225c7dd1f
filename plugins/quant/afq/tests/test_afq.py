# SPDX-License-Identifier: Apache-2.0
"""Weights that MLX quantized against their definition and against MLX itself: dequantized, cut, in whole models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tramontane.errors import ConfigError, PlanError
from tramontane.schemes import Micro
from tramontane.testing.grids import mostly_full
from tramontane.testing.quantized import Stored, check_slice, write_twins
from tramontane.testing.samples import sample
from tramontane.testing.strategies import slices
from tramontane.weightmap import Split, WeightMap
from tramontane_quant_afq.format import Format

SHAPE = (24, 256)
LLAMA = sample("LlamaForCausalLM", "llama", intermediate_size=128, num_hidden_layers=2)
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def words(codes: Tensor, bits: int) -> Tensor:
    """Codes [O, I] as uint32 [O, I * bits / 32]: a row is one number, its first code in the lowest bits."""
    count = codes.shape[1] * bits // 32
    rows = []
    for row in codes.tolist():
        number = sum(int(code) << (bits * place) for place, code in enumerate(row))
        rows.append([(number >> (32 * place)) & 0xFFFFFFFF for place in range(count)])
    return torch.tensor(rows, dtype=torch.int64).to(torch.uint32)


@frozen
class Kind:
    """One way to quantize a matrix."""

    bits: int = 4
    group: int = 64
    mode: str = "affine"
    dtype: torch.dtype = torch.float16

    @property
    def config(self) -> dict[str, Any]:
        """As the configuration states it."""
        mode = {} if self.mode == "affine" else {"mode": self.mode}
        return {"group_size": self.group, "bits": self.bits, **mode}

    def pack(self, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The stored fields, and the weight that they stand for."""
        grouped = weight.view(weight.shape[0], -1, self.group)
        if self.mode == "affine":
            low, high, top = grouped.amin(-1), grouped.amax(-1), 2**self.bits - 1
            scale, bias = ((high - low) / top).to(self.dtype), low.to(self.dtype)
            codes = ((grouped - bias.float()[..., None]) / scale.float()[..., None]).round().clamp(0, top)
            made = codes * scale.float()[..., None] + bias.float()[..., None]
            fields = {"scales": scale, "biases": bias}
        else:
            exponent = grouped.abs().amax(-1).log2().floor() - (8 if self.mode == "mxfp8" else 2)
            scale = exponent.exp2().to(torch.float8_e4m3fn if self.mode == "nvfp4" else torch.float8_e8m0fnu)
            unit = grouped / scale.float()[..., None]
            if self.mode == "mxfp8":
                codes = unit.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
                values = codes.view(torch.float8_e4m3fn).float()
            else:
                codes = (unit[..., None] - E2M1).abs().argmin(-1)
                values = E2M1[codes]
            made = values * scale.float()[..., None]
            fields = {"scales": scale.view(torch.uint8)}
        return {"weight": words(codes.view(weight.shape), self.bits), **fields}, made.view(weight.shape)


AFFINE = [Kind(bits, group) for bits in (2, 3, 4, 6, 8) for group in (32, 64, 128)]
KINDS = [*AFFINE, Kind(1, 64), Kind(5, 32, dtype=torch.bfloat16), Kind(4, 32, "mxfp4"), Kind(4, 16, "nvfp4"),
         Kind(8, 32, "mxfp8")]  # fmt: skip


def weight(shape: tuple[int, int] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def stored(kind: Kind, **changes: Any) -> Stored:
    fields = {**kind.pack(weight())[0], **{k: v for k, v in changes.items() if isinstance(v, Tensor)}}
    config = {**kind.config, **{k: v for k, v in changes.items() if not isinstance(v, Tensor | tuple)}}
    tensors = {f"proj.{name}": tensor for name, tensor in fields.items() if name not in changes.get("without", ())}
    return Stored(Format(), {"quantization": config}, tensors)


# --- single matrices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantization_is_the_definition(kind: Kind) -> None:
    assert torch.equal(stored(kind).weight("proj", SHAPE), kind.pack(weight())[1])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_dequantization_is_what_mlx_says(kind: Kind) -> None:
    mx = pytest.importorskip("mlx.core", reason="MLX has no wheel for this machine")
    made = mx.quantize(mx.array(weight().numpy()), group_size=kind.group, bits=kind.bits, mode=kind.mode)
    theirs = mx.dequantize(*made, group_size=kind.group, bits=kind.bits, mode=kind.mode).astype(mx.float32)
    names = ("weight", "scales", "biases")
    fields = {name: torch.from_numpy(np.array(one)) for name, one in zip(names, made, strict=False)}
    tensors = {f"proj.{name}": tensor for name, tensor in fields.items()}
    ours = evolve(stored(kind), tensors=tensors).weight("proj", SHAPE)
    assert torch.allclose(ours, torch.from_numpy(np.array(theirs)), rtol=1e-6, atol=1e-6)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(KINDS), slices(SHAPE))
def test_cut_then_dequantized_is_dequantized_then_cut(kind: Kind, case: Any) -> None:
    check_slice(stored(kind), "proj", SHAPE, *case)


@pytest.mark.parametrize(
    ("kind", "axis", "cut", "works"),
    [
        (Kind(3, 32), "in", 96, True),
        (Kind(4, 64), "in", 32, False),
        (Kind(6, 128), "in", 128, True),
        (Kind(4, 16, "nvfp4"), "in", 16, True),
        (Kind(4, 16, "nvfp4"), "in", 8, False),
        (Kind(4, 64), "out", 1, True),
    ],
    ids=str,
)
def test_which_cuts_are_possible(kind: Kind, axis: str, cut: int, works: bool) -> None:
    assert check_slice(stored(kind), "proj", SHAPE, axis, ((0, cut),)) is works


def test_parts_of_what_is_fused_on_disk() -> None:
    made = stored(Kind(3, 32))
    parts = evolve(made, names=WeightMap([Split("proj", {"q": 17, "k": 7})]))
    joined = torch.cat([parts.weight("q", (17, 256)), parts.weight("k", (7, 256))])
    assert torch.equal(joined, made.weight("proj", SHAPE))


def test_experts_stored_as_a_stack() -> None:
    """MLX stacks the experts of a layer, which the others store one by one."""
    kind, each = Kind(3, 32), [torch.randn(16, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    fields = [kind.pack(one)[0] for one in each]
    tensors = {f"experts.{name}": torch.stack([one[name] for one in fields]) for name in fields[0]}
    made = Stored(Format(), {"quantization": kind.config}, tensors)
    assert torch.equal(made.weight("experts", (3, 16, 64)), torch.stack([kind.pack(one)[1] for one in each]))
    assert check_slice(made, "experts", (3, 16, 64), "expert", ((1, 2),))
    assert check_slice(made, "experts", (3, 16, 64), "in", ((32, 64),))


# --- whole models -----------------------------------------------------------------------------------------------------


MODELS = [Kind(4, 32), Kind(3, 64), Kind(6, 32), Kind(4, 32, "mxfp4"), Kind(8, 32, "mxfp8")]


@pytest.mark.parametrize("kind", mostly_full(MODELS, (Kind(3, 64), Kind(4, 32, "mxfp4"))), ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_computes_what_its_dequantized_weights_compute(tmp_path: Path, kind: Kind, tied: bool) -> None:
    """Embeddings are packed too, and where the head is tied both are one storage."""
    config = {**LLAMA, "tie_word_embeddings": tied}
    made = write_twins(tmp_path, config, lambda name, weight: kind.pack(weight), settings={"quantization": kind.config})
    assert len(made.packed) == 14 + (1 if tied else 2)
    plan = made.check_logits().loaded.plan
    assert ("lm_head" in {one.path for one in plan.weights}) is not tied


def test_other_widths_for_single_modules(tmp_path: Path) -> None:
    six, plain = "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj"
    mixed, fp4 = "lm_head", "model.layers.1.mlp.up_proj"
    rules = {six: Kind(6, 32), mixed: Kind(8, 64), fp4: Kind(4, 32, "mxfp4")}
    stated = {**Kind(4, 32).config, **{name: kind.config for name, kind in rules.items()}, plain: False}

    def pack(name: str, weight: Tensor) -> Any:
        return None if name == plain else rules.get(name, Kind(4, 32)).pack(weight)

    both = {"quantization": stated, "quantization_config": stated}
    plan = write_twins(tmp_path, LLAMA, pack, settings=both).check_logits().loaded.plan
    schemes = {part.path: part.scheme for one in plan.weights for part in one.parts}
    assert schemes[six].name == "affine6-g32"
    assert schemes[plain].name == "f32"
    assert schemes[mixed].name == "affine8-g64"
    assert schemes[fp4] == Micro("mxfp4")


def test_experts_in_stacks_as_mlx_stores_them(tmp_path: Path) -> None:
    config = sample("Qwen3MoeForCausalLM", "qwen3_moe", num_hidden_layers=2, num_experts=4, num_experts_per_tok=2,
                    moe_intermediate_size=32, norm_topk_prob=True)  # fmt: skip
    kind = Kind(4, 32)
    made = write_twins(tmp_path, config, lambda name, weight: kind.pack(weight), settings={"quantization": kind.config})
    file = made.quantized / "model.safetensors"
    stacks: dict[str, list[Tensor]] = {}
    tensors = {}
    for name, tensor in sorted(load_file(file).items()):
        found = re.fullmatch(r"(.*)\.experts\.\d+\.(.*)", name)
        if found:
            stacks.setdefault(f"{found[1]}.switch_mlp.{found[2]}", []).append(tensor)
        else:
            tensors[name] = tensor
    save_file(tensors | {name: torch.stack(each) for name, each in stacks.items()}, file, metadata={"format": "mlx"})
    assert len(stacks) == 2 * 3 * 3
    plan = made.check_logits().loaded.plan
    assert {one.shape for one in plan.weights if "experts" in one.uses} == {(4, 64, 64), (4, 64, 32)}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bits": 7}, "7 bits"),
        ({"bits": 8, "mode": "mxfp4", "group_size": 32}, "mxfp4 weights of 8 bits"),
        ({"mode": "nvfp4"}, "groups of 64"),
        ({"mode": "vq"}, "'vq'"),
        ({"group_size": 0}, "groups of 0"),
        ({"group_size": "wide"}, "group_size: must be a whole number"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stored(Kind(), **changes).sources  # noqa: B018


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (Kind(), {"without": ("scales",)}, "has no scales"),
        (Kind(), {"weight": torch.zeros(24, 64, dtype=torch.int16)}, r"proj\.weight is torch\.int16"),
        (Kind(4, 32, "mxfp4"), {"scales": torch.ones(24, 8)}, r"proj\.scales is torch\.float32"),
    ],
)
def test_modules_that_are_refused(kind: Kind, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        stored(kind, **changes).part("proj", SHAPE)


def test_codes_of_another_width_are_named_with_their_shapes() -> None:
    part = stored(Kind(4), bits=3).sources.part("proj", SHAPE, {})
    assert part is not None
    assert part.misfits == ("proj.weight is [24, 32] instead of [24, 24]",)


@pytest.mark.parametrize(
    "config",
    [{}, {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64}},
     {"quantization_config": {"quant_algo": "FP8"}}],
)  # fmt: skip
def test_other_checkpoints_are_left_alone(config: dict[str, Any]) -> None:
    assert Format().detect(Stored(Format(), config, {}).checkpoint) is None
