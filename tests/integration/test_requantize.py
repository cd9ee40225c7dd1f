# SPDX-License-Identifier: Apache-2.0
"""Other types for a running model: weights are those of loading so, requests go on, memory stays bounded."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tramontane import LLM, AsyncLLM, SamplingParams
from tramontane.errors import CheckpointError, ConfigError, UnknownNameError
from tramontane.load import LoadOptions, exchange_weights, plan_exchange, save_model
from tramontane.load import requantize as module
from tramontane.load.importances import write_importances
from tramontane.plugins import installed
from tramontane.quantization import Sums
from tramontane.schemes import Act
from tramontane.testing.checkpoints import write_random
from tramontane.testing.grids import mostly_full
from tramontane.testing.harness import Harness
from tramontane.testing.quantized import with_activation_rule
from tramontane.testing.samples import sample

pytest.importorskip("tramontane_arch_llama", reason="needs the llama architecture plugin")
pytest.importorskip("tramontane_quant_gguf", reason="needs the GGML types")

CONFIG = sample("LlamaForCausalLM", "llama", hidden_size=256, head_dim=64, intermediate_size=512, num_hidden_layers=2)
PROMPT = [3, 17, 42, 8, 5, 33]
FULL = pytest.mark.full
BACKENDS = [
    spec.name
    for spec in installed().catalogs.backends
    if "cpu" in spec.devices and spec.load("backend").probe() is None and spec.name != "reference-invariant"
]


NATIVE = [name for name in BACKENDS if name != "reference"]
QUICK = mostly_full(BACKENDS, NATIVE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("model"), CONFIG)


def load(path: Path, **options: Any) -> Harness:
    return Harness.load(path, dtype="float32", **{"backend": "torch", **options})


def exchange(harness: Harness, quant: str | None, *, from_memory: bool = False, **options: Any) -> None:
    planned = plan_exchange(harness.loaded, LoadOptions(quant=quant, **options), from_memory=from_memory)
    harness.core.exchange(lambda: exchange_weights(harness.loaded, planned))


def names(harness: Harness) -> dict[str, str]:
    return {part.path: part.scheme.name for weight in harness.loaded.plan.weights for part in weight.parts}


def near(got: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    return bool(np.abs(got - expected).max() <= tolerance * np.abs(expected).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_become_those_of_a_model_that_was_loaded_so(model: Path, backend: str) -> None:
    harness = load(model, backend=backend)
    before = harness.logits(PROMPT)
    for quant in ("q4k", "q8_0"):
        exchange(harness, quant)
        fresh = load(model, backend=backend, quant=quant)
        assert names(harness) == names(fresh)
        assert near(harness.logits(PROMPT), fresh.logits(PROMPT)), "nothing is lost by what it was in between"
        assert harness.loaded.capture_note == fresh.loaded.capture_note
        kept = harness.loaded.blueprint.matrices.values()
        assert [m.storage().layout for m in kept] == [
            m.storage().layout for m in fresh.loaded.blueprint.matrices.values()
        ]
    exchange(harness, None)
    assert near(harness.logits(PROMPT), before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "first", ["q8_0", "nf4", *(pytest.param(name, marks=FULL) for name in ("q5_1", "int8", "fp8"))]
)
def test_from_memory_what_is_kept_is_packed_anew(model: Path, backend: str, first: str) -> None:
    harness = load(model, backend=backend, quant=first)
    path = "model.layers.1.mlp.down_proj"
    part = harness.loaded.plan.weight(path).parts[0]
    kept = part.scheme.dequantize(harness.loaded.blueprint.matrices[path].storage().unpack(0), part.shape)
    exchange(harness, "q4_0", from_memory=True)
    part = harness.loaded.plan.weight(path).parts[0]
    assert part.pack is not None
    expected = part.pack(kept)["weight"]
    assert torch.equal(harness.loaded.blueprint.matrices[path].storage().unpack(0)["weight"], expected)


def test_what_is_stored_quantized_is_unpacked_and_packed_anew(model: Path, tmp_path: Path) -> None:
    save_model(str(model), tmp_path / "saved", LoadOptions(backend="torch", dtype="float32", quant="q8_0"))
    harness = load(tmp_path / "saved")
    assert set(names(harness).values()) == {"q8_0"}
    exchange(harness, "q4_0")
    assert names(harness)["model.layers.0.mlp.up_proj"] == "q4_0"
    exchange(harness, None)
    assert set(names(harness).values()) == {"q8_0"}


def test_experts_and_routers(tmp_path: Path) -> None:
    samples = pytest.importorskip("tramontane_arch_mixtral.samples").samples()
    path = write_random(tmp_path, {**next(iter(samples.values())), "intermediate_size": 96})
    harness = load(path)
    exchange(harness, "q8_0", organization="moqe")
    assert {name for name, kind in names(harness).items() if kind == "q8_0"} == {
        name for name in names(harness) if ".experts." in name
    }
    assert near(harness.logits(PROMPT), load(path, quant="q8_0", organization="moqe").logits(PROMPT))


def test_a_topology_is_respected(model: Path, tmp_path: Path) -> None:
    topology = tmp_path / "t.yml"
    topology.write_text('"0": {isq: q6k}\n"/down_proj/": {isq: none}\n')
    harness = load(model, quant="q4k")
    exchange(harness, "q8_0", topology=str(topology))
    found = names(harness)
    assert found["model.layers.0.mlp.up_proj"] == "q6_k"
    assert found["model.layers.1.mlp.up_proj"] == "q8_0"
    assert found["model.layers.0.mlp.down_proj"] == "f32"


@pytest.mark.parametrize("overlap", [pytest.param(False, id="step", marks=FULL), pytest.param(True, id="overlapped")])
@pytest.mark.parametrize("backend", QUICK)
def test_running_requests_go_on_with_the_new_weights(model: Path, backend: str, overlap: bool) -> None:
    """Tokens before are the old model's, tokens after are what the new one makes of everything before them."""
    harness = load(model, backend=backend)
    sampling = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True)
    requests = [harness.request([*PROMPT, extra], sampling) for extra in (7, 11)]
    found: dict[str, list[int]] = {request.id: [] for request in requests}
    for request in requests:
        harness.core.add(request)

    def step() -> None:
        for delta in harness.core.overlap_step() if overlap else harness.core.step():
            assert delta.error is None
            found[delta.request_id] += delta.token_ids

    while min(map(len, found.values())) < 9:
        step()
    exchange(harness, "q2k")
    harness.core.check_integrity()
    for delta in harness.core._waiting_deltas:
        found[delta.request_id] += delta.token_ids
    harness.core._waiting_deltas.clear()
    before = {key: list(tokens) for key, tokens in found.items()}
    while harness.core.has_work:
        step()
    old, new = load(model, backend=backend), load(model, backend=backend, quant="q2k")
    for request in requests:
        tokens, early = found[request.id], before[request.id]
        prompt = list(request.prompt_token_ids)
        assert len(tokens) == 24
        assert early == old.greedy([prompt], len(early))[0]
        assert tokens[len(early) :] == new.greedy([[*prompt, *early]], 24 - len(early))[0]
    assert old.greedy([PROMPT], 24) != new.greedy([PROMPT], 24), "a test that cannot fail shows nothing"


