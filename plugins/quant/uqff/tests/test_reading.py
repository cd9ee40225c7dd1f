# SPDX-License-Identifier: Apache-2.0
"""Layers that mistral.rs itself stored, and whole models in every version's form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from uqff_samples import (
    CONFIG,
    LAYER,
    SIZE,
    beside,
    blob,
    layers,
    others,
    packed,
    recorded,
    save_model,
    save_old,
    save_uqff,
    sizes,
    unquant,
    versions,
    weight,
)

from tramontane import LLM
from tramontane.build.sources import PartSource, Sources
from tramontane.errors import CheckpointError
from tramontane.schemes import Affine, Dense, Float8, Ggml, Micro
from tramontane.tensors import AxisRanges, Ranges
from tramontane.testing.quantized import check_slice
from tramontane.testing.strategies import slices
from tramontane.weightmap import WeightMap
from tramontane_quant_uqff.files import choose, label_of
from tramontane_quant_uqff.format import UqffFormat
from tramontane_quant_uqff.loader import open_uqff, recognizes

NAME = "model.layers.0.self_attn.k_proj"
NUMBER = 2
BOUNDS = {
    "q8_0": (0.006, Ggml), "q5_0": (0.06, Ggml), "q4_1": (0.08, Ggml),
    "afq2": (0.45, Affine), "afq3": (0.18, Affine), "afq4": (0.09, Affine), "afq6": (0.025, Affine),
    "afq8": (0.006, Affine), "hqq4": (0.09, Affine), "hqq8": (0.006, Affine),
    "fp8": (0.03, Float8), "f8q8": (0.04, Affine), "mxfp4": (0.25, Micro),
}  # fmt: skip
"""Largest relative error of a layer, and its scheme."""


def part(path: Path, name: str = NAME, shape: tuple[int, ...] = (SIZE, SIZE), **ranges: object) -> PartSource:
    """A matrix of a file."""
    found = Sources.of(open_uqff(path), WeightMap(), [UqffFormat()], []).part(name, shape, ranges)
    assert found is not None
    return found


def values(source: PartSource) -> Tensor:
    return source.scheme.dequantize(source.read(), source.shape)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_layer_as_mistral_rs_stores_it(kind: str, tmp_path: Path) -> None:
    path = save_uqff(tmp_path, {NAME: recorded("1.2", kind)})
    found = part(path)
    bound, scheme = BOUNDS[kind]
    assert isinstance(found.scheme, scheme)
    assert bound / 8 < error(values(found), LAYER) < bound


@pytest.mark.parametrize("kind", ["q8_0", "hqq4", "hqq8"])
def test_a_blob_as_mistral_rs_stored_it(kind: str, tmp_path: Path) -> None:
    raw = recorded("0.1", kind)[str(NUMBER)].numpy().tobytes()
    found = part(save_old(tmp_path, {NUMBER: raw}))
    assert error(values(found), LAYER) < BOUNDS[kind][0]


@frozen
class OnFile:
    """One layer of a file."""

    path: Path

    def weight(self, path: str, shape: tuple[int, ...], ranges: AxisRanges | None = None) -> Tensor:
        return values(part(self.path, path, shape, **(ranges or {})))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OnFile]:
    return cache(lambda kind: OnFile(save_uqff(tmp_path_factory.mktemp(kind), {NAME: recorded("1.2", kind)})))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(BOUNDS)), slices((SIZE, SIZE)))
def test_cut_then_dequantized_is_dequantized_then_cut(
    files: Callable[[str], OnFile], kind: str, case: tuple[str, Ranges]
) -> None:
    check_slice(files(kind), NAME, (SIZE, SIZE), *case)


def test_a_cut_inside_the_last_block(files: Callable[[str], OnFile]) -> None:
    assert check_slice(files("f8q8"), NAME, (SIZE, SIZE), "in", ((0, SIZE - 31),))


@pytest.mark.parametrize(
    ("kind", "axis", "works"),
    [*((kind, "out", True) for kind in BOUNDS), ("q8_0", "in", True), ("mxfp4", "in", True), ("hqq4", "in", True),
     ("fp8", "in", True), ("f8q8", "in", True), ("afq4", "in", False)],
)  # fmt: skip
def test_which_cuts_are_possible(files: Callable[[str], OnFile], kind: str, axis: str, works: bool) -> None:
    """A row of AFQ is one group here."""
    assert check_slice(files(kind), NAME, (SIZE, SIZE), axis, ((32, 64),)) is works


def as_blob(kind: str) -> bytes:
    """The recorded layer in the form of old files, as far as that is the same content."""
    f = recorded("1.2", kind)
    raw = {name: tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() for name, tensor in f.items()}
    if kind == "mxfp4":
        return blob(6, b"\0", packed(f["weight"]), packed(f["weight.scales"]))
    if kind == "f8q8":
        return blob(5, b"\0", raw["weight.num_blocks"], sizes((SIZE, SIZE)), raw["weight"])
    if kind == "fp8":
        scales = (raw[f"weight.{name}"] for name in ("dequant_w_scale", "dequant_x_scale", "quant_scale", "dtype"))
        return blob(3, b"\0", packed(f["weight"]), *scales)
    three = (packed(f[name]) for name in ("weight", "weight.scales", "weight.biases"))
    return blob(4, b"\0", *three, raw["weight.bits"], raw["weight.group_size"])


@pytest.mark.parametrize("kind", ["afq3", "afq4", "fp8", "f8q8", "mxfp4"])
def test_the_same_layer_in_either_form(kind: str, tmp_path: Path) -> None:
    new = part(save_uqff(tmp_path / "new", {NAME: recorded("1.2", kind)}))
    old = part(save_old(tmp_path / "old", {NUMBER: as_blob(kind)}))
    assert old.scheme == new.scheme
    assert torch.equal(values(old), values(new))


def test_codes_of_three_bits_of_old_files(tmp_path: Path) -> None:
    """Ten to a number; parts of 64 are padded to 70."""
    codes = torch.randint(0, 8, (64, SIZE), generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.pad(codes, (0, 0, 0, 6)).view(10, 7, SIZE)
    words = sum(rows[slot] << (3 * (9 - slot)) for slot in range(10)).to(torch.int32)
    scale, zero = torch.rand(1, SIZE) + 0.5, torch.rand(1, SIZE)
    said = (bytes([3]), (64).to_bytes(4, "little"), bytes([0]), bytes(4), bytes([0, 1]))
    raw = blob(2, b"\0", packed(words), packed(scale), packed(zero), sizes((SIZE, SIZE)), *said)
    found = part(save_old(tmp_path, {NUMBER: raw}))
    assert torch.allclose(values(found), (codes - zero) * scale)


@pytest.mark.parametrize("kind", ["f8q8", "hqq4"])
def test_groups_that_cross_rows_are_computed(kind: str, tmp_path: Path) -> None:
    """Blocks run through the whole matrix, whatever its width."""
    rows, columns = 256, 16  # the recorded content, seen as another matrix
    fields = dict(recorded("1.2", kind))
    square = values(part(save_uqff(tmp_path / "square", {NAME: fields})))
    if kind == "hqq4":
        rows, columns = 32, 128
    fields["weight.shape"] = torch.tensor([rows, columns], dtype=torch.uint32)
    found = part(save_uqff(tmp_path / "other", {NAME: fields}), shape=(rows, columns))
    assert isinstance(found.scheme, Dense)
    assert torch.allclose(values(found), square.view(rows, columns))


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Of the model in the usual layout."""
    return computed(save_model(tmp_path_factory.mktemp("model")))


