# SPDX-License-Identifier: Apache-2.0
"""Quantized checkpoints of strangers: whatever the settings and tensors are, the answer is a plan or a typed error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tramontane.build.formats import DenseFormat, detect_formats
from tramontane.build.sources import Sources
from tramontane.checkpoint import Checkpoint, MemoryTensor
from tramontane.errors import TramontaneError
from tramontane.plugins import installed
from tramontane.schemes.codebook import TABLES
from tramontane.weightmap import WeightMap

Json = Any
TYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int32, torch.int64, torch.uint32,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.bool,
)  # fmt: skip
SHAPES = [(), (1,), (8,), (32,), (16, 1), (16, 2), (16, 4), (16, 32), (16, 64), (64, 16), (8, 16), (2, 16), (4, 2),
          (512, 1), (2, 16, 64), (0,), (0, 64), (16, 0)]  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.sampled_from([2**31, 2**63, -(2**63)]),
    st.floats(allow_nan=False), st.text(max_size=6), st.lists(st.integers(-1, 200), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip
Field = tuple[torch.dtype, tuple[int, ...]]
F16, F32, U8, I8, I32 = torch.float16, torch.float32, torch.uint8, torch.int8, torch.int32
E4M3 = torch.float8_e4m3fn
#: Format -> the settings that make it look, and the fields that it looks for, as a matrix of 16 x 64 has them.
FORMATS: dict[str, tuple[dict[str, Json], dict[str, Field]]] = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": True, "dynamic": {"+:.*": {}},
         "checkpoint_format": "gptq", "pack_dtype": "int32", "extra_config": {".*": {"bits": 4}}},
        {"qweight": (I32, (8, 16)), "qzeros": (I32, (2, 2)), "scales": (F16, (2, 16)), "g_idx": (I32, (64,)),
         "bias": (F16, (16,))},
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
        {"qweight": (I32, (64, 2)), "qzeros": (I32, (2, 2)), "scales": (F16, (2, 16))},
    ),
    "hqq": (
        {"quant_method": "hqq"},
        {"W_q": (U8, (16, 32)), "scale": (F16, (32, 1)), "zero": (F16, (32, 1)), "nbits": (I32, ()),
         "group_size": (I32, ()), "axis": (I32, ()), "packing": (U8, (7,)), "shape": (I32, (2,)),
         "channel_wise": (U8, ()), "scale_q": (U8, (32, 1)), "meta_scale_packing": (U8, (7,)),
         "meta_scale_scale": (F32, ()), "meta_scale_zero": (F32, ()), "meta_scale_nbits": (I32, ()),
         "meta_scale_axis": (I32, ()), "meta_scale_shape": (I32, (2,)), "meta_scale_channel_wise": (U8, ())},
    ),
    "fp8": (
        {"quant_method": "fp8", "weight_block_size": [8, 32], "activation_scheme": "static"},
        {"weight": (E4M3, (16, 64)), "weight_scale_inv": (F32, (2, 2)), "input_scale": (F32, ())},
    ),
    "modelopt": (
        {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "NVFP4"}}},
        {"weight": (U8, (16, 32)), "weight_scale": (E4M3, (16, 4)), "weight_scale_2": (F32, ()),
         "pre_quant_scale": (F32, (64,))},
    ),
    "bnb": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"weight": (U8, (512, 1)), "weight.absmax": (U8, (16,)), "weight.quant_map": (F32, (16,)),
         "weight.nested_absmax": (F32, (1,)), "weight.nested_quant_map": (F32, (256,)),
         "weight.quant_state.bitsandbytes__nf4": (U8, (9,))},
    ),
    "int8": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"weight": (I8, (16, 64)), "SCB": (F32, (16,)), "weight_format": (U8, ())},
    ),
    "afq": (
        {"bits": 4, "group_size": 32, "mode": "affine", "proj": {"bits": 4}},
        {"weight": (torch.uint32, (16, 8)), "scales": (F16, (16, 2)), "biases": (F16, (16, 2))},
    ),
    "compressed": (
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "sparsity_config": None,
         "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group",
                                                                   "group_size": 32, "symmetric": False}}}},
        {"weight_packed": (I32, (16, 8)), "weight_scale": (F16, (16, 2)), "weight_zero_point": (I32, (2, 2)),
         "weight_g_idx": (I32, (64,)), "weight_shape": (torch.int64, (2,)), "weight_global_scale": (F32, (1,))},
    ),
}  # fmt: skip
STATE = {"quant_type": "nf4", "blocksize": 64, "shape": [16, 64], "nested_blocksize": 256, "nested_offset": 0.1}


@st.composite
def changed(draw: st.DrawFn, content: Json) -> Json:
    """The same JSON with some values replaced by odd ones."""
    if draw(st.integers(0, 9)) == 0:
        return draw(ODD)
    if isinstance(content, dict):
        return {key: draw(changed(value)) for key, value in content.items() if draw(st.integers(0, 14))}
    return [draw(changed(one)) for one in content] if isinstance(content, list) else content


@st.composite
def tensors(draw: st.DrawFn, fields: dict[str, Field]) -> dict[str, torch.Tensor]:
    """The fields, some of another type or shape, some missing, some with a description that means something."""
    found = {}
    for name, proper in fields.items():
        fate = draw(st.integers(0, 11))
        if fate == 0:
            continue
        dtype = draw(st.sampled_from(TYPES)) if fate == 1 else proper[0]
        shape = draw(st.sampled_from(SHAPES)) if fate == 2 else proper[1]
        values = torch.full(shape, float(draw(st.integers(0, 9)))).to(dtype)
        if fate > 3:
            values = described(draw, name, values)
        found[f"proj.{name}"] = values
    return found


def described(draw: st.DrawFn, name: str, values: torch.Tensor) -> torch.Tensor:
    """What a description really holds, or something near it."""
    if "quant_state" in name:
        return torch.tensor(list(json.dumps(draw(changed(STATE))).encode()), dtype=U8)
    if "packing" in name:
        return torch.tensor(list(draw(st.sampled_from([b"4bit_u8", b"8bit_u8", b"3bit_32"]))), dtype=U8)
    if name.endswith("shape"):
        return torch.tensor(draw(st.sampled_from([[16, 64], [32, 1], [0, 64], [-1, 64], [16, 64, 1], []])))
    if name == "weight.quant_map":
        return torch.tensor(TABLES["nf4"])
    numbers = {"nbits": [4, 8, 3], "group_size": [32, 64, 0], "axis": [0, 1], "g_idx": [0, 1]}
    wanted = next((numbers[key] for key in numbers if name.endswith(key)), None)
    return values if wanted is None else torch.full(values.shape, draw(st.sampled_from(wanted)), dtype=values.dtype)


def read(stated: Json, stored: dict[str, torch.Tensor], expert: bool) -> None:
    """Plan and read the one module; only typed errors pass."""
    refs = {name: MemoryTensor.of(name, tensor) for name, tensor in stored.items()}
    checkpoint = Checkpoint(path=Path("hostile"), config={"quantization_config": stated}, tensors=refs)
    formats = [spec.load("format")() for spec in installed().catalogs.quant_formats]
    try:
        bound = [one for one in detect_formats(checkpoint, formats) if not isinstance(one, DenseFormat)]
        part = Sources(checkpoint, WeightMap(), bound).part("proj", (2, 16, 64) if expert else (16, 64), {})
        if part is not None and not part.misfits:
            part.scheme.dequantize(part.read(), part.shape)
    except TramontaneError as error:
        assert error.message  # noqa: PT017 (any other class of error fails the test)


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", FORMATS)
def test_any_settings_and_tensors_give_a_plan_or_a_typed_error(name: str, examples: int) -> None:
    stated, fields = FORMATS[name]

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(stated=changed(stated), stored=tensors(fields), expert=st.booleans())
    def tried(stated: Json, stored: dict[str, torch.Tensor], expert: bool) -> None:
        read(stated, stored, expert)

    tried()
