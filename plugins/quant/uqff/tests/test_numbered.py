# SPDX-License-Identifier: Apache-2.0
"""Version 0.2 is written as it is read, in mistral.rs's bytes and order, for every layout that it had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor
from uqff_samples import recorded, save_model

from tramontane import LLM
from tramontane.cli.quantize import command
from tramontane.cli.state import State
from tramontane.errors import CheckpointError, PlanError
from tramontane.plugins import installed
from tramontane.saved.files import Slot
from tramontane.testing.checkpoints import write_random
from tramontane.testing.grids import mostly_full
from tramontane_quant_uqff.names import Kind
from tramontane_quant_uqff.numbered import blob_of
from tramontane_quant_uqff.packing import Packed

PROMPT = [1, 40, 7, 22, 90]
KINDS = {"q8_0": 0, "q4_0": 0, None: 1, "hqq4": 2, "hqq8": 2, "fp8": 3, "afq4": 4, "f8q8": 5, "mxfp4": 6}
"""Type -> the number of the kind that most layers are."""
FAMILIES = {
    "deepseek2": "groups_yarn",
    "gemma": "one_key_head",
    "mixtral": "plain",
    "phi": "half_turned",
    "phi3": "plain_odd_heads",
    "qwen2": "yarn",
    "qwen3": "grouped_tied",
    "qwen3moe": "plain",
    "starcoder2": "window_tied",
}
"""Architecture -> one of its samples."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def quantize(model: Path, output: Path, *asked: str) -> str:
    arguments = ["-m", str(model), "-o", str(output), "--device", "cpu", *asked]
    found = CliRunner().invoke(command, arguments, obj=State())
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


def old(model: Path, output: Path, quant: str | None) -> None:
    quantize(model, output, "--format-version", "0.2", *([] if quant is None else ["--quant", quant]))


def logits(path: Path, quant: str | None = None) -> Tensor:
    with LLM(path, quant=quant, device="cpu", backend="torch", dtype="float32") as llm:
        return torch.as_tensor(llm.logits(PROMPT))


@pytest.mark.parametrize("kind", ["q8_0", "hqq4", "hqq8"])
def test_blobs_are_those_of_mistral_rs(kind: str) -> None:
    """The layer that was recorded of version 1.2 and of 0.1, whose blobs differ from 0.2 in the version alone."""
    fields = recorded("1.2", kind)
    number = Kind(int(fields.pop("weight.format")))
    slots = {name: Slot(value.dtype, tuple(value.shape)) for name, value in fields.items()}
    blob = blob_of("layer", Packed(number, kind, slots, lambda: fields), None, None)
    found, (theirs,) = blob.make(), recorded("0.1", kind).values()
    assert found[:4].tolist() == [0, 2, 0, 0]
    assert theirs[1].item() == 1
    assert blob.nbytes == len(found)
    assert torch.equal(found[4:], theirs[4:])


@pytest.mark.parametrize("quant", mostly_full(KINDS, ("q8_0", "hqq8", "afq4", "f8q8")))
def test_every_type_is_read_back_as_it_was_written(quant: str | None, model: Path, tmp_path: Path) -> None:
    old(model, tmp_path / "x.uqff", quant)
    stored = load_file(tmp_path / "x-0.uqff")
    assert sorted(map(int, stored)) == list(range(15)), "14 layers and the head"
    kinds = [int(blob[4]) for blob in stored.values()]
    assert max(set(kinds), key=kinds.count) == KINDS[quant]
    assert "model.embed_tokens.weight" in load_file(tmp_path / "residual.safetensors")
    assert not (tmp_path / "uqff_report.json").exists()
    quantize(model, tmp_path / "new" / "x.uqff", *([] if quant is None else ["--quant", quant]))
    assert torch.equal(logits(tmp_path), logits(tmp_path / "new"))


def check_family(name: str, folder: Path, rename: Callable[[str], str] = str) -> None:
    """A random model as version 0.2 gives the logits of the original; ``rename`` is for names of residual tensors."""
    config = installed().catalogs.architectures.get(name).load("samples")()[FAMILIES[name]]
    source = write_random(folder / "source", config)
    old(source, folder / "old" / "x.uqff", None)
    residual = folder / "old" / "residual.safetensors"
    save_file({rename(one): value for one, value in load_file(residual).items()}, residual)
    assert torch.allclose(logits(folder / "old"), logits(source), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", mostly_full(FAMILIES, ("deepseek2", "mixtral")))
def test_every_layout_is_written_in_its_order(name: str, tmp_path: Path) -> None:
    check_family(name, tmp_path)


def test_the_last_norm_that_mistral_rs_misnamed(tmp_path: Path) -> None:
    check_family("phi", tmp_path, lambda name: name.replace("model.final_layernorm", "model.norm"))


def test_versions_share_no_folder(model: Path, tmp_path: Path) -> None:
    old(model, tmp_path / "a.uqff", "q8_0")
    old(model, tmp_path / "b.uqff", "q4_0")
    assert not torch.equal(logits(tmp_path / "a-0.uqff"), logits(tmp_path / "b-0.uqff"))
    with pytest.raises(CheckpointError, match=r"another version of UQFF \(b-0.uqff\)"):
        quantize(model, tmp_path / "a.uqff", "--quant", "q8_0")


def test_versions_that_no_writer_knows_are_refused(model: Path, tmp_path: Path) -> None:
    for name, says in (
        ("x.uqff", "UQFF is written in version 1.2 or 0.2, not 0.1"),
        ("x.gguf", "in version 3, not 0.1"),
    ):
        with pytest.raises(PlanError, match=says):
            quantize(model, tmp_path / name, "--format-version", "0.1")
    assert not list(tmp_path.iterdir())
