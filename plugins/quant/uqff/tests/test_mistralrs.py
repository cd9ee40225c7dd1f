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
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tramontane.export import WriteOptions, convert_model
from tramontane.load import LoadOptions
from tramontane.plugins import installed
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness

pytestmark = pytest.mark.full
VARIABLE = "MISTRALRS_PYTHON"
TINY = Path(__file__).parents[5] / "shared" / "data" / "models" / "tinystories-656k-hf"
DEMO = Path(__file__).parents[3] / "loaders" / "demo" / "tramontane_loader_demo" / "model"
PROMPT, TOKENS = "Once upon a time", 32
SENTENCE = "Once upon a time, there was a little girl who liked to play in the park."
NARROW = ("q8_0", "q4k", "afq3", "afq4", "hqq4", "hqq8", "fp8", "f8q8", "mxfp4")
WIDE = ("q2k", "q3k", "q4k", "q5k", "q6k", "q4_0", "q4_1", "q5_0", "q5_1", "afq2", "afq6", "afq8")
"""Types that a model of width 128 has, and those of blocks of 256 with the rest."""
MIXTURES = {"mixtral": ("Mixtral", "plain"), "qwen3moe": ("Qwen3Moe", "plain")}
"""Architecture -> what mistral.rs calls it, and one of its samples."""
MIXED = [("mixtral", "q8_0"), ("mixtral", "q4k"), ("qwen3moe", "q8_0")]
"""Not with q4k for eight random experts: rounded activations of rougher weights choose other experts at near ties."""
STATED = {
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 0,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
"""What mistral.rs wants to be told."""
NEAR = 0.006
"""Share of the logits' range within which two tokens are as good as each other: mistral.rs rounds activations to eight
bits before products with blocks, which nothing here does."""
CODE = """
import json, sys
from mistralrs import Architecture, CompletionRequest, ModelDType, Runner, Which
asked = json.loads(sys.argv[1])
which = Which.Plain(model_id=asked["model"], arch=getattr(Architecture, asked["arch"]), dtype=ModelDType.F32,
                    write_uqff=asked.get("write"), from_uqff=asked.get("read"))
runner = Runner(which=which, in_situ_quant=asked.get("quant"), token_source="none")
texts = []
for prompt in asked["prompts"]:
    request = CompletionRequest(prompt=prompt, model="x", max_tokens=asked["tokens"], temperature=0.0)
    texts.append(runner.send_completion_request(request).choices[0].text)
print(json.dumps(texts))
"""


def theirs(
    model: Path, *, arch: str = "Llama", prompts: Sequence[str] = (PROMPT,), tokens: int = TOKENS, **asked: str
) -> list[str]:
    """What mistral.rs continues the prompts with."""
    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"{VARIABLE} names no Python with the mistralrs package")
    message = json.dumps({"model": str(model), "arch": arch, "prompts": prompts, "tokens": tokens, **asked})
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([python, "-c", CODE, message], capture_output=True, text=True, check=False, env=environment)
    assert found.returncode == 0, found.stderr[-2000:]
    texts: list[str] = json.loads(found.stdout.splitlines()[-1])
    return texts


