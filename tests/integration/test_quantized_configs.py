# SPDX-License-Identifier: Apache-2.0
"""Published configurations of quantized models: each is recognized, and planned where its architecture is installed.

The tensors are made up on the meta device: every projection that the configuration does not leave alone is stored as
its publisher stores it. Nothing is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tramontane.backends.reference import ReferenceBackend
from tramontane.build.formats import detect_formats
from tramontane.checkpoint import Checkpoint, Files, MemoryTensor
from tramontane.load import LoadOptions
from tramontane.load.design import design, plan_weights, weight_maps
from tramontane.plugins import Plugins, installed
from tramontane.schemes import Act, Float8, Micro, Scheme
from tramontane.tensors import AXES
from tramontane.testing.checkpoints import Drawn, stored
from tramontane.weightmap import tensor_name

CONFIGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "configs" / "aiconfigurator-hf"
LAYERS = 4
"""Layers that are planned; DeepSeek's first three are dense."""
E4M3 = torch.float8_e4m3fn

pytestmark = pytest.mark.skipif(not CONFIGS.is_dir(), reason=f"the published configurations are not at {CONFIGS}")


def published(name: str) -> tuple[dict[str, Any], Files]:
    """Content of a ``config.json``, and the file of NVIDIA's settings beside it."""
    beside = CONFIGS / f"{name}_hf_quant_config.json"
    files = {"hf_quant_config.json": beside} if beside.is_file() else {}
    return json.loads((CONFIGS / f"{name}_config.json").read_text(encoding="utf-8")), Files(files)


def quantized() -> list[str]:
    """Names of all configurations that say how weights are quantized."""
    names = sorted(path.name.removesuffix("_config.json") for path in CONFIGS.glob("*_config.json"))
    names = [name for name in names if not name.endswith("_hf_quant")]
    return [name for name in names if states(*published(name))]


def states(config: Mapping[str, Any], files: Files) -> bool:
    inner = config.get("text_config") or {}
    return "quantization_config" in config or "quantization_config" in inner or "hf_quant_config.json" in files


@pytest.mark.parametrize("name", quantized() if CONFIGS.is_dir() else [])
def test_every_quantization_is_recognized(name: str) -> None:
    config, files = published(name)
    checkpoint = Checkpoint(path=Path(name), config=config, tensors={}, files=files)
    specs = installed().catalogs.quant_formats
    found = [bound.name for bound in detect_formats(checkpoint, [spec.load("format")() for spec in specs])]
    expected = "compressed-tensors" if "moonshotai--Kimi-K2.5" in name or "Kimi-K3" in name else "fp8"
    expected = "mxfp4-experts" if "gpt-oss" in name else expected
    assert found == [expected, "dense"]