def computed(path: Path) -> Tensor:
    with LLM(path, device="cpu") as llm:
        return torch.as_tensor(llm.logits([1, 40, 7, 22, 90]))


def test_a_model_of_plain_layers_is_the_original(tmp_path: Path, logits: Tensor) -> None:
    assert torch.equal(computed(save_uqff(tmp_path)), logits)
    assert torch.equal(computed(tmp_path), logits), "the folder is the model too"


def test_a_model_of_numbered_layers_is_the_original(tmp_path: Path, logits: Tensor) -> None:
    assert torch.equal(computed(save_old(tmp_path)), logits)


def test_shards_and_numbers_in_one_model(tmp_path: Path, logits: Tensor) -> None:
    path = save_uqff(tmp_path)
    tensors = load_file(path)
    first = {name: value for name, value in tensors.items() if "layers.1" not in name}
    save_file(first, path)
    save_file({name: value for name, value in tensors.items() if name not in first}, tmp_path / "q8_0-1.uqff")
    assert torch.equal(computed(path), logits)


def test_a_tied_head_that_was_quantized_apart(tmp_path: Path) -> None:
    """Before version 1.2 the embedding stayed as it was."""
    save_uqff(tmp_path)
    beside(tmp_path, {**CONFIG, "tie_word_embeddings": True})
    with open_uqff(tmp_path) as checkpoint:
        assert checkpoint.config["tie_word_embeddings"] is False


def test_experts_only(tmp_path: Path, logits: Tensor) -> None:
    """A module whose weight is among the residual tensors has no number."""
    path = save_old(tmp_path)
    kept = {f"{name}.weight": value for name, value in layers().items() if "mlp" not in name}
    save_file(others() | kept, tmp_path / "residual.safetensors")
    blobs = [blob(1, b"\0", packed(value)) for name, value in layers().items() if "mlp" in name]
    save_file({str(i): torch.frombuffer(bytearray(b), dtype=torch.uint8) for i, b in enumerate(blobs)}, path)
    assert torch.equal(computed(path), logits)


