# SPDX-License-Identifier: Apache-2.0
"""A mixture of experts in K types, quantized while loading and from a GGUF file: what ``transformers`` computes with
the numbers that the ``gguf`` package unpacks from the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tramontane.export import WriteOptions, convert_model
from tramontane.load import LoadOptions
from tramontane.plugins import installed
from tramontane.schemes import Ggml
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import assert_close
from tramontane.testing.oracle import Oracle
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_quant_gguf", reason="needs the GGML types")
pytest.importorskip("tramontane_arch_qwen", reason="needs the model")

LAYERS, EXPERTS = 2, 4
CONFIG = sample(
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    hidden_size=256,
    head_dim=64,
    num_hidden_layers=LAYERS,
    num_experts=EXPERTS,
    num_experts_per_tok=2,
    moe_intermediate_size=256,
    norm_topk_prob=True,
)
PROMPT = [int(token) for token in np.random.default_rng(0).integers(3, CONFIG["vocab_size"], 40)]
TOLERANCE = 1e-4
Unpacked = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, with a tokenizer for the file."""
    folder = Oracle.make(CONFIG).save(tmp_path_factory.mktemp("mixture"))
    words = ", ".join(f'"<{number}>": {number}' for number in range(CONFIG["vocab_size"]))
    (folder / "tokenizer.json").write_text(
        f'{{"version": "1.0", "added_tokens": [], "model": {{"type": "BPE", "vocab": {{{words}}}, "merges": []}}}}'
    )
    return folder


def load(path: Path, **options: Any) -> Harness:
    return Harness.load(path, dtype="float32", **{"backend": "torch", **options})


def unpacked(packed: np.ndarray, kind: int) -> np.ndarray:
    """float32 of blocks, by the ``gguf`` package."""
    values: np.ndarray = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType(kind))
    return values


def in_memory(engine: Harness) -> Unpacked:
    """The quantized weights that an engine holds, by path."""
    found = {}
    for weight in engine.loaded.plan.weights:
        for index, part in enumerate(weight.parts):
            if isinstance(part.scheme, Ggml):
                packed = engine.loaded.blueprint.matrices[weight.path].storage().unpack(index)["weight"]
                found[part.path] = unpacked(packed.numpy(), part.scheme.type.id)
    return found


def in_file(path: Path) -> Unpacked:
    """The matrices of a file, by the model's paths, as the ``gguf`` package reads and names them."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3MOE, LAYERS)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    inside = [f"self_attn.{name}_proj" for name in "qkvo"] + [
        f"mlp.experts.{name}_proj" for name in ("gate", "up", "down")
    ]
    paths = [f"model.layers.{layer}.{name}" for layer in range(LAYERS) for name in inside]
    found = {name: tensors[f"{names.get_name(name)}.weight"] for name in (*paths, "model.embed_tokens", "lm_head")}
    return {name: unpacked(tensor.data, tensor.tensor_type) for name, tensor in found.items()}


def theirs(model: Path, weights: Unpacked, folder: Path) -> np.ndarray:
    """What ``transformers`` computes with these weights in place of the checkpoint's."""
    tensors = load_file(model / "model.safetensors")
    for path, values in weights.items():
        head, _, tail = path.rpartition(".")
        named = {f"{path}.weight": values}
        if values.ndim == 3:
            named = {f"{head}.{number}.{tail}.weight": one for number, one in enumerate(values)}
        assert named.keys() <= tensors.keys()
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in named.items()}
    folder.mkdir()
    shutil.copyfile(model / "config.json", folder / "config.json")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return Oracle(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)).logits(PROMPT)


@pytest.mark.parametrize("organization", ["default", "moqe"])
def test_quantized_while_loading(organization: str, model: Path, tmp_path: Path) -> None:
    engine = load(model, quant="q4k", organization=organization)
    weights = in_memory(engine)
    stacks = {path for path, values in weights.items() if values.ndim == 3}
    assert len(stacks) == 3 * LAYERS
    assert (set(weights) == stacks) is (organization == "moqe")
    assert {values.shape for path, values in weights.items() if path in stacks} == {(EXPERTS, 256, 256)}
    assert_close(engine.logits(PROMPT), theirs(model, weights, tmp_path / "theirs"), TOLERANCE, "q4k of a mixture")


def test_from_a_file(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    options = LoadOptions(quant="q4k", device="cpu")
    convert_model(str(model), file, options, installed(), form="gguf", write=WriteOptions())
    weights = in_file(file)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors if "exps" in tensor.name}
    assert kinds == {"Q4_K"}
    assert_close(load(file).logits(PROMPT), theirs(model, weights, tmp_path / "theirs"), TOLERANCE, "q4_k from a file")


def test_natively(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same codes, products in another order."""
    if "cpu" not in {spec.name for spec in installed().catalogs.backends}:
        pytest.skip("the native backend is not installed")
    monkeypatch.setenv("TRAMONTANE_CPU_EXACT", "1")
    ours, plain = (load(model, quant="q4k", backend=backend) for backend in ("cpu", "torch"))
    assert_close(ours.logits(PROMPT), plain.logits(PROMPT), TOLERANCE, "the native backend")
    assert ours.greedy([PROMPT], 12) == plain.greedy([PROMPT], 12)
