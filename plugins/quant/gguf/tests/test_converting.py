# SPDX-License-Identifier: Apache-2.0
"""``tramontane quantize -o model.gguf``: what is written without loading is what loading would have made."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from gguf_samples import SHARED, write_folder

from tramontane.cli.quantize import command
from tramontane.cli.state import State
from tramontane.testing.harness import Harness
from tramontane_quant_gguf.loader import open_gguf

PROMPT = [3, 17, 42, 8]
MODEL = SHARED / "models" / "tinystories-656k-hf"


def load(path: Path, **options: Any) -> Harness:
    return Harness.load(path, backend="torch", dtype="float32", **options)


def quantize(*arguments: object) -> str:
    ran = CliRunner().invoke(command, [*map(str, arguments)], obj=State(), catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("quant", ["q2k", "q4_0", "q6k", "8", None])
def test_the_file_computes_what_quantizing_while_loading_does(model: Path, tmp_path: Path, quant: str | None) -> None:
    file = tmp_path / "model.gguf"
    said = quantize("-m", model, *(() if quant is None else ("--quant", quant)), "-o", file, "--backend", "torch")
    assert "bits per weight" in said
    got, expected = load(file).logits(PROMPT), load(model, quant=quant).logits(PROMPT)
    assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_topology_decides_in_files_too(model: Path, tmp_path: Path) -> None:
    topology, file = tmp_path / "t.yml", tmp_path / "model.gguf"
    topology.write_text('"0": {isq: q3k}\n"/down_proj/": {isq: q8_0}\n')
    quantize("-m", model, "--topology", topology, "-o", file)
    types = {name: ref.encoding or str(ref.dtype) for name, ref in open_gguf(file).tensors.items()}
    assert (types["blk.0.ffn_up.weight"], types["blk.0.ffn_down.weight"]) == ("q3_k", "q8_0")
    assert (types["blk.1.ffn_up.weight"], types["blk.1.ffn_down.weight"]) == ("torch.float32", "q8_0")


def test_types_that_the_format_has_not_are_said(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tramontane"):
        quantize("-m", model, "--quant", "nf4", "-o", tmp_path / "model.gguf")
    assert "14 x nf4-b64 as f16" in caplog.text


@pytest.mark.skipif(not MODEL.exists(), reason=f"the shared test data is not there: {MODEL}")
def test_importances_are_collected_kept_and_used(tmp_path: Path) -> None:
    text, file = tmp_path / "text.txt", tmp_path / "kept.gguf"
    text.write_text("Once upon a time there was a little dog who liked to play in the park. " * 60)
    said = quantize("-m", MODEL, "--calibrate", text, "--save-imatrix", file)
    assert "importances of 15 matrices" in said
    at_once, later = tmp_path / "once.gguf", tmp_path / "later.gguf"
    quantize("-m", MODEL, "--quant", "q3k", "--calibrate", text, "-o", at_once)
    said = quantize("-m", MODEL, "--quant", "q3k", "--imatrix", file, "-o", later)
    assert "matrices: 14 x q4_0, 1 x q8_0" in said, "what q3k became, since rows of 128 are no K blocks"
    quantize("-m", MODEL, "--quant", "q3k", "-o", tmp_path / "plain.gguf")
    assert at_once.read_bytes() != (tmp_path / "plain.gguf").read_bytes()
    ours, theirs = (load(one).logits(PROMPT) for one in (at_once, later))
    assert np.abs(ours - theirs).max() <= 0.02 * np.abs(theirs).max(), "files keep float32"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "nothing to write"), (("-o", "x.gguf", "--save-imatrix", "i.gguf"), "keeps what --calibrate TEXT collects")],
)
def test_mistakes_are_said(model: Path, arguments: tuple[str, ...], words: str) -> None:
    ran = CliRunner().invoke(command, ["-m", str(model), *arguments], obj=State())
    assert ran.exit_code == 2
    assert words in " ".join(ran.output.split())
