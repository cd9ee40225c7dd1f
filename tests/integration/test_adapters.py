# SPDX-License-Identifier: Apache-2.0
"""Adapters of a running model: chosen by requests, loaded and unloaded meanwhile. The oracle is the merged model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tramontane import LLM, SamplingParams
from tramontane.errors import AdapterError, ConfigError, RequestError
from tramontane.testing.checkpoints import write_random
from tramontane.testing.fake_hub import FakeHub, Repository
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_arch_llama", reason="needs the llama architecture plugin")
pytest.importorskip("tramontane_adapter_lora", reason="opens adapters")

CONFIG = sample("LlamaForCausalLM", "llama", num_hidden_layers=2)
MODULES = {"self_attn.q_proj": (64, 64), "self_attn.v_proj": (64, 32), "mlp.down_proj": (112, 64)}
PROMPT = list(range(3, 43))
GREEDY = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
SETTINGS: dict[str, Any] = {"backend": "torch", "dtype": "float32", "block_tokens": 8, "num_blocks": 64}


def write_adapter(folder: Path, seed: int, rank: int = 4) -> Path:
    """An adapter with random pairs, in the form of PEFT."""
    folder.mkdir()
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for layer in range(2):
        for module, (inputs, outputs) in MODULES.items():
            at = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.2
            tensors[f"{at}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.2
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}))
    return folder


def merged(base: Path, adapter: Path, folder: Path) -> Path:
    """The base with the adapter added to its weights."""
    weights: dict[str, Tensor] = load_file(base / "model.safetensors")
    pairs = load_file(adapter / "adapter_model.safetensors")
    for name in pairs:
        if ".lora_A." in name:
            module = name.removeprefix("base_model.model.").replace(".lora_A", "")
            weights[module] += 2.0 * pairs[name.replace(".lora_A", ".lora_B")] @ pairs[name]
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    base = write_random(root / "base", CONFIG)
    made = {name: write_adapter(root / name, seed, rank) for name, seed, rank in (("a", 1, 4), ("b", 2, 12))}
    return {"base": base, **made, **{f"{name}-merged": merged(base, made[name], root / f"{name}-m") for name in made}}


@pytest.fixture(scope="module")
def logits(files: dict[str, Path]) -> dict[str | None, np.ndarray]:
    """What the models say whose weights hold the adapter, by adapter."""
    found = {}
    for name, path in ((None, "base"), ("a", "a-merged"), ("b", "b-merged")):
        with LLM(files[path], **SETTINGS) as llm:
            found[name] = llm.logits(PROMPT)
    return found


@pytest.fixture
def llm(files: dict[str, Path]) -> Iterator[LLM]:
    with LLM(files["base"], adapters={"a": str(files["a"])}, **SETTINGS) as running:
        yield running


def test_an_adapter_is_the_merged_model(llm: LLM, files: dict[str, Path], logits: dict[str | None, Any]) -> None:
    """Of two adapters, one of them loaded while the model runs; and after the weights were exchanged."""
    made = llm.adapters.load("b", str(files["b"]))
    assert (made.name, made.kind, made.rank, made.modules) == ("b", "lora", 12, 6)
    assert list(llm.adapters) == ["a", "b"]
    assert "b" in llm.adapters
    for name in (None, "a", "b"):
        np.testing.assert_allclose(llm.logits(PROMPT, adapter=name), logits[name], atol=3e-5)
    assert np.abs(logits["a"] - logits[None]).max() > 0.1
    assert not np.allclose(llm.embed(PROMPT, adapter="a"), llm.embed(PROMPT))
    llm.requantize("q8_0")
    assert 1e-4 < np.abs(llm.logits(PROMPT, adapter="b") - logits["b"]).mean() < 0.05
    llm.requantize(None)
    np.testing.assert_allclose(llm.logits(PROMPT, adapter="b"), logits["b"], atol=3e-5)


def test_prefixes_are_cached_for_each_apart(llm: LLM, files: dict[str, Path]) -> None:
    llm.adapters.load("b", str(files["b"]))

    def cached(adapter: str | None) -> int:
        return llm.generate(PROMPT, GREEDY, adapter=adapter).usage.cached_tokens

    assert [cached(name) for name in (None, "a", "b")] == [0, 0, 0]
    assert [cached(name) for name in (None, "a", "b")] == [32, 32, 32]
    before = llm.generate(PROMPT, GREEDY, adapter="b").token_ids
    llm.adapters.load("b", str(files["a"]))  # another adapter under the old name
    assert cached("b") == 0, "nothing of the old one is found"
    after = llm.generate(PROMPT, GREEDY, adapter="b").token_ids
    assert after == llm.generate(PROMPT, GREEDY, adapter="a").token_ids != before


def test_an_adapter_that_is_unloaded_serves_to_the_end(llm: LLM) -> None:
    table = llm._service.running.model.adapters
    long = SamplingParams(max_tokens=150, temperature=0, ignore_eos=True)
    whole = llm.generate(PROMPT, long, adapter="a").token_ids
    held = table.nbytes
    with llm.generate(PROMPT, long, adapter="a", stream=True) as stream:
        first = next(stream)
        llm.adapters.unload("a")
        with pytest.raises(RequestError, match="there is no adapter 'a'"):
            llm.generate(PROMPT, GREEDY, adapter="a")
        assert first.token_ids
        assert llm.generate(PROMPT, GREEDY).token_ids != whole[:8]
        for _ in stream:
            pass
        assert stream.completion().token_ids == whole
    llm.generate(PROMPT, GREEDY)  # the engine has seen it off by now
    assert table.nbytes == 0 < held
    with pytest.raises(RequestError, match="there is no adapter 'a'"):
        llm.adapters.unload("a")


def test_many_requests_of_many_adapters_at_once(llm: LLM, files: dict[str, Path]) -> None:
    llm.adapters.load("b", str(files["b"]))
    names = [None, "a", "b", "a", None, "b"]
    alone = {name: llm.generate(PROMPT, GREEDY, adapter=name).token_ids for name in set(names)}
    streams = [llm.generate([PROMPT[: 20 + i] for i in range(3)], GREEDY, adapter=name, stream=True) for name in names]
    ends = [[c.token_ids for c in stream.completions()] for stream in streams]
    assert ends[1] == ends[3]
    assert ends[2] == ends[5]
    assert ends[0] == ends[4]
    again = [llm.generate(PROMPT, GREEDY, adapter=name, stream=True) for name in names]
    for name, stream in zip(names, again, strict=True):
        assert stream.completion().token_ids == alone[name], name


def test_faults_change_nothing(llm: LLM, files: dict[str, Path], tmp_path: Path) -> None:
    wide = write_adapter(tmp_path / "wide", 3)
    pairs = load_file(wide / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    save_file({**pairs, name: pairs[name] * float("inf")}, wide / "adapter_model.safetensors")
    before = llm.generate(PROMPT, GREEDY, adapter="a").token_ids
    with pytest.raises(AdapterError, match=r"infinities|infinite"):
        llm.adapters.load("a", str(wide))
    save_file({f"base_model.model.lm_head.{side}.weight": torch.ones(4, 4) for side in ("lora_A", "lora_B")},
              wide / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(AdapterError, match=r"1 modules that cannot be adapted here \(the output head\): lm_head"):
        llm.adapters.load("a", str(wide))
    for name in ("none", "", "a\nb"):
        with pytest.raises(AdapterError, match="cannot be called"):
            llm.adapters.load(name, str(files["b"]))
    assert list(llm.adapters) == ["a"]
    assert llm.generate(PROMPT, GREEDY, adapter="a").token_ids == before
    with pytest.raises(ConfigError, match="max_adapters is 1, and 2 adapters are given"):
        LLM(files["base"], adapters={"a": str(files["a"]), "b": str(files["b"])}, max_adapters=1)


def test_as_many_as_there_are_columns(files: dict[str, Path]) -> None:
    with LLM(files["base"], max_adapters=1, **SETTINGS) as llm:
        llm.adapters.load("a", str(files["a"]))
        with pytest.raises(AdapterError, match="no room for the adapter 'b'"):
            llm.adapters.load("b", str(files["b"]))
        llm.adapters.unload("a")
        llm.adapters.load("b", str(files["b"]))
        assert list(llm.adapters) == ["b"]


def test_an_adapter_on_the_hub(
    llm: LLM, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    held = {path.name: path.read_bytes() for path in files["b"].iterdir()}
    with FakeHub({"owner/b": Repository({**held, "adapter_model.bin": b"x", "README.md": b"x"})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert llm.adapters.load("hub", "owner/b").rank == 12
    llm.adapters.load("b", str(files["b"]))
    assert np.array_equal(llm.logits(PROMPT, adapter="hub"), llm.logits(PROMPT, adapter="b"))