# --- plans ------------------------------------------------------------------------------------------------------------


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def block_fp8(rows: int, columns: int) -> dict[str, Tensor]:
    grid = (-(-rows // 128), -(-columns // 128))
    return {"weight": empty(rows, columns, dtype=E4M3), "weight_scale_inv": empty(*grid)}


def tensor_fp8(rows: int, columns: int) -> dict[str, Tensor]:
    return {"weight": empty(rows, columns, dtype=E4M3), "weight_scale": empty(), "input_scale": empty()}


def nvfp4(rows: int, columns: int) -> dict[str, Tensor]:
    weight = empty(rows, columns // 2, dtype=torch.uint8)
    scales = {"weight_scale": empty(rows, columns // 16, dtype=E4M3), "weight_scale_2": empty()}
    return {"weight": weight, **scales, "input_scale": empty()}


BLOCKS = Float8(act=Act("fp8", per="group", group=128), granularity="block", block=(128, 128))
STATIC = Float8(act=Act("fp8", "static", "tensor"))
FOUR = Micro("nvfp4", global_scale=True)
Pack = Callable[[int, int], dict[str, Tensor]]
PLANNED: list[tuple[str, Pack, Scheme]] = [
    ("Qwen--Qwen3-32B-FP8", block_fp8, BLOCKS),
    ("Qwen--Qwen3-30B-A3B-FP8", block_fp8, BLOCKS),
    ("Qwen--Qwen3-235B-A22B-FP8", block_fp8, BLOCKS),
    ("deepseek-ai--DeepSeek-V3", block_fp8, BLOCKS),
    ("moonshotai--Kimi-K2-Instruct", block_fp8, BLOCKS),
    ("Qwen--Qwen3-32B-FP8-Static-PerTensor", tensor_fp8, STATIC),
    ("nvidia--Llama-3.1-70B-Instruct-FP8", tensor_fp8, STATIC),
    ("nvidia--Qwen3-235B-A22B-NVFP4", nvfp4, FOUR),
    ("nvidia--DeepSeek-V3.1-NVFP4", nvfp4, FOUR),
]


@pytest.mark.parametrize(("name", "pack", "scheme"), PLANNED, ids=[name for name, _, _ in PLANNED])
def test_it_is_planned_as_published(name: str, pack: Pack, scheme: Scheme) -> None:
    config, files = published(name)
    config = {**config, "num_hidden_layers": LAYERS}
    plugins, options, backend = installed(), LoadOptions(dtype="bfloat16"), ReferenceBackend()
    bare = Checkpoint(path=Path(name), config=config, tensors={}, files=files)
    made = design(bare, options, plugins, backend)
    tensors, packed = as_published(dense_tensors(made.blueprint, config, plugins), left_alone(config, files), pack)
    refs = {one: MemoryTensor.of(one, tensor) for one, tensor in tensors.items()}
    checkpoint = Checkpoint(path=Path(name), config=config, tensors=refs, files=files)
    plan = plan_weights(made, checkpoint, options, plugins, backend)
    parts = {part.path: part for weight in plan.weights for part in weight.parts}
    schemes = [part.source.scheme for part in parts.values()]
    assert scheme in schemes
    assert {one for one in schemes if isinstance(one, (Float8, Micro))} == {scheme}
    assert packed > 2 * LAYERS
    assert all(
        not isinstance(part.scheme, (Float8, Micro)) for path, part in parts.items() if path.endswith("kv_b_proj")
    )


def dense_tensors(blueprint: Any, config: Mapping[str, Any], plugins: Plugins) -> dict[str, Tensor]:
    """What an unquantized checkpoint would hold, on the meta device."""
    drawn = Drawn()
    for matrix in blueprint.matrices.values():
        stack = () if matrix.experts is None else (matrix.experts,)
        for part in matrix.parts:
            shape = (*stack, part.out_features, matrix.in_features)
            drawn.enter(tensor_name(part.path, "weight"), empty(*shape, dtype=torch.bfloat16), AXES[-len(shape) :])
    for param in blueprint.params.values():
        for source in param.sources:
            axes = ("out",)[: len(source.shape)] if len(source.shape) < 2 else AXES[: len(source.shape)]
            drawn.enter(tensor_name(source.path, source.field), empty(*source.shape, dtype=torch.bfloat16), axes)
    spec = plugins.catalogs.architectures.get(config["architectures"][0])
    with torch.device("meta"):
        return stored(drawn, weight_maps(spec, config)[0])


def left_alone(config: Mapping[str, Any], files: Files) -> list[str]:
    """Modules that the publisher did not quantize: names, or patterns with stars."""
    stated = config.get("quantization_config") or (files.json("hf_quant_config.json") or {})["quantization"]
    keys = ("modules_to_not_convert", "exclude_modules", "ignore")
    return [name for key in keys for name in stated.get(key) or ()]


def as_published(tensors: dict[str, Tensor], alone: list[str], pack: Pack) -> tuple[dict[str, Tensor], int]:
    """The same with every projection packed that is not left alone, and how many were."""
    found: dict[str, Tensor] = {}
    packed = 0
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if "_proj" not in module or tensor.dim() != 2 or any(fnmatchcase(module, one) for one in alone):
            found[name] = tensor
            continue
        found |= {f"{module}.{field}": made for field, made in pack(*tensor.shape).items()}
        packed += 1
    return found, packed