def test_biases_of_old_layers(tmp_path: Path) -> None:
    raw = blob(1, b"\1", packed(LAYER), packed(torch.arange(64.0)))
    with open_uqff(save_old(tmp_path, {NUMBER: raw})) as checkpoint:
        assert torch.equal(checkpoint.tensors[f"{NAME}.bias"].read(), torch.arange(64.0))


def test_stacked_experts(tmp_path: Path) -> None:
    """What other checkpoints store one by one is stored as the model has it."""
    config = {
        **{name: value for name, value in CONFIG.items() if name not in ("architectures", "model_type")},
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": SIZE,
        "norm_topk_prob": True,
    }
    attention = {name: value for name, value in layers().items() if "mlp" not in name}
    beyond = {f"model.layers.{i}.mlp.gate.weight": weight(4, SIZE, 60 + i) for i in range(2)}
    beyond |= {f"model.layers.{i}.self_attn.{n}_norm.weight": torch.ones(32) for i in range(2) for n in "qk"}
    stacks = {
        f"model.layers.{i}.mlp.experts.{name}": torch.stack([weight(SIZE, SIZE, 99 + 7 * e + i) for e in range(4)])
        for i in range(2)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    usual, ours = tmp_path / "usual", tmp_path / "ours"
    for folder in (usual, ours):
        folder.mkdir()
        beside(folder, config)
    single = {
        f"{name.rpartition('.')[0]}.{e}.{name.rpartition('.')[2]}.weight": value[e].clone()
        for name, value in stacks.items()
        for e in range(4)
    }
    plain = {f"{name}.weight": value for name, value in attention.items()}
    save_file(others() | beyond | plain | single, usual / "model.safetensors", {"format": "pt"})
    save_file(others() | beyond, ours / "residual.safetensors")
    stored = versions()
    for name, value in (attention | stacks).items():
        stored |= unquant(name, value)
    save_file(stored, ours / "x-0.uqff")
    assert torch.equal(computed(ours), computed(usual))


NAMES = ["config.json", "residual.safetensors", "q4k-0.uqff", "q4k-1.uqff", "q4k-10.uqff", "q4k-2.uqff", "afq4-0.uqff"]


def test_the_files_of_a_type() -> None:
    wanted = ["q4k-0.uqff", "q4k-1.uqff", "q4k-2.uqff", "q4k-10.uqff", "residual.safetensors"]
    assert choose(NAMES, "q4k") == choose(NAMES, "4") == choose(NAMES, "Q4_K".replace("_K", "k")) == wanted
    assert choose(NAMES, "afq4") == ["afq4-0.uqff", "residual.safetensors"]
    assert choose(NAMES, "q8_0") == choose(NAMES, None) == []
    assert choose(NAMES[:-1], None) == wanted
    assert choose(["phi3.5-mini-instruct-q8_0.uqff"], "8") == ["phi3.5-mini-instruct-q8_0.uqff"]


def test_the_type_that_a_name_says() -> None:
    assert label_of(Path("q4k-0.uqff")) == {"q4k", "q4_k", "4"}
    assert label_of(Path("phi-q8_0.uqff")) == {"q8_0", "8"}
    assert label_of(Path("model.uqff")) == frozenset()


def test_files_that_only_the_report_brings_together(tmp_path: Path, logits: Tensor) -> None:
    path = save_uqff(tmp_path)
    tensors = load_file(path)
    path.unlink()
    first = {name: value for name, value in tensors.items() if "layers.1" not in name}
    save_file(first, tmp_path / "part-a.uqff")
    save_file({name: value for name, value in tensors.items() if name not in first}, tmp_path / "part-b.uqff")
    report = {"outputs": [{"quant": "q8_0", "shards": ["part-a.uqff", "part-b.uqff"]}]}
    (tmp_path / "uqff_report.json").write_text(json.dumps(report))
    assert torch.equal(computed(tmp_path / "part-a.uqff"), logits)


def test_a_folder_with_two_models_asks_which(tmp_path: Path) -> None:
    save_uqff(tmp_path)
    save_uqff(tmp_path, stem="q4k")
    assert recognizes(tmp_path)
    with pytest.raises(CheckpointError, match="2 models as UQFF: q4k, q8_0"):
        open_uqff(tmp_path)
    with open_uqff(tmp_path / "q4k-0.uqff") as checkpoint:
        assert checkpoint.types == {"q4k", "q4_k", "4"}


def settings(**changes: object) -> Mapping[str, object]:
    return {**CONFIG, **changes}


def test_numbered_layers_of_an_unknown_order(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="15 numbered layers for 3 blocks"):
        open_uqff(save_old(tmp_path, config=settings(num_hidden_layers=3)))