def test_the_same_type_under_importances_is_packed_anew(model: Path, tmp_path: Path) -> None:
    harness = load(model, quant="q4_0")
    loaded, matrix = harness.loaded, harness.loaded.blueprint.matrices["model.layers.1.mlp.down_proj"]
    sums = {
        part.path: Sums.zero(1, one.in_features) for one in loaded.blueprint.matrices.values() for part in one.parts
    }
    for one in sums.values():
        one.add(0, torch.linspace(0, 9, one.squares_XI.shape[1]).unsqueeze(0))
    file, config = tmp_path / "i.dat", loaded.checkpoint.config
    write_importances(file, sums, loaded, config, loaded.plugins, chunks=1, chunk_tokens=1, text="t")
    plain = matrix.storage().unpack(0)["weight"].clone()
    exchange(harness, "q4_0", imatrix=str(file))
    fresh = load(model, quant="q4_0", imatrix=str(file)).loaded.blueprint.matrices[matrix.path]
    weighed = matrix.storage().unpack(0)["weight"].clone()
    assert torch.equal(weighed, fresh.storage().unpack(0)["weight"])
    assert not torch.equal(weighed, plain)
    exchange(harness, "q4_0")
    assert torch.equal(matrix.storage().unpack(0)["weight"], plain), "and back"


def test_rules_for_activations_stay_left_alone(model: Path, tmp_path: Path) -> None:
    save_model(str(model), tmp_path / "saved", LoadOptions(backend="torch", dtype="float32", quant="fp8"))
    ruled = with_activation_rule(tmp_path / "saved", Act("fp8", per="token"))
    found = {}
    for activations in ("exact", "stored"):
        harness = load(ruled, activations=activations)
        before = found[activations] = harness.logits(PROMPT)
        exchange(harness, "q8_0")
        exchange(harness, None)
        assert near(harness.logits(PROMPT), before)
    assert not near(found["exact"], found["stored"])


