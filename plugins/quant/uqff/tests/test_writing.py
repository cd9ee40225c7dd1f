# SPDX-License-Identifier: Apache-2.0
"""What is written is read back as the same numbers, and lies in the files as mistral.rs lays it out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from attrs import evolve
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from uqff_samples import LAYER, SIZE, save_model

from tramontane import LLM
from tramontane.checkpoint import MemoryTensor
from tramontane.cli.quantize import command
from tramontane.cli.state import State
from tramontane.errors import CheckpointError, PlanError
from tramontane.export import WriteOptions, export
from tramontane.load import LoadOptions, load_model
from tramontane.plugins import installed
from tramontane.schemes import Affine
from tramontane.testing.grids import mostly_full
from tramontane_quant_uqff.quantizers import TYPES
from tramontane_quant_uqff.writer import write_uqff

PROMPT = [1, 40, 7, 22, 90]
KINDS = {"q8_0": 0, "q4_0": 0, None: 1, "hqq4": 2, "hqq8": 2, "fp8": 3, "afq3": 4, "afq4": 4, "f8q8": 5, "mxfp4": 6}
"""Type -> the number of the kind that most layers are."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def quantize(model: Path, output: Path, quant: str | None) -> None:
    asked = [] if quant is None else ["--quant", quant]
    arguments = ["-m", str(model), *asked, "-o", str(output), "--device", "cpu"]
    found = CliRunner().invoke(command, arguments, obj=State())
    assert found.exit_code == 0, found.output + repr(found.exception)


def logits(path: Path, quant: str | None = None) -> Tensor:
    with LLM(path, quant=quant, device="cpu", backend="torch", dtype="float32") as llm:
        return torch.as_tensor(llm.logits(PROMPT))


@pytest.mark.parametrize("quant", mostly_full(KINDS, ("q8_0", None, "hqq4", "fp8", "afq3")))
def test_every_type_is_read_back_as_it_was_written(quant: str | None, model: Path, tmp_path: Path) -> None:
    quantize(model, tmp_path / "x.uqff", quant)
    stored = load_file(tmp_path / "x-0.uqff")
    kinds = [int(value) for name, value in stored.items() if name.endswith(".weight.format")]
    assert len(kinds) == 16, "14 layers, the embedding and the head"
    assert max(set(kinds), key=kinds.count) == KINDS[quant]
    loaded = f"uqff-{quant}" if f"uqff-{quant}" in TYPES else quant
    assert torch.equal(logits(tmp_path), logits(model, loaded))


def test_a_topology_names_types_in_the_form_of_the_format(model: Path, tmp_path: Path) -> None:
    topology = tmp_path / "t.yml"
    topology.write_text('"0": {isq: fp8}\n"1": {isq: hqq4}\n"/down_proj/": {isq: afq3}\n')
    arguments = ["-m", str(model), "--topology", str(topology), "-o", str(tmp_path / "x.uqff"), "--device", "cpu"]
    found = CliRunner().invoke(command, arguments, obj=State())
    assert found.exit_code == 0, found.output + repr(found.exception)
    stored = load_file(tmp_path / "x-0.uqff")
    names = [f"model.layers.{name}_proj" for name in ("0.mlp.up", "1.mlp.up", "1.mlp.down")]
    assert [int(stored[f"{name}.weight.format"]) for name in names] == [KINDS["fp8"], KINDS["hqq4"], KINDS["afq3"]]


