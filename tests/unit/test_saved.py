# SPDX-License-Identifier: Apache-2.0
"""Saved models: they load back mapped, compute the same bit for bit, and damaged ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tramontane.build.formats import DenseFormat, detect_formats
from tramontane.checkpoint import open_checkpoint, open_tensors
from tramontane.cli.quantize import command
from tramontane.cli.state import State
from tramontane.errors import CheckpointError, PlanError
from tramontane.load import LoadOptions, save_model
from tramontane.saved import Description
from tramontane.saved.description import encoding_of
from tramontane.saved.files import Slot, TensorFile
from tramontane.schemes import Affine, BlockCodec, Codebook, Float8, Ggml, Micro, Scheme
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_arch_llama", reason="needs the llama architecture plugin")
pytest.importorskip("tramontane_quant_gguf", reason="needs the GGML types")

PROMPT = [3, 17, 42, 8, 150, 99]
CONFIG = sample("LlamaForCausalLM", "llama", num_hidden_layers=2, tie_word_embeddings=True)


def load(path: Path, **options: Any) -> Harness:
    return Harness.load(path, backend="torch", dtype="float32", **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_random(tmp_path_factory.mktemp("model"), CONFIG)
    (path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    (path / "how_it_was_quantized.json").write_text("{}")
    (path / "README.md").write_text("not copied")
    return path


@pytest.mark.parametrize("kind", ["q4k", "q8_0", "iq4_nl", "afq3", "hqq4", "nf4", "fp8", "int8", "mxfp4", None])
def test_a_saved_model_computes_what_quantizing_while_loading_does(
    model: Path, tmp_path: Path, kind: str | None
) -> None:
    save_model(str(model), tmp_path / "saved", LoadOptions(backend="torch", quant=kind))
    ours, theirs = load(tmp_path / "saved"), load(model, quant=kind)
    assert (ours.logits(PROMPT) == theirs.logits(PROMPT)).all()
    assert [w.parts[0].scheme for w in ours.loaded.plan.weights] == [
        w.parts[0].scheme for w in theirs.loaded.plan.weights
    ]


def test_a_saved_model_is_mapped(model: Path, tmp_path: Path) -> None:
    save_model(str(model), tmp_path / "saved", LoadOptions(backend="torch", quant="q8_0"))
    harness = load(tmp_path / "saved")
    matrix = harness.loaded.blueprint.matrices["model.layers.0.mlp.gate_up_proj"]
    ref = harness.loaded.checkpoint.tensors["model.layers.0.mlp.up_proj.weight"]
    assert matrix.storage().unpack(1)["weight"].data_ptr() == ref.read().data_ptr()


def test_experts_and_foreign_names_come_back(tmp_path: Path) -> None:
    """The original stores each expert by itself; saved ones are stacked under the model's own names."""
    samples = pytest.importorskip("tramontane_arch_mixtral.samples").samples()
    path = write_random(tmp_path / "model", {**next(iter(samples.values())), "intermediate_size": 96})
    save_model(str(path), tmp_path / "saved", LoadOptions(backend="torch", quant="q8_0"))
    ours = load(tmp_path / "saved").logits(PROMPT)
    assert (ours == load(path, quant="q8_0").logits(PROMPT)).all()


def test_what_is_copied(model: Path, tmp_path: Path) -> None:
    save_model(str(model), tmp_path / "saved", LoadOptions(backend="torch", quant="4"))
    names = {file.name for file in (tmp_path / "saved").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer_config.json"}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_large_models_are_written_in_shards(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tramontane.saved.write.save_plan.__kwdefaults__", {"progress": None, "shard_bytes": 20_000})
    saved = save_model(str(model), tmp_path / "saved", LoadOptions(backend="torch", quant="q8_0"))
    assert len(saved.files) > 2
    assert (load(tmp_path / "saved").logits(PROMPT) == load(model, quant="q8_0").logits(PROMPT)).all()


