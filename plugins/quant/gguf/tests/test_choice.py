# SPDX-License-Identifier: Apache-2.0
"""Which file of several is the model: by the type that its name says, alone, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from gguf_samples import metadata, write_sample

from tramontane.cli.app import run
from tramontane.errors import CheckpointError, ModelNotFoundError
from tramontane.load.find import open_reference
from tramontane.load.options import LoadOptions
from tramontane.plugins import installed
from tramontane_quant_gguf.choice import choose, label_of, wanted_labels
from tramontane_quant_gguf.loader import open_gguf
from tramontane_quant_gguf.quantizers import CODECS, quantize
from tramontane_quant_gguf.writing import OutTensor, write_file

REPOSITORY = [
    "README.md",
    "config.json",
    "mmproj-model-f16.gguf",
    "model.imatrix.gguf",
    "model-BF16-00001-of-00002.gguf",
    "model-BF16-00002-of-00002.gguf",
    "model-IQ3_XXS.gguf",
    "model-Q4_0.gguf",
    "model-Q4_K_M.gguf",
    "model-Q4_K_S.gguf",
    "model-Q6_K-00001-of-00003.gguf",
    "model-Q6_K-00003-of-00003.gguf",
    "model-UD-Q5_K_XL.gguf",
    "Q8_0/model-00001-of-00001.gguf",
]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Meta-Llama-3-8B-Instruct-Q4_K_M.gguf", "q4_k_m"),
        ("llama-2-7b.Q5_K_S.gguf", "q5_k_s"),
        ("qwen2.5-0.5b-instruct-q8_0.gguf", "q8_0"),
        ("qwen2.5-7b-instruct-fp16-00001-of-00004.gguf", "f16"),
        ("x-UD-IQ2_XXS.gguf", "iq2_xxs"),
        ("gpt-oss-20b-mxfp4.gguf", "mxfp4"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "mxfp4"),
        ("BitNet-TQ1_0.gguf", "tq1_0"),
        ("Q8_0/model.gguf", "q8_0"),
        ("Qwen3-Q4_0/Qwen3-BF16.gguf", "bf16"),
        ("Qwen3-0.6B.gguf", ""),
        ("Quick-Q.gguf", ""),
    ],
)
def test_names_say_types(name: str, label: str) -> None:
    assert label_of(name) == label


@pytest.mark.parametrize(
    ("quant", "names"),
    [
        ("q4_k_m", ["model-Q4_K_M.gguf"]),
        ("Q4_K_S", ["model-Q4_K_S.gguf"]),
        ("q4_k", ["model-Q4_K_M.gguf"]),
        ("q4k", ["model-Q4_K_M.gguf"]),
        ("4", ["model-Q4_K_M.gguf"]),
        ("q4-0", ["model-Q4_0.gguf"]),
        ("q40", ["model-Q4_0.gguf"]),
        ("3", ["model-IQ3_XXS.gguf"]),
        ("q5k", ["model-UD-Q5_K_XL.gguf"]),
        ("q8_0", ["Q8_0/model-00001-of-00001.gguf"]),
        ("8", ["Q8_0/model-00001-of-00001.gguf"]),
        ("bf16", ["model-BF16-00001-of-00002.gguf", "model-BF16-00002-of-00002.gguf"]),
        ("q6_k", []),
        ("f16", []),
        ("awq", []),
        (None, []),
    ],
)
def test_the_asked_type_is_found(quant: str | None, names: list[str]) -> None:
    assert list(choose(REPOSITORY, quant)) == names


def test_the_only_model_is_found_without_a_type() -> None:
    assert choose(["a.json", "model-Q2_K.gguf", "mmproj-Q8_0.gguf"], None) == ("model-Q2_K.gguf",)
    assert choose(["model.safetensors"], None) == ()


def test_the_plainer_name_wins_between_two_of_one_type() -> None:
    assert choose(["model-UD-Q4_K_M.gguf", "model-Q4_K_M.gguf"], "q4_k_m") == ("model-Q4_K_M.gguf",)


def test_every_number_of_bits_means_something() -> None:
    assert all(wanted_labels(str(bits))[0].startswith(f"q{bits}") for bits in (2, 3, 4, 5, 6, 8))


def test_a_folder_with_one_model_opens(tmp_path: Path) -> None:
    write_sample(tmp_path / "model-q8_0.gguf")
    shutil.copy(tmp_path / "model-q8_0.gguf", tmp_path / "mmproj-f16.gguf")
    assert open_gguf(tmp_path).path == tmp_path / "model-q8_0.gguf"


def test_a_folder_with_several_models_needs_a_type(tmp_path: Path) -> None:
    plugins = installed()
    for kind in ("q8_0", "q4_0"):
        write_sample(tmp_path / f"model-{kind}.gguf", kind)
    with pytest.raises(CheckpointError, match=r"has 2 GGUF files: model-q4_0\.gguf, model-q8_0\.gguf"):
        open_reference(str(tmp_path), LoadOptions(), plugins)
    for quant, file in [("q4_0", "model-q4_0.gguf"), ("8", "model-q8_0.gguf")]:
        checkpoint = open_reference(str(tmp_path), LoadOptions(quant=quant), plugins)
        assert checkpoint.path == tmp_path / file


def test_inspect_names_the_architecture_and_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("q8_0", "q4_0"):
        write_sample(tmp_path / f"model-{kind}.gguf", kind)
    assert run(["inspect", str(tmp_path), "--quant", "q4_0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["LlamaForCausalLM"]
    assert facts["types"] == {"q4_0": 8, "float32": 3}
    assert (facts["learned_numbers"], facts["bytes_weights"]) == (18_528, facts["bytes"])


def test_inspect_says_that_nobody_knows_an_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {key.replace("llama", "clip"): value for key, value in metadata().items() if key.startswith("llama.")}
    changes["general.architecture"] = "clip"
    write_sample(tmp_path / "model.gguf", changes=changes)
    assert run(["inspect", str(tmp_path), "--json"]) == 0
    assert "there is no architecture 'gguf:clip'" in json.loads(capsys.readouterr().out)["plan"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="not-there"):
        open_reference(str(tmp_path / "not-there.gguf"), LoadOptions(quant="q4_k_m"), installed())


@pytest.mark.parametrize(
    ("kind", "name", "types"),
    [
        ("q4_k", "x.gguf", {"q4_k", "q4k", "q4_k_m", "q4_k_s", "q4_k_l", "q4_k_xl", "4"}),
        ("q8_0", "x-UD-Q8_K_XL.gguf", {"q8_0", "q80", "8", "q8_k_xl"}),
        ("f16", "x-Q4_K_M.gguf", set()),
    ],
)
def test_types_of_the_file_satisfy_who_asks_for_them(tmp_path: Path, kind: str, name: str, types: set[str]) -> None:
    write_file(
        tmp_path / name,
        metadata(),
        [OutTensor("x", CODECS[kind], (8, 512), lambda: quantize(torch.ones(8, 512), kind))],
    )
    assert open_gguf(tmp_path / name).types == types