@pytest.mark.parametrize("settings", [{"quant": None}, {"quant": "q4_0", "imatrix": "i.dat"}])
def test_importances_that_count_for_nothing_are_refused_at_once(model: Path, settings: dict[str, Any]) -> None:
    """Before a text is looked for."""
    with pytest.raises(ConfigError, match="importances"):
        exchange(load(model), **{"calibrate": "nowhere.txt", **settings})


def test_cached_prefixes_of_the_old_weights_are_forgotten(model: Path) -> None:
    prompt = [int(token) for token in np.random.default_rng(0).integers(3, 60, 40)]
    harness = load(model)
    harness.greedy([prompt], 1)
    assert harness.continuations([prompt], 1)[0].cached_tokens > 0
    exchange(harness, "q4_0")
    assert harness.continuations([prompt], 1)[0].cached_tokens == 0


def test_nothing_changes_where_the_type_is_not_known(model: Path) -> None:
    harness = load(model, quant="q4k")
    before = names(harness)
    with pytest.raises(UnknownNameError, match="q4q"):
        exchange(harness, "q4q")
    assert names(harness) == before


def test_a_model_that_fails_half_way_runs_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = load(model, quant="q4_0")
    bring, seen = module.bring, []

    def failing(part: Any) -> Any:
        seen.append(part.path)
        if len(seen) > 6:
            raise CheckpointError("the disk is gone")
        return bring(part)

    monkeypatch.setattr(module, "bring", failing)
    with pytest.raises(CheckpointError, match="the disk is gone"):
        exchange(harness, "q8_0")
    kinds = set(names(harness).values())
    assert kinds >= {"q4_0", "q8_0"}
    for path, matrix in harness.loaded.blueprint.matrices.items():
        assert matrix.schemes == tuple(part.scheme for part in harness.loaded.plan.weight(path).parts)
    assert np.isfinite(harness.logits(PROMPT)).all()
    monkeypatch.undo()
    exchange(harness, "q8_0")
    assert near(harness.logits(PROMPT), load(model, quant="q8_0").logits(PROMPT))


def test_both_faces_exchange_while_they_serve(model: Path) -> None:
    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)

    async def served() -> list[list[int]]:
        async with AsyncLLM(str(model), backend="torch", dtype="float32", num_blocks=64) as llm:
            running = [asyncio.ensure_future(_whole(llm, [*PROMPT, extra], params)) for extra in range(3, 9)]
            await asyncio.sleep(0.02)
            await llm.requantize("4")
            assert llm.plan.weight("model.layers.0.mlp.down_proj").parts[0].scheme.name == "q4_k"
            return list(await asyncio.gather(*running))

    assert all(len(tokens) == 40 for tokens in asyncio.run(served()))
    with LLM(str(model), backend="torch", dtype="float32", num_blocks=64) as llm:
        llm.requantize("q8_0")
        assert llm.plan.weight("lm_head").parts[0].scheme.name == "q8_0"
        with pytest.raises(UnknownNameError):
            llm.requantize("q99")
        assert len(llm.generate(PROMPT, params).token_ids) == 40


async def _whole(llm: AsyncLLM, prompt: list[int], params: SamplingParams) -> list[int]:
    answer = await llm.generate(prompt, params)
    return list(answer.token_ids)


MEMORY = """
import json, sys, torch
from tramontane.load import LoadOptions, exchange_weights, plan_exchange
from tramontane.memory import PeakMemory
from tramontane.testing.harness import Harness
torch.set_num_threads(1)
found = {}
for path, report in ((sys.argv[3], False), (sys.argv[1], True)):
    harness = Harness.load(path, backend=sys.argv[2], dtype="bfloat16", quant="q8_0", num_blocks=16)
    loaded = harness.loaded
    planned = plan_exchange(loaded, LoadOptions(quant="q4_0"))
    largest = max(weight.nbytes for weight in loaded.plan.weights)
    parts = max(2 * part.shape[0] * part.shape[1] for weight in loaded.plan.weights for part in weight.parts)
    before = loaded.plan.nbytes
    with PeakMemory() as peak:
        exchange_weights(loaded, planned)
    found = {"growth": peak.growth, "matrix": largest + parts, "before": before, "after": loaded.plan.nbytes}
print(json.dumps(found))
"""


@FULL
@pytest.mark.parametrize("backend", NATIVE)
def test_memory_grows_by_a_matrix_at_most(tmp_path: Path, model: Path, backend: str) -> None:
    config = {**CONFIG, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "vocab_size": 256}
    path = write_random(tmp_path, config)
    mapped = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEMORY, str(path), backend, str(model)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=mapped).stdout)
    assert found["after"] < 0.6 * found["before"]
    assert found["growth"] < 2 * found["matrix"] + 3e6, found
    assert 2 * found["matrix"] + 3e6 < 0.5 * found["before"], "the bound would not show a second copy"
