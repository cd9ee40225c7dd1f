# SPDX-License-Identifier: Apache-2.0
"""Both ways with mistral.rs itself. ``MISTRALRS_PYTHON`` names an interpreter that has the ``mistralrs`` package, in an
environment of its own::

    python -m venv peer && peer/bin/pip install mistralrs==0.9.5
    MISTRALRS_PYTHON=peer/bin/python pytest -m full plugins/quant/uqff
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tramontane import LLM, SamplingParams
from tramontane.export import WriteOptions, convert_model
from tramontane.load import LoadOptions
from tramontane.plugins import installed

pytestmark = pytest.mark.full
VARIABLE = "MISTRALRS_PYTHON"
TINY = Path(__file__).parents[5] / "shared" / "data" / "models" / "tinystories-656k-hf"
PROMPT, TOKENS = "Once upon a time", 32
KINDS = ("q8_0", "q4k", "afq3", "afq4", "hqq4", "hqq8", "fp8", "f8q8", "mxfp4")
CODE = """
import json, sys
from mistralrs import Architecture, CompletionRequest, ModelDType, Runner, Which
asked = json.loads(sys.argv[1])
which = Which.Plain(model_id=asked["model"], arch=Architecture.Llama, dtype=ModelDType.F32,
                    write_uqff=asked.get("write"), from_uqff=asked.get("read"))
runner = Runner(which=which, in_situ_quant=asked.get("quant"), token_source="none")
request = CompletionRequest(prompt=asked["prompt"], model="x", max_tokens=asked["tokens"], temperature=0.0)
print(json.dumps(runner.send_completion_request(request).choices[0].text))
"""


def theirs(model: Path, **asked: str) -> str:
    """What mistral.rs continues the prompt with."""
    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"{VARIABLE} names no Python with the mistralrs package")
    message = json.dumps({"model": str(model), "prompt": PROMPT, "tokens": TOKENS, **asked})
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([python, "-c", CODE, message], capture_output=True, text=True, check=True, env=environment)
    text: str = json.loads(found.stdout.splitlines()[-1])
    return text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """TinyStories-656K with its tied weight under the name that mistral.rs looks for."""
    if not TINY.is_dir():
        pytest.skip("needs ../shared/data/models/tinystories-656k-hf")
    folder = tmp_path_factory.mktemp("tiny")
    for path in TINY.iterdir():
        if path.suffix == ".json":
            shutil.copyfile(path, folder / path.name)
    tensors = load_file(TINY / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def assert_same(folder: Path, text: str) -> None:
    """The greedy text of both; here by products in float32, since native kernels round activations in their own way."""
    with LLM(folder, device="cpu", backend="torch", dtype="float32") as llm:
        assert llm.generate(PROMPT, SamplingParams(max_tokens=TOKENS, temperature=0)).text == text


@pytest.mark.parametrize("kind", KINDS)
def test_what_mistral_rs_writes_is_the_same_model_here(kind: str, model: Path, tmp_path: Path) -> None:
    text = theirs(model, quant=kind, write=str(tmp_path / f"{kind}.uqff"))
    assert_same(tmp_path, text)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_here_is_the_same_model_in_mistral_rs(kind: str, model: Path, tmp_path: Path) -> None:
    options, target = LoadOptions(quant=kind, device="cpu"), tmp_path / f"{kind}.uqff"
    convert_model(str(model), target, options, installed(), form="uqff", write=WriteOptions())
    assert_same(tmp_path, theirs(tmp_path, read=f"{kind}-0.uqff"))