def test_a_folder_with_something_in_it_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(CheckpointError, match="is not empty"):
        save_model(str(model), tmp_path, LoadOptions(backend="torch"))
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_the_command_says_what_it_wrote(model: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        command, ["-m", str(model), "--backend", "torch", "--quant", "q8_0", "-o", str(tmp_path / "s")], obj=State()
    )
    assert ran.exit_code == 0, ran.output
    assert "bits per weight" in ran.output
    assert (tmp_path / "s" / "model.safetensors").is_file()


SCHEMES: list[Scheme] = [
    Affine(bits=3, group=64, zero="offset", scale_dtype=torch.bfloat16),
    Codebook(table="fp4", block=32),
    Float8(granularity="block", block=(128, 64)),
    Float8(fmt="e5m2", granularity="channel"),
    Micro(fmt="nvfp4", global_scale=True),
    Ggml("q4_k"),
]


def test_descriptions_come_back() -> None:
    made = Description({f"a.{i}": scheme for i, scheme in enumerate(SCHEMES)})
    assert Description.of({"tramontane": made.text()}) == made
    assert Description.of({"format": "pt"}) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": 2, "schemes": [], "parts": {}}',
        '{"version": 1, "schemes": [{"kind": "odd"}], "parts": {}}',
        '{"version": 1, "schemes": [{"kind": "affine", "bits": 99, "act": {}}], "parts": {}}',
        '{"version": 1, "schemes": [{"kind": "affine", "scale_dtype": "nn", "act": {}}], "parts": {}}',
        '{"version": 1, "schemes": [], "parts": {"a": 0}}',
        '{"version": 1, "schemes": [{"kind": "ggml", "type": "q9", "act": {}}], "parts": {}}',
    ],
)
def test_damaged_descriptions_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        Description.of({"tramontane": text})


def test_types_that_plugins_bring_say_so_themselves() -> None:
    codec = BlockCodec(name="odd", id=99, block=32, nbytes=16, dequantize=lambda blocks: blocks.float())
    assert (encoding_of(Ggml(codec)), encoding_of(Ggml("q4_k"))) == ("odd", "")
    with pytest.raises(PlanError, match="odd cannot be saved"):
        Description({"a": Ggml(codec)}).text()


@pytest.mark.parametrize("text", ["{", "[]", '{"b": "x"}', '{"w": 1}', '{"f": "x"}', "[" * 100_000])
def test_damaged_encodings_are_refused(text: str, tmp_path: Path) -> None:
    tensors = {"w": torch.zeros(4, dtype=torch.uint8), "f": torch.zeros(4)}
    save_file(tensors, tmp_path / "t.safetensors", {"tramontane_encodings": text})
    with pytest.raises(CheckpointError, match="said to hold"):
        open_tensors(tmp_path / "t.safetensors")


def test_a_type_whose_plugin_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    save_model(str(model), tmp_path / "saved", LoadOptions(backend="torch", quant="iq4_nl"))
    checkpoint = open_checkpoint(tmp_path / "saved")
    (dense,) = [one for one in detect_formats(checkpoint, []) if isinstance(one, DenseFormat)]
    stored = checkpoint.tensors["model.layers.0.mlp.up_proj.weight"]
    lookup = SimpleNamespace(stored=lambda field: stored)
    with pytest.raises(CheckpointError, match=r"stored as iq4_nl, and no installed quantization format claims it"):
        dense.part("model.layers.0.mlp.up_proj", (128, 64), lookup)  # type: ignore[arg-type]


def test_tensor_files_are_safetensors_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {"a": torch.arange(5, dtype=torch.uint8), "b": torch.randn(2, 3), "c": torch.tensor(1.0).bfloat16()}
    slots = {name: Slot(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with TensorFile(path, slots, {"x": "y"}) as file:
        for name, tensor in tensors.items():
            file.put(name, tensor)
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"x": "y"}
    with pytest.raises(CheckpointError, match="lacks"), TensorFile(path, slots):
        pass
    with pytest.raises(CheckpointError, match="was not announced"), TensorFile(path, slots) as file:
        file.put("b", torch.zeros(3, 2))
