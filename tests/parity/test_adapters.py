# SPDX-License-Identifier: Apache-2.0
"""LoRA against ``peft``: several adapters in one batch, each as it is alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import define, evolve
from numpy.typing import NDArray

from tramontane.plugins import installed
from tramontane.requests import EngineRequest, SamplingParams, Task
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import assert_close
from tramontane.testing.oracle import Oracle

peft = pytest.importorskip("peft", reason="the oracle of LoRA")
pytest.importorskip("tramontane_adapter_lora", reason="opens what peft saves")

PROMPTS = ([5, 17, 3, 88, 41, 2, 60, 9, 33, 71, 8], [7, 7, 30, 1], [90, 2, 2, 45, 45, 6, 11])
TOLERANCE = 2e-4
ADAPTERS: dict[str, dict[str, Any]] = {
    "attention": {"r": 4, "lora_alpha": 8},
    "everywhere": {"r": 9, "lora_alpha": 12, "use_rslora": True},
}


@define(eq=False)
class Trained:
    """A base model with adapters, saved, and what peft says of each."""

    base: Path
    folders: dict[str, str]
    logits: dict[str | None, list[NDArray[np.float32]]]


def configuration(name: str, family: str) -> dict[str, Any]:
    """What is adapted. ``all-linear`` takes every linear but the head; where experts are stacked it makes peft adapt
    parameters that are no modules, which is refused."""
    attention = {
        "deepseek": ["q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"],
        "phi3": ["qkv_proj"],
    }.get(family, ["q_proj", "v_proj", "o_proj"])
    everywhere: Any = {
        "deepseek": [*attention, "o_proj", "q_a_proj"],
        "mixtral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    }.get(family, "all-linear")
    chosen = {"attention": attention, "everywhere": everywhere}[name]
    patterns: dict[str, Any] = {}
    if name == "everywhere":
        patterns = {"rank_pattern": {"o_proj": 3}, "alpha_pattern": {"down_proj": 5}}
    return {"target_modules": chosen, **ADAPTERS[name], **patterns}


def train(config: dict[str, Any], family: str, folder: Path) -> Trained:
    """Adapters with random weights, which is all that parity asks for."""
    oracle = Oracle.make(config)
    base = oracle.save(folder / "base")
    trained = Trained(base, {}, {None: [oracle.logits(prompt) for prompt in PROMPTS]})
    for seed, name in enumerate(ADAPTERS):
        model = peft.get_peft_model(Oracle.make(config).model, peft.LoraConfig(**configuration(name, family))).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
        model.save_pretrained(folder / name)
        trained.folders[name] = str(folder / name)
        trained.logits[name] = [Oracle(model).logits(prompt) for prompt in PROMPTS]
    return trained


def sample(family: str) -> dict[str, Any]:
    """A tiny configuration with a rope that does not depend on lengths."""
    for architecture in installed().catalogs.architectures:
        samples: dict[str, dict[str, Any]] = architecture.load("samples")() if architecture.samples else {}
        for config in samples.values():
            if config["architectures"][0] == CLASSES[family] and "longrope" not in str(config):
                return config
    pytest.skip(f"no plugin has {CLASSES[family]}")


CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "deepseek": "DeepseekV3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
FAMILIES = [pytest.param(name, marks=[] if name == "llama" else [pytest.mark.full]) for name in CLASSES]
BACKENDS = ["torch", pytest.param("reference", marks=pytest.mark.full), "cpu"]


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(sample(request.param), request.param, tmp_path_factory.mktemp(request.param))


def load(trained: Trained, backend: str, **changes: Any) -> Harness:
    catalog = installed().catalogs.backends
    if backend not in catalog.names() or (reason := catalog.get(backend).load("backend").probe()) is not None:
        pytest.skip(f"the backend {backend} is not here: {reason if backend in catalog.names() else 'not installed'}")
    return Harness.load(trained.base, backend=backend, dtype="float32", adapters=trained.folders, **changes)


def request(engine: Harness, prompt: Sequence[int], adapter: str | None, task: Task = Task.LOGITS) -> EngineRequest:
    sampling = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
    ref = None if adapter is None else engine.loaded.adapters.find(adapter)
    return evolve(engine.request(prompt, sampling, task=task), adapter=ref)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("trained", FAMILIES, indirect=True)
def test_one_batch_of_several_adapters_is_each_alone(trained: Trained, backend: str) -> None:
    """Logits as peft's; and tokens of a batch of everything equal to those of each request alone, captured or not."""
    engine = load(trained, backend)
    assert engine.loaded.capture_note == "captured"
    assert engine.loaded.runner.adapted is not None
    names = [None, *trained.folders]
    cases = [(name, place) for name in names for place in range(len(PROMPTS))]
    requests = [request(engine, PROMPTS[place], name) for name, place in cases]
    found = engine.run(requests)
    for asked, (name, place) in zip(requests, cases, strict=True):
        (output,) = [delta.output for delta in found[asked.id] if delta.output is not None]
        theirs = trained.logits[name][place]
        assert_close(np.asarray(output), theirs, TOLERANCE, f"{name} on prompt {place} against peft")
        if name is not None:
            assert np.abs(theirs - trained.logits[None][place]).max() > 0.1, "the adapter changes nothing"

    together = [request(engine, PROMPTS[place], name, Task.GENERATE) for name, place in cases]
    tokens = engine.run(together)
    eager = load(trained, backend, capture=False)
    for asked, (name, place) in zip(together, cases, strict=True):
        alone = request(eager, PROMPTS[place], name, Task.GENERATE)
        assert [d.token_ids for d in eager.run([alone])[alone.id]] == [d.token_ids for d in tokens[asked.id]]