def copied(source: Path, folder: Path) -> None:
    """The small files of a model."""
    for path in source.iterdir():
        if path.suffix == ".json":
            shutil.copyfile(path, folder / path.name)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """TinyStories-656K with its tied weight under the name that mistral.rs looks for."""
    if not TINY.is_dir():
        pytest.skip("needs ../shared/data/models/tinystories-656k-hf")
    folder = tmp_path_factory.mktemp("tiny")
    copied(TINY, folder)
    tensors = load_file(TINY / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def load(folder: Path) -> Harness:
    """By products in float32, since native kernels round activations in their own way."""
    return Harness.load(folder, device="cpu", backend="torch", dtype="float32")


def assert_greedy(folder: Path, text: str) -> None:
    """The text is what the best tokens here say one after the other; or tokens as good.

    Texts are compared, not tokens: what was written as two tokens may be one when it is encoded again. Where several
    tokens are as good and say what is wanted, each may have been theirs."""
    engine = load(folder)
    tokenizer = engine.loaded.text.tokenizer
    assert tokenizer is not None
    wanted, paths, furthest = PROMPT + text, [tokenizer.encode(PROMPT)], ""
    for _ in range(4 * TOKENS):
        assert paths, f"the best tokens part from {wanted!r} after {furthest!r}"
        ids = paths.pop()
        said = tokenizer.decode(ids)
        if said == wanted:
            return
        furthest = max(furthest, said, key=len)
        logits_V = engine.logits(ids)[-1]
        near = np.flatnonzero(logits_V >= logits_V.max() - NEAR * np.ptp(logits_V))
        longer = [[*ids, int(token)] for token in near[np.argsort(logits_V[near])]]
        paths += [path for path in longer if wanted.startswith(tokenizer.decode(path))]
    raise AssertionError(f"{wanted!r} was not found, only {furthest!r}")


def written(model: Path, folder: Path, kind: str) -> str:
    """The name of the file that is written here."""
    options = LoadOptions(quant=kind, device="cpu")
    convert_model(str(model), folder / f"{kind}.uqff", options, installed(), form="uqff", write=WriteOptions())
    return f"{kind}-0.uqff"


@pytest.mark.parametrize("kind", NARROW)
def test_what_mistral_rs_writes_is_the_same_model_here(kind: str, tiny: Path, tmp_path: Path) -> None:
    (text,) = theirs(tiny, quant=kind, write=str(tmp_path / f"{kind}.uqff"))
    assert_greedy(tmp_path, text)


@pytest.mark.parametrize("kind", NARROW)
def test_what_is_written_here_is_the_same_model_in_mistral_rs(kind: str, tiny: Path, tmp_path: Path) -> None:
    (text,) = theirs(tmp_path, read=written(tiny, tmp_path, kind))
    assert_greedy(tmp_path, text)


@pytest.mark.parametrize("kind", WIDE)
def test_wider_rows_go_both_ways(kind: str, tmp_path: Path) -> None:
    """The demo model is 256 wide, so that K types are what they are called."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    (text,) = theirs(DEMO, quant=kind, write=str(other / f"{kind}.uqff"))
    assert_greedy(other, text)
    (text,) = theirs(ours, read=written(DEMO, ours, kind))
    assert_greedy(ours, text)


def assert_next(folder: Path, prompts: Sequence[str], texts: Sequence[str]) -> None:
    """What follows each prompt is the best token here too, or as good as the best."""
    engine = load(folder)
    tokenizer = engine.loaded.text.tokenizer
    assert tokenizer is not None
    for prompt, text in zip(prompts, texts, strict=True):
        logits_V = engine.logits(tokenizer.encode(prompt))[-1]
        near = np.flatnonzero(logits_V >= logits_V.max() - NEAR * np.ptp(logits_V))
        assert text.strip() in [tokenizer.decode([int(token)]).strip() for token in near]


@pytest.mark.parametrize(("name", "kind"), MIXED)
def test_mixtures_of_experts_go_both_ways(name: str, kind: str, tmp_path: Path) -> None:
    """Random weights of rows of 256, with the demo's tokenizer: the token after each of twelve prompts."""
    arch, sample = MIXTURES[name]
    config = installed().catalogs.architectures.get(name).load("samples")()[sample]
    width = {"intermediate_size", "moe_intermediate_size"} & set(config)
    rows = json.loads((DEMO / "config.json").read_text())["vocab_size"]
    config = {**STATED, **config, "hidden_size": 256, "vocab_size": rows, **dict.fromkeys(width, 256)}
    source, ours, other = tmp_path / "source", tmp_path / "ours", tmp_path / "other"
    source.mkdir()
    copied(DEMO, source)
    write_random(source, config)
    prompts = [SENTENCE[: 4 * end] for end in range(2, 14)]
    texts = theirs(source, arch=arch, prompts=prompts, tokens=1, quant=kind, write=str(other / f"{kind}.uqff"))
    assert_next(other, prompts, texts)
    texts = theirs(ours, arch=arch, prompts=prompts, tokens=1, read=written(source, ours, kind))
    assert_next(ours, prompts, texts)