def test_what_has_no_form_is_said_and_counted(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = export(load_model(str(model), LoadOptions(backend="torch", capture=False)), installed())
    name = "model.layers.0.mlp.up_proj.weight"
    wide = Affine(bits=4, group=128, zero="offset", scale_dtype=torch.float32)
    kept = found.tensors[name]
    fields = {key: MemoryTensor.of(key, value) for key, value in wide.quantize(kept.dense().read()).items()}
    changed = evolve(found, tensors={**found.tensors, name: evolve(kept, scheme=wide, fields=fields)})
    with caplog.at_level(logging.WARNING, "tramontane"):
        write_uqff(changed, tmp_path / "x.uqff", WriteOptions())
    assert "1 matrices have no form in UQFF and are written as numbers: 1 x [128, 64]" in caplog.text
    report = json.loads((tmp_path / "uqff_report.json").read_text())
    assert report["outputs"][0]["fallback_count"] == 1


def test_the_folder_is_laid_out_as_mistral_rs_does(model: Path, tmp_path: Path) -> None:
    quantize(model, tmp_path / "q8_0.uqff", "q8_0")
    stored = load_file(tmp_path / "q8_0-0.uqff")
    assert [int(stored[f"uqff.version.{one}"]) for one in ("major", "minor", "patch")] == [1, 2, 0]
    assert stored["model.layers.0.self_attn.k_proj.weight"].shape == (SIZE * SIZE // 32 * 34,)
    assert stored["model.layers.0.self_attn.k_proj.weight.shape"].tolist() == [SIZE, SIZE]
    assert set(load_file(tmp_path / "residual.safetensors")) == {
        "model.norm.weight",
        *(f"model.layers.{i}.{name}_layernorm.weight" for i in range(2) for name in ("input", "post_attention")),
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architectures"], config["rope_theta"]) == (["LlamaForCausalLM"], 10000.0)
    assert (tmp_path / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    output = json.loads((tmp_path / "uqff_report.json").read_text())["outputs"][0]
    assert (output["quant"], output["shards"], output["layers"]) == ("q8_0", ["q8_0-0.uqff"], 16)


def test_two_types_share_a_folder_and_a_type_is_replaced(model: Path, tmp_path: Path) -> None:
    loaded = load_model(str(model), LoadOptions(backend="torch", quant="q8_0", capture=False))
    write_uqff(export(loaded, installed()), tmp_path / "q8_0.uqff", WriteOptions(), shard_bytes=20_000)
    assert len(list(tmp_path.glob("q8_0-*.uqff"))) > 3
    assert torch.equal(logits(tmp_path), logits(model, "q8_0")), "from several files"
    quantize(model, tmp_path / "afq4.uqff", "afq4")
    assert torch.equal(logits(tmp_path, "q8_0"), logits(model, "q8_0"))
    quantize(model, tmp_path / "q8_0.uqff", "q8_0")
    assert [path.name for path in tmp_path.glob("q8_0-*.uqff")] == ["q8_0-0.uqff"]
    report = json.loads((tmp_path / "uqff_report.json").read_text())
    assert [output["quant"] for output in report["outputs"]] == ["afq4", "q8_0"]


def test_the_folder_of_another_model_is_left_alone(model: Path) -> None:
    loaded = load_model(str(model), LoadOptions(backend="torch", capture=False))
    with pytest.raises(CheckpointError, match="holds another model"):
        write_uqff(export(loaded, installed()), model / "x.uqff", WriteOptions())
    assert not list(model.glob("*.uqff"))


def test_a_type_without_words_is_refused(model: Path, tmp_path: Path) -> None:
    loaded = load_model(str(model), LoadOptions(backend="torch", quant="nf4", capture=False))
    with pytest.raises(PlanError, match="UQFF has no words for a matrix in"):
        write_uqff(export(loaded, installed()), tmp_path / "x.uqff", WriteOptions())
    assert not list(tmp_path.iterdir())
    with pytest.raises(PlanError, match="types that the model has"):
        write_uqff(export(loaded, installed()), tmp_path / "x.uqff", WriteOptions(quant="q4k"))


@pytest.mark.parametrize(
    ("name", "bound"), [("uqff-hqq4", 0.09), ("uqff-hqq8", 0.006), ("f8q8", 0.04), ("uqff-fp8", 0.03)]
)
def test_types_of_the_format_are_as_good_as_its_own(name: str, bound: float) -> None:
    """The bounds of layers that mistral.rs quantized."""
    kind = TYPES[name]
    fields = kind.pack(LAYER, None)
    found = kind.scheme.dequantize(fields, tuple(LAYER.shape))
    assert float((found - LAYER).norm() / LAYER.norm()) < bound
    stack = kind.pack(torch.stack([LAYER, LAYER]), None)
    assert torch.equal(stack["weight"][1], fields["weight"])
